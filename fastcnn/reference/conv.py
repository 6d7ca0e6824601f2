"""2-D convolution (without flipping the kernel: cross-correlation), as a sum over the taps of the kernel.

Sources: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 9.5; Dumoulin & Visin, "A guide to convolution
arithmetic for deep learning" (2016); im2col: Chellapilla, Puri, Simard, "High performance convolutional neural networks
for document processing" (2006).

Shapes: x (N, C, H, W), w (F, C/groups, HH, WW), b (F,), out and dout (N, F, H', W'); stride, pad and dilation are
pairs (vertical, horizontal). Group g maps input channels g C/groups ... to output channels g F/groups ....
There is one algorithm here, whatever `algo` says.
"""

import numpy as np

from fastcnn.common.geometry import output_shape
from fastcnn.reference._arrays import crop_image, deliver, pad_image, taps


def conv_forward(
    x, w, b, stride, pad, dilation=(1, 1), groups=1, relu=False, algo="auto", add=None, out=None
):  # fmt: skip
    """out[n, f, p, q] = b[f] + sum_{c, i, j} w[f, c, i, j] x[n, c, p stride + i dilation - pad, q ... + j ...].

    x is zero outside the image; b may be None; with `add` (N, F, H', W'), out + add; then, with `relu`, max(0, out).
    """
    kernel, w_tap, x_pad = w.shape[2:], _by_tap(w, groups), pad_image(x, pad)
    y = sum(w_tap[ij] @ _by_group(x_tap, groups) for ij, x_tap in taps(x_pad, kernel, stride, dilation))
    y = y.reshape(x.shape[0], w.shape[0], *output_shape(x.shape[2:], kernel, stride, pad, dilation))
    if b is not None:
        y = y + b[:, None, None]
    if add is not None:
        y = y + add
    if relu:
        y = np.maximum(y, 0)
    return deliver(y, out, x.dtype)


def conv_moments_forward(x, w, b, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """`conv_forward`, and what a batch norm after it needs: mean and (biased) variance of each channel, (F,) each."""
    out = conv_forward(x, w, b, stride, pad, dilation, groups, out=out)
    y = out.astype(np.float64)
    count = max(y.size // max(len(w), 1), 1)
    mean = y.sum(axis=(0, 2, 3)) / count
    var = ((y - mean[:, None, None]) ** 2).sum(axis=(0, 2, 3)) / count
    return out, mean.astype(x.dtype), var.astype(x.dtype)


def conv_backward_input(dout, w, x_shape, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """dx[n, c, p stride + i dilation - pad, q ...] = the sum of w[f, c, i, j] dout[n, f, p, q] over f, p, q, i, j."""
    dy, w_tap = _by_group(dout, groups), _by_tap(w, groups)
    dx = pad_image(np.zeros(x_shape, dout.dtype), pad)
    for ij, dx_tap in taps(dx, w.shape[2:], stride, dilation):
        dx_tap += (w_tap[ij].swapaxes(-1, -2) @ dy).reshape(dx_tap.shape)
    return deliver(crop_image(dx, pad), out, dout.dtype)


def conv_backward_filter(dout, x, w_shape, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """dw[f, c, i, j] = sum_{n, p, q} dout[n, f, p, q] x[n, c, p stride + i dilation - pad, q stride + ...]."""
    dy, dw = _by_group(dout, groups), np.empty(w_shape)
    for (i, j), x_tap in taps(pad_image(x, pad), w_shape[2:], stride, dilation):
        dw_tap = dy @ _by_group(x_tap, groups).swapaxes(-1, -2)  # (N, groups, F/groups, C/groups)
        dw[:, :, i, j] = dw_tap.sum(axis=0, dtype=np.float64).reshape(w_shape[:2])
    return deliver(dw, out, x.dtype)


def conv_backward_bias(dout, out=None):
    """db[f] = sum_{n, p, q} dout[n, f, p, q]."""
    return deliver(dout.sum(axis=(0, 2, 3), dtype=np.float64), out, dout.dtype)


def im2col(x, kernel, stride, pad, dilation=(1, 1), out=None):
    """cols[n, (c HH + i) WW + j, p W' + q] = x[n, c, p stride + i dilation - pad, q stride + j dilation - pad].

    kernel = (HH, WW); the result is (N, C HH WW, H' W'), one column per window.
    """
    windows = np.stack([x_tap for _, x_tap in taps(pad_image(x, pad), kernel, stride, dilation)], axis=2)
    N, C, K, H_out, W_out = windows.shape
    return deliver(windows.reshape(N, C * K, H_out * W_out), out, x.dtype)


def col2im(cols, x_shape, kernel, stride, pad, dilation=(1, 1), out=None):
    """The transpose of `im2col`: each pixel of x, shape x_shape, is the sum of the entries of cols it was copied to."""
    N, C = x_shape[:2]
    windows = cols.reshape(N, C, kernel[0] * kernel[1], *output_shape(x_shape[2:], kernel, stride, pad, dilation))
    x = pad_image(np.zeros(x_shape, cols.dtype), pad)
    for k, (_, x_tap) in enumerate(taps(x, kernel, stride, dilation)):
        x_tap += windows[:, :, k]
    return deliver(crop_image(x, pad), out, cols.dtype)


def _by_group(a, groups):
    """Images (N, C, H, W) as matrices (N, groups, C/groups, H W)."""
    N, C, H, W = a.shape
    return a.reshape(N, groups, C // groups, H * W)


def _by_tap(w, groups):
    """Filters (F, C/groups, HH, WW) as matrices (HH, WW, groups, F/groups, C/groups), each contiguous for BLAS."""
    F, C_group, HH, WW = w.shape
    return np.ascontiguousarray(w.transpose(2, 3, 0, 1)).reshape(HH, WW, groups, F // groups, C_group)
