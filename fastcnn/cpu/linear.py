"""Affine (fully connected) layers: matrix products with a bias."""

import numpy as np

from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.gemm import multiply
from fastcnn.cpu.jit import parallel, prange


def affine_forward(x, w, b, relu=False, out=None):
    """out (N, M) = x w + b with x (N, D), w (D, M), b (M,) or None; optionally max(out, 0)."""
    return multiply(x, w, b, relu=relu, out=out)


def affine_backward_input(dout, w, out=None):
    """dx (N, D) = dout w^T."""
    return multiply(dout, w, None, transpose_b=True, out=out)


def affine_backward_weight(dout, x, out=None):
    """dw (D, M) = x^T dout."""
    return multiply(x, dout, None, transpose_a=True, out=out)


def affine_backward_bias(dout, out=None):
    """db (M,) = sum of dout (N, M) over the rows, in float64."""
    out = output(out, dout.shape[1], dout.dtype)
    _sum_rows(contiguous(dout), out)
    return out


@parallel
def _sum_rows(dout, db):
    block = 64
    for task in prange(-(-db.size // block)):
        first, last = task * block, min(db.size, (task + 1) * block)
        total = np.zeros(block, np.float64)
        for n in range(dout.shape[0]):
            row = dout[n, first:last]
            for i in range(last - first):
                total[i] += row[i]
        for i in range(last - first):
            db[first + i] = total[i]
