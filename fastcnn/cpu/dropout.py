"""Dropout whose mask is a function of a key and the element's index (`common.philox`), so it need not be stored.

Source: Srivastava et al., "Dropout" (2014); inverted form: what is kept is divided by p.
"""

from fastcnn.common.philox import WORDS, keep_threshold, split_key
from fastcnn.cpu.arrays import flat, output
from fastcnn.cpu.elementwise import BLOCK, begin, blocks, part
from fastcnn.cpu.jit import parallel
from fastcnn.cpu.random import four_words


def dropout_mask(shape, p, key, dtype, out=None):
    """The mask: 1/p where an element is kept, with probability p, else 0."""
    out = output(out, shape, dtype)
    out[...] = 1
    return dropout_forward(out, p, key, out)


def dropout_forward(x, p, key, out=None):
    """x times the mask of `dropout_mask` with the same p and key."""
    out = output(out, x.shape, x.dtype)
    _dropout(blocks(x.size), flat(x), keep_threshold(p), x.dtype.type(1 / p), *split_key(key), out.reshape(-1))
    return out


def dropout_backward(dout, p, key, out=None):
    """dout times the same mask."""
    return dropout_forward(dout, p, key, out)


def mask_multiply(x, mask, out=None):
    """x times a mask given as an array."""
    out = output(out, x.shape, x.dtype)
    _multiply(blocks(x.size), flat(x), flat(mask), out.reshape(-1))
    return out


@parallel
def _dropout(block, x, threshold, scale, k0, k1, out):
    y, zero = begin(x, out, block), out.dtype.type(0)
    for start in range(0, y.size, 4 * WORDS):
        counter, rest = (block * BLOCK + start) // 4, y[start:]
        if rest.size >= 4 * WORDS:
            first, second, third, fourth = rest[:WORDS], rest[WORDS:], rest[2 * WORDS :], rest[3 * WORDS :]
            for i in range(WORDS):
                a, b, c, d = four_words(counter + i, k0, k1)
                first[i] *= scale if a < threshold else zero
                second[i] *= scale if b < threshold else zero
                third[i] *= scale if c < threshold else zero
                fourth[i] *= scale if d < threshold else zero
        else:
            for i in range(min(rest.size, WORDS)):
                words = four_words(counter + i, k0, k1)
                for j in range(4):
                    if j * WORDS + i < rest.size:
                        rest[j * WORDS + i] *= scale if words[j] < threshold else zero


@parallel
def _multiply(block, x, mask, out):
    y, factor = begin(x, out, block), part(mask, block)
    for i in range(y.size):
        y[i] *= factor[i]
