"""Max, average and global-average pooling.

Sources: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 9.3; global average: Lin, Chen, Yan, "Network in
network" (2013), section 3.2.
Shapes: x (N, C, H, W), out and dout (N, C, H', W'); size, stride and pad are pairs (vertical, horizontal), pad at most
half of size. Rows and columns that no window reaches get no gradient.
"""

import numpy as np

from fastcnn.reference._arrays import crop_image, deliver, pad_image, taps


def max_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out[n, c, p, q] = the maximum of window (p, q) of x[n, c]; outside the image x is -inf; NaN if one is in it."""
    return deliver(_windows(x, size, stride, pad, -np.inf).max(axis=0), out, x.dtype)


def max_pool_backward(dout, x, size, stride, pad=(0, 0), out=None):
    """dx: each dout[n, c, p, q] is added at the first maximum, row-major, of its window; the first NaN is a maximum."""
    windows = _windows(x, size, stride, pad, -np.inf)
    inside = _windows(np.ones(x.shape, bool), size, stride, pad, False)  # padding never wins, not even among -inf
    is_max = inside & ((windows == windows.max(axis=0)) | np.isnan(windows))
    first = is_max.argmax(axis=0)
    dx = pad_image(np.zeros(x.shape, dout.dtype), pad)
    for k, (_, dx_tap) in enumerate(taps(dx, size, stride)):
        dx_tap += np.where(first == k, dout, 0)
    return deliver(crop_image(dx, pad), out, dout.dtype)


def avg_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out[n, c, p, q] = the mean of window (p, q) of x[n, c]; outside the image x is 0, and those zeros count."""
    return deliver(_windows(x, size, stride, pad, 0).mean(axis=0, dtype=np.float64), out, x.dtype)


def avg_pool_backward(dout, x_shape, size, stride, pad=(0, 0), out=None):
    """dx: each dout[n, c, p, q] / (size[0] size[1]) is added to every pixel of its window."""
    dx = pad_image(np.zeros(x_shape), pad)
    for _, dx_tap in taps(dx, size, stride):
        dx_tap += dout / (size[0] * size[1])
    return deliver(crop_image(dx, pad), out, dout.dtype)


def global_avg_pool_forward(x, out=None):
    """out[n, c] = the mean of x[n, c], (N, C)."""
    return deliver(x.mean(axis=(2, 3), dtype=np.float64), out, x.dtype)


def global_avg_pool_backward(dout, x_shape, out=None):
    """dx[n, c, h, w] = dout[n, c] / (H W)."""
    H, W = x_shape[2:]
    return deliver(np.full(x_shape, dout[:, :, None, None] / (H * W)), out, dout.dtype)


def _windows(x, size, stride, pad, value):
    """(size[0] size[1], N, C, H', W'): the pixels of every window, row-major; `value` outside the image."""
    return np.stack([x_tap for _, x_tap in taps(pad_image(x, pad, value), size, stride)])
