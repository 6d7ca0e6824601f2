"""Philox4x32-10: random numbers as a function of a key and an element's index.

Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC'11), section 4.

There is no state: the elements of the stream named by a key are the four words of the blocks with counters 0, 1, 2 and
so on, whoever computes them, in what order, and on how many threads. Their order suits vectors: of WORDS counters in a
row, all first words stand first, then all second words, and so on. So element i, with ``q, r = divmod(i, 4 * WORDS)``,
is word ``r // WORDS`` of the block with counter ``q * WORDS + r % WORDS``.

All words are carried in uint64 variables that hold values below 2**32; one text therefore serves NumPy arrays, compiled
scalars and plain Python.
"""

import numpy as np

WORDS = 512  # neighbouring elements that are the same word of neighbouring counters

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)  # multipliers
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)  # Weyl increments of the key
_LOW, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox_4x32(c0, c1, c2, c3, k0, k1):
    """Four random 32-bit words for the counter (c0, c1, c2, c3) under the key (k0, k1), ten rounds.

    Parameters are uint64 scalars or arrays with values below 2**32; so are the four results.
    """
    for _ in range(10):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _LOW, (p0 >> _32) ^ c3 ^ k1, p0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def split_key(key):
    """A key, an integer in [0, 2**64), as its low and its high 32-bit word."""
    return np.uint64(key & 0xFFFFFFFF), np.uint64(key >> 32)


def derive_key(seed, *path):
    """A key for one use of a seed: the same seed and path of integers always give the same, unrelated key.

    ``derive_key(seed, layer, step)`` names the stream of one dropout layer in one training step.
    """
    key = seed & 0xFFFFFFFFFFFFFFFF
    for part in path:
        words = philox_4x32(*split_key(part & 0xFFFFFFFFFFFFFFFF), np.uint64(0), np.uint64(1), *split_key(key))
        key = int(words[0]) | int(words[1]) << 32
    return key


def keep_threshold(p):
    """The bound t such that a random 32-bit word below t happens with probability p in [0, 1]."""
    return np.uint64(round(p * 2.0**32))
