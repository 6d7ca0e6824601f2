"""Dropout whose mask is a function of a key and the element's index (`common.philox`), so it need not be stored.

Source: Srivastava et al., "Dropout" (2014); inverted form: what is kept is divided by p.
"""

from fastcnn.common.philox import WORDS, keep_threshold, split_key
from fastcnn.cpu.apart import get, put
from fastcnn.cpu.arrays import flat, output
from fastcnn.cpu.elementwise import BLOCK, blocks, part
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
    here, y, zero = part(x, block), part(out, block), out.dtype.type(0)
    for start in range(0, y.size, 4 * WORDS):
        counter, size = (block * BLOCK + start) // 4, y.size - start
        source, target = here[start:], y[start:]
        if size >= 4 * WORDS:
            for i in range(WORDS):
                words = four_words(counter + i, k0, k1)
                for j in range(4):
                    factor = scale if words[j] < threshold else zero
                    put(target, j * WORDS + i, get(source, j * WORDS + i) * factor)
        else:
            for i in range(min(size, WORDS)):
                words = four_words(counter + i, k0, k1)
                for j in range(4):
                    if j * WORDS + i < size:
                        factor = scale if words[j] < threshold else zero
                        put(target, j * WORDS + i, get(source, j * WORDS + i) * factor)


@parallel
def _multiply(block, x, mask, out):
    here, factor, y = part(x, block), part(mask, block), part(out, block)
    for i in range(y.size):
        put(y, i, get(here, i) * get(factor, i))
