"""Affine (fully connected) layers: matrix products with a bias."""

import numpy as np

from fastcnn.cpu.apart import get, put
from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.gemm import DEPTH, multiply, rectify
from fastcnn.cpu.jit import jit, parallel

STRIP = 64  # columns per task of the bias gradient: whole cache lines
FEW = 4  # rows of x for which reading w is the work; to pack it would be to read it twice
WIDE, SHARE = 256, 4  # of w's columns, a task with few rows takes this many, or this part if that is more


def affine_forward(x, w, b, relu=False, out=None):
    """out (N, M) = x w + b with x (N, D), w (D, M), b (M,) or None; optionally max(out, 0)."""
    if len(x) > FEW:
        return multiply(x, w, b, relu=relu, out=out)
    out = output(out, (len(x), w.shape[1]), x.dtype)
    bias = np.zeros(w.shape[1], x.dtype) if b is None else contiguous(b)
    width = max(WIDE, w.shape[1] // SHARE)
    _few_rows(-(-w.shape[1] // width), width, contiguous(x), contiguous(w), bias, relu, out)
    return out


def affine_backward_input(dout, w, out=None):
    """dx (N, D) = dout w^T."""
    return multiply(dout, w, None, transpose_b=True, out=out)


def affine_backward_weight(dout, x, out=None):
    """dw (D, M) = x^T dout."""
    return multiply(x, dout, None, transpose_a=True, out=out)


def affine_backward_bias(dout, out=None):
    """db (M,) = sum of dout (N, M) over the rows, in float64."""
    out = output(out, dout.shape[1], dout.dtype)
    _sum_rows(-(-out.size // STRIP), contiguous(dout), out)
    return out


@parallel
def _few_rows(task, width, x, w, bias, relu, out):
    """Columns of x w + bias, w read once and four rows at a time."""
    depth, columns = w.shape
    first, size = task * width, min(width, columns - task * width)
    sums = np.empty(size, x.dtype)
    for i in range(x.shape[0]):
        for j in range(size):
            out[i, first + j] = bias[first + j]
    for top in range(0, depth, DEPTH):
        bottom = min(depth, top + DEPTH)
        whole = top + (bottom - top) // 4 * 4
        for i in range(x.shape[0]):
            for j in range(size):
                sums[j] = 0
            for p in range(top, whole, 4):
                add_rows(sums, w, p * columns + first, columns, x[i, p], x[i, p + 1], x[i, p + 2], x[i, p + 3])
            for p in range(whole, bottom):
                for j in range(size):
                    sums[j] += x[i, p] * get(w, p * columns + first + j)
            for j in range(size):
                out[i, first + j] += sums[j]
    for i in range(x.shape[0]):
        for j in range(first, first + size):
            out[i, j] = rectify(out[i, j], relu)


@jit
def add_rows(sums, w, start, step, a, b, c, d):
    """sums += a, b, c and d times what stands at `start`, and `step` after each other, in w taken as flat."""
    for j in range(sums.size):
        here = start + j
        product = a * get(w, here) + b * get(w, here + step)
        product += c * get(w, here + 2 * step) + d * get(w, here + 3 * step)
        put(sums, j, get(sums, j) + product)


@parallel
def _sum_rows(task, dout, db):
    first, last = task * STRIP, min(db.size, (task + 1) * STRIP)
    total = np.zeros(STRIP, np.float64)
    for n in range(dout.shape[0]):
        row = dout[n, first:last]
        for i in range(last - first):
            total[i] += row[i]
    for i in range(last - first):
        db[first + i] = total[i]
