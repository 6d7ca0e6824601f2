"""The tools of the reference floor: results and their buffers, padding, the taps of a sliding window."""

import numpy as np

from fastcnn.common.geometry import output_shape


def deliver(result, out, dtype):
    """`result` copied into `out`, if there is one; otherwise `result` itself in C order and in `dtype`."""
    if out is None:
        return np.asarray(result, dtype=dtype, order="C")
    out[...] = result
    return out


def pad_image(x, pad, value=0):
    """A copy of x (N, C, H, W) with pad = (vertical, horizontal) rows and columns of `value` on each side."""
    return np.pad(x, [(0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])], constant_values=value)


def crop_image(x, pad):
    """The inverse of `pad_image`: x without its margins (a view)."""
    return x[:, :, pad[0] : x.shape[2] - pad[0], pad[1] : x.shape[3] - pad[1]]


def taps(x, kernel, stride, dilation=(1, 1)):
    """For each tap of a kernel (HH, WW) that slides over x (N, C, H, W), row-major: the pixels of x it meets.

    Yields ((i, j), view) with ``view[n, c, p, q] = x[n, c, p stride + i dilation, q stride + j dilation]``, of shape
    (N, C, H', W'): writing to it writes to x, and within one tap no two windows share a pixel.
    """
    H_out, W_out = output_shape(x.shape[2:], kernel, stride, (0, 0), dilation)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + H_out * stride[0], stride[0])
            columns = slice(left, left + W_out * stride[1], stride[1])
            yield (i, j), x[:, :, rows, columns]
