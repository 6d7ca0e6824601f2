"""Dropout whose mask is a function of a key and the element's index (`common.philox`), so it need not be stored.

Source: Srivastava et al., "Dropout" (2014); inverted form: what is kept is divided by p.
"""

import numpy as np
from numba import cuda

from fastcnn.common.philox import WORDS, keep_threshold, split_key
from fastcnn.cuda.arrays import aligned, flat, output
from fastcnn.cuda.elementwise import binary, run
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.random import four_words
from fastcnn.cuda.vectors import LANES, lanes, lanes_of, load_vector, store_vector


def dropout_mask(shape, p, key, dtype, out=None):
    """The mask: 1/p where an element is kept, with probability p, else 0."""
    out = output(out, shape, dtype)
    _apply(_mask, out, p, key, out)
    return out


def dropout_forward(x, p, key, out=None):
    """x times the mask of `dropout_mask` with the same p and key."""
    out = output(out, x.shape, x.dtype)
    _apply(_dropout, x, p, key, out)
    return out


def dropout_backward(dout, p, key, out=None):
    """dout times the same mask."""
    return dropout_forward(dout, p, key, out)


def mask_multiply(x, mask, out=None):
    """x times a mask given as an array."""
    return run(_multiply, (x, mask), out=out)


def _apply(function, x, p, key, out):
    """Threads for the vectors of neighbouring counters, where memory is aligned, and one for each counter left."""
    x, out = flat(x), flat(out)
    runs = out.size // (4 * WORDS) if aligned(x, out) else 0  # of WORDS counters, whose elements are all there
    left = out.size - runs * 4 * WORDS
    vectors = runs * (WORDS // lanes_of(out.dtype))
    threads = vectors + left // (4 * WORDS) * WORDS + min(left % (4 * WORDS), WORDS)
    numbers = keep_threshold(p), out.dtype.type(1 / p), *split_key(key)
    function.for_each(threads, x, *numbers, np.int32(runs * WORDS), np.int32(vectors), out)


@device
def first_element(counter):
    """The place of the first word of a counter; the other three are WORDS elements apart."""
    return counter // np.int32(WORDS) * np.int32(3 * WORDS) + counter


def _kernel(name, multiplies):
    """The kernel out = x mask; or out = mask, which reads nothing."""

    def body(x, threshold, scale, k0, k1, whole, vectors, out):
        """`whole` counters in vectors, of the first `vectors` threads."""
        i = np.int32(cuda.grid(1))
        zero, one = out.dtype.type(0), out.dtype.type(1)
        if i < vectors:
            counter = i * np.int32(lanes(out))
            first = first_element(counter)
            values = cuda.local.array((4, LANES), out.dtype)
            if multiplies:
                for j in range(4):
                    load_vector(x, first + j * WORDS, values[j])
            for k in range(lanes(out)):
                words = four_words(counter + k, k0, k1)
                for j in range(4):
                    factor = scale if words[j] < threshold else zero
                    values[j, k] = factor * (values[j, k] if multiplies else one)
            for j in range(4):
                store_vector(values[j], out, first + j * WORDS)
        else:
            counter = i - vectors + whole
            first = first_element(counter)
            if first < out.size:
                words = four_words(counter, k0, k1)
                for j in range(4):
                    place = first + j * WORDS
                    if place < out.size:
                        factor = scale if words[j] < threshold else zero
                        out[place] = factor * (x[place] if multiplies else one)

    opcodes = ("LDG.E.128", "STG.E.128") if multiplies else ("STG.E.128",)
    signature = "T[::1], uint64, T, uint64, uint64, int32, int32, T[::1]"
    return kernel(signature, opcodes=(*opcodes, "IMAD.WIDE.U32"), name=f"dropout.{name}")(body)


_dropout, _mask = _kernel("dropout", True), _kernel("mask", False)


@device
def multiply(x, mask):
    """x mask."""
    return x * mask


_multiply = binary(multiply)
