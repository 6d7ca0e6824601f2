"""Affine (fully connected) layers: matrix products with a bias."""

import numpy as np

from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.gemm import multiply
from fastcnn.cpu.jit import parallel

STRIP = 64  # columns per task of the bias gradient: whole cache lines


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
    _sum_rows(-(-out.size // STRIP), contiguous(dout), out)
    return out


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
