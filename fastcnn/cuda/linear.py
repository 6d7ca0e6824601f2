"""Affine (fully connected) layers: matrix products with a bias."""

import numpy as np
from numba import cuda

from fastcnn.cuda.arrays import contiguous, flat, output
from fastcnn.cuda.gemm import Axis, Operand, Target, multiply
from fastcnn.cuda.jit import kernel
from fastcnn.cuda.memory import empty
from fastcnn.cuda.reduce import fold

ROWS, PARTS = 64, 64  # rows of a part of the bias gradient, at least; parts at most


def affine_forward(x, w, b, relu=False, out=None):
    """out (N, M) = x w + b with x (N, D), w (D, M), b (M,) or None; optionally max(out, 0)."""
    (n, d), m = x.shape, w.shape[1]
    out = output(out, (n, m), x.dtype)
    target = Target(flat(out), m, (1, 0, 0), bias=None if b is None else contiguous(b), by_column=True, relu=relu)
    multiply(Operand(flat(x), (d,), (1, 0, 0)), Operand(flat(w), (1, 0, 0), (m, 0, 0)), target, n, Axis(m), Axis(d))
    return out


def affine_backward_input(dout, w, out=None):
    """dx (N, D) = dout w^T."""
    (n, m), d = dout.shape, w.shape[0]
    out = output(out, (n, d), dout.dtype)
    a, b = Operand(flat(dout), (m,), (1, 0, 0)), Operand(flat(w), (m, 0, 0), (1, 0, 0))
    multiply(a, b, Target(flat(out), d, (1, 0, 0)), n, Axis(d), Axis(m))
    return out


def affine_backward_weight(dout, x, out=None):
    """dw (D, M) = x^T dout."""
    (n, m), d = dout.shape, x.shape[1]
    out = output(out, (d, m), dout.dtype)
    a, b = Operand(flat(x), (1,), (d, 0, 0)), Operand(flat(dout), (1, 0, 0), (m, 0, 0))
    multiply(a, b, Target(flat(out), m, (1, 0, 0)), d, Axis(m), Axis(n))
    return out


def affine_backward_bias(dout, out=None):
    """db (M,) = sum of dout (N, M) over the rows, in float64."""
    n, m = dout.shape
    out = output(out, m, dout.dtype)
    parts = empty((m, max(1, min(PARTS, n // ROWS))), np.float64)
    _sum_rows[-(-m // _sum_rows.block_size), parts.shape[1]](contiguous(dout), parts)
    fold(parts, out)
    return out


@kernel("T[:, ::1], float64[:, ::1]")
def _sum_rows(dout, parts):
    """A thread for each column, blocks (columns, part)."""
    column, part = np.int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x), cuda.blockIdx.y
    if column < dout.shape[1]:
        total = np.float64(0)
        for row in range(part, dout.shape[0], cuda.gridDim.y):
            total += dout[row, column]
        parts[column, part] = total
