"""Convolution on the CPU floor: one file per algorithm, and the choice between them in `choose`.

Each algorithm is a module with `forward`, `backward_input` and `backward_filter`.
"""

import numpy as np

from fastcnn.common.geometry import output_shape
from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.conv import choose, epilogue
from fastcnn.cpu.conv.columns import col2im, im2col  # noqa: F401  public
from fastcnn.cpu.jit import parallel


def conv_forward(
    x, w, b, stride, pad, dilation=(1, 1), groups=1, relu=False, algo="auto", add=None, out=None
):  # fmt: skip
    """out[n, f] = b[f] + add[n, f] + sum_c x[n, c] (cross-correlated with) w[f, c]; optionally max(out, 0).

    x (N, C, H, W), w (F, C/groups, HH, WW), b (F,) or None, add (N, F, H', W') or None; stride, pad, dilation
    (vertical, horizontal). out (N, F, H', W').
    """
    out = _forward(x, w, b, stride, pad, dilation, groups, relu, algo, add, out)[0]
    return out


def conv_moments_forward(x, w, b, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """`conv_forward`, and the mean and (biased) variance of each channel, (F,) each, gathered on the way."""
    out, moments = _forward(x, w, b, stride, pad, dilation, groups, False, algo, None, out, True)
    return out, *epilogue.fold(moments, out.dtype)


def _forward(x, w, b, stride, pad, dilation, groups, relu, algo, add, out, moments=False):
    """out, and the moments of its blocks if wanted."""
    shape = (x.shape[0], w.shape[0], *output_shape(x.shape[2:], w.shape[2:], stride, pad, dilation))
    out = output(out, shape, x.dtype)
    b = np.zeros(w.shape[0], x.dtype) if b is None else contiguous(b)
    add = np.empty((0, 0, 0, 0), x.dtype) if add is None else contiguous(add)
    algorithm = choose.algorithm(algo, "forward", x.shape, w.shape, stride, pad, dilation, groups, x.dtype)
    end = epilogue.Epilogue(b, add, relu, moments)
    return out, algorithm.forward(contiguous(x), contiguous(w), stride, pad, dilation, groups, end, out)


def conv_backward_input(dout, w, x_shape, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """dx (N, C, H, W) for the gradient dout (N, F, H', W') of `conv_forward`'s output."""
    out = output(out, x_shape, dout.dtype)
    algorithm = choose.algorithm(algo, "backward_input", x_shape, w.shape, stride, pad, dilation, groups, w.dtype)
    algorithm.backward_input(contiguous(dout), contiguous(w), stride, pad, dilation, groups, out)
    return out


def conv_backward_filter(dout, x, w_shape, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """dw (F, C/groups, HH, WW) for the gradient dout (N, F, H', W') of `conv_forward`'s output."""
    out = output(out, w_shape, dout.dtype)
    algorithm = choose.algorithm(algo, "backward_filter", x.shape, w_shape, stride, pad, dilation, groups, x.dtype)
    algorithm.backward_filter(contiguous(dout), contiguous(x), stride, pad, dilation, groups, out)
    return out


def conv_backward_bias(dout, out=None):
    """db (F,) = sum of dout (N, F, H', W') over images and places."""
    n, f, h, w = dout.shape
    out = output(out, f, dout.dtype)
    _sum_planes(f, contiguous(dout).reshape(n, f, h * w), out)
    return out


@parallel
def _sum_planes(channel, dout, db):
    n, f, size = dout.shape
    total = np.float64(0)
    for i in range(n):
        plane = dout[i, channel]
        part = np.float64(0)
        for j in range(size):
            part += plane[j]
        total += part
    db[channel] = total
