"""The counter-based generator of `common.philox`, compiled for the GPU."""

import numpy as np

from fastcnn.common import philox
from fastcnn.cuda.jit import device

philox_4x32 = device(philox.philox_4x32)


@device
def four_words(counter, k0, k1):
    """The four 32-bit words, as uint64, of the block with this counter under the key (k0, k1)."""
    low, zero = np.uint64(0xFFFFFFFF), np.uint64(0)
    counter = np.uint64(counter)
    # Where the compiler sees that all parts have 32 bits, each product is one instruction.
    return philox_4x32(counter & low, counter >> np.uint64(32), zero, zero, k0 & low, k1 & low)
