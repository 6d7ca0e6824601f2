"""Inverted dropout with counter-based random numbers.

Source: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov, "Dropout" (2014), section 10 (scaling by 1/p in
training); the generator is Philox (`fastcnn.common.philox`).
p is the probability of *keeping* an element, key an integer in [0, 2**64).
"""

import math

import numpy as np

from fastcnn.common.philox import WORDS, keep_threshold, philox_4x32, split_key
from fastcnn.reference._arrays import deliver


def dropout_mask(shape, p, key, dtype, out=None):
    """mask = 1/p with probability p, else 0: element i (in C order) keeps if element i of the key's stream is small."""
    size = math.prod(shape)
    counters = np.arange(-(-size // (4 * WORDS)) * WORDS, dtype=np.uint64)
    low, high, zero = counters & np.uint64(0xFFFFFFFF), counters >> np.uint64(32), np.uint64(0)
    words = np.stack(philox_4x32(low, high, zero, zero, *split_key(key)))
    stream = words.reshape(4, -1, WORDS).transpose(1, 0, 2).reshape(-1)
    kept = stream[:size].reshape(shape) < keep_threshold(p)
    return deliver(np.divide(kept, p, out=np.zeros(shape), where=kept), out, dtype)  # so p = 0 is all zeros


def dropout_forward(x, p, key, out=None):
    """out = x mask."""
    return mask_multiply(x, dropout_mask(x.shape, p, key, x.dtype), out)


def dropout_backward(dout, p, key, out=None):
    """dx = dout mask, the mask of the forward pass made anew from its key."""
    return mask_multiply(dout, dropout_mask(dout.shape, p, key, dout.dtype), out)


def mask_multiply(x, mask, out=None):
    """out = x mask, for a mask given as an array of x's shape and dtype."""
    return deliver(x * mask, out, x.dtype)
