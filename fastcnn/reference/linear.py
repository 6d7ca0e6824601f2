"""The affine (fully connected) layer.

Source: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 6.5; the names are those of Stanford's CS231n.
Shapes: x (N, D), w (D, M), b (M,), out and dout (N, M).
"""

import numpy as np

from fastcnn.reference._arrays import deliver


def affine_forward(x, w, b, relu=False, out=None):
    """out = x w + b; b may be None; with `relu`, max(0, out)."""
    y = x @ w
    if b is not None:
        y = y + b
    if relu:
        y = np.maximum(y, 0)
    return deliver(y, out, x.dtype)


def affine_backward_input(dout, w, out=None):
    """dx = dout w^T, (N, D)."""
    return deliver(dout @ w.T, out, dout.dtype)


def affine_backward_weight(dout, x, out=None):
    """dw = x^T dout, (D, M)."""
    return deliver(x.T @ dout, out, dout.dtype)


def affine_backward_bias(dout, out=None):
    """db = sum_n dout[n], (M,)."""
    return deliver(dout.sum(axis=0, dtype=np.float64), out, dout.dtype)
