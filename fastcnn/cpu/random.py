"""The counter-based generator of `common.philox`, compiled."""

import numpy as np

from fastcnn.common import philox
from fastcnn.cpu.jit import jit

philox_4x32 = jit(inline=True)(philox.philox_4x32)


@jit(inline=True)
def four_words(counter, k0, k1):
    """The four 32-bit words, as uint64, of the block with this counter under the key (k0, k1)."""
    low, zero = np.uint64(0xFFFFFFFF), np.uint64(0)
    counter = np.uint64(counter)
    # Where the compiler sees that the key has 32 bits a part, too, all products are of 32-bit numbers.
    return philox_4x32(counter & low, counter >> np.uint64(32), zero, zero, k0 & low, k1 & low)
