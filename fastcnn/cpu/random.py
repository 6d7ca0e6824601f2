"""The counter-based generator of `common.philox`, compiled."""

import numpy as np

from fastcnn.common import philox
from fastcnn.cpu.jit import jit

philox_4x32 = jit(philox.philox_4x32)


@jit
def four_words(counter, k0, k1):
    """The four 32-bit words, as uint64, of the block with this counter under the key (k0, k1)."""
    low = np.uint64(counter) & np.uint64(0xFFFFFFFF)
    return philox_4x32(low, np.uint64(counter) >> np.uint64(32), np.uint64(0), np.uint64(0), k0, k1)
