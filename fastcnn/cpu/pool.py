"""Max, average and global average pooling, a plane (image, channel) at a time, row by row.

Rows are walked tap by tap: for a fixed tap the windows of an output row read pixels at equal distances, a loop that
vectorises. Padding is never touched: `inside` gives the windows whose tap falls on the image.
"""

import numpy as np

from fastcnn.common.geometry import output_shape
from fastcnn.cpu.activation import replaces
from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.conv.columns import inside
from fastcnn.cpu.jit import jit, parallel


def max_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out (N, C, H', W') = maximum of each window of x (N, C, H, W); padding counts as -inf."""
    out = output(out, (*x.shape[:2], *output_shape(x.shape[2:], size, stride, pad)), x.dtype)
    _max_pool_forward(x.shape[0] * x.shape[1], contiguous(x), *size, *stride, *pad, out)
    return out


def max_pool_backward(dout, x, size, stride, pad=(0, 0), out=None):
    """dx (N, C, H, W): each window's gradient goes to its first maximum, found again in x."""
    out = output(out, x.shape, x.dtype)
    _max_pool_backward(x.shape[0] * x.shape[1], contiguous(dout), contiguous(x), *size, *stride, *pad, out)
    return out


def avg_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out (N, C, H', W') = mean of each window of x (N, C, H, W); padding counts as zeros."""
    out = output(out, (*x.shape[:2], *output_shape(x.shape[2:], size, stride, pad)), x.dtype)
    _avg_pool_forward(x.shape[0] * x.shape[1], contiguous(x), *size, *stride, *pad, out)
    return out


def avg_pool_backward(dout, x_shape, size, stride, pad=(0, 0), out=None):
    """dx (N, C, H, W): each window's gradient spread evenly over the window."""
    out = output(out, x_shape, dout.dtype)
    _avg_pool_backward(x_shape[0] * x_shape[1], contiguous(dout), *size, *stride, *pad, out)
    return out


def global_avg_pool_forward(x, out=None):
    """out (N, C) = mean of each plane of x (N, C, H, W)."""
    n, c, h, w = x.shape
    out = output(out, (n, c), x.dtype)
    _global_avg_pool_forward(n * c, contiguous(x).reshape(n * c, h * w), out.reshape(-1))
    return out


def global_avg_pool_backward(dout, x_shape, out=None):
    """dx (N, C, H, W): dout (N, C) divided by H W, in every place."""
    out = output(out, x_shape, dout.dtype)
    n, c, h, w = x_shape
    _global_avg_pool_backward(n * c, contiguous(dout).reshape(-1), out.reshape(n * c, h * w))
    return out


@jit
def spans(size, stride, pad, length, windows):
    """For each of the `size` taps along an axis: the range of windows whose tap is inside (rows: first, last)."""
    spans = np.empty((size, 2), np.intp)
    for tap in range(size):
        spans[tap, 0], spans[tap, 1] = inside(tap - pad, stride, length, windows)
    return spans


@parallel
def _max_pool_forward(plane, x, size_h, size_w, stride_h, stride_w, pad_h, pad_w, out):
    channels = x.shape[1]
    quarters = size_h == size_w == stride_h == stride_w == 2 and pad_h == pad_w == 0
    n, c = plane // channels, plane % channels
    if quarters:
        _max_of_quarters(x[n, c], out[n, c])
    else:
        _max_pool_plane(x[n, c], size_h, size_w, stride_h, stride_w, pad_h, pad_w, out[n, c])


@jit
def _max_pool_plane(x, size_h, size_w, stride_h, stride_w, pad_h, pad_w, out):
    height, width = x.shape
    inner = spans(size_w, stride_w, pad_w, width, out.shape[1])
    for oh in range(out.shape[0]):
        best = out[oh]
        best[:] = -np.inf
        for ih in range(max(0, oh * stride_h - pad_h), min(height, oh * stride_h - pad_h + size_h)):
            for kw in range(size_w):
                first, last = inner[kw]
                row, here = x[ih, max(first * stride_w + kw - pad_w, 0) :], best[first:last]
                for i in range(last - first):
                    here[i] = row[i * stride_w] if replaces(row[i * stride_w], here[i]) else here[i]


@jit
def _max_of_quarters(x, out):
    """2 x 2 windows side by side, what most nets use: one sweep over two rows that vectorises."""
    for oh in range(out.shape[0]):
        upper, lower, best = x[2 * oh], x[2 * oh + 1], out[oh]
        for i in range(best.size):
            value = upper[2 * i]
            value = upper[2 * i + 1] if replaces(upper[2 * i + 1], value) else value
            value = lower[2 * i] if replaces(lower[2 * i], value) else value
            best[i] = lower[2 * i + 1] if replaces(lower[2 * i + 1], value) else value


@parallel
def _max_pool_backward(plane, dout, x, size_h, size_w, stride_h, stride_w, pad_h, pad_w, dx):
    channels = x.shape[1]
    quarters = size_h == size_w == stride_h == stride_w == 2 and pad_h == pad_w == 0
    n, c = plane // channels, plane % channels
    if quarters:
        _max_of_quarters_backward(dout[n, c], x[n, c], dx[n, c])
    else:
        _max_pool_backward_plane(dout[n, c], x[n, c], size_h, size_w, stride_h, stride_w, pad_h, pad_w, dx[n, c])


@jit
def _max_of_quarters_backward(dout, x, dx):
    zero = dx.dtype.type(0)
    for oh in range(dout.shape[0]):
        a, b, gradient = x[2 * oh], x[2 * oh + 1], dout[oh]
        upper, lower = dx[2 * oh], dx[2 * oh + 1]
        for i in range(gradient.size):
            right = replaces(a[2 * i + 1], a[2 * i])
            value = a[2 * i + 1] if right else a[2 * i]
            below = replaces(b[2 * i], value)
            value = b[2 * i] if below else value
            last = replaces(b[2 * i + 1], value)
            g = gradient[i]
            upper[2 * i] = zero if right | below | last else g
            upper[2 * i + 1] = g if right & (not (below | last)) else zero
            lower[2 * i] = g if below & (not last) else zero
            lower[2 * i + 1] = g if last else zero
        upper[2 * gradient.size :] = 0  # an odd last column, which no window sees
        lower[2 * gradient.size :] = 0
    dx[2 * dout.shape[0] :] = 0


@jit
def _max_pool_backward_plane(dout, x, size_h, size_w, stride_h, stride_w, pad_h, pad_w, dx):
    """Row by row: first the maximum of each window and the tap it stands at, then the gradients of each tap."""
    height, width = x.shape
    inner = spans(size_w, stride_w, pad_w, width, dout.shape[1])
    best, winner = np.empty(dout.shape[1], x.dtype), np.empty(dout.shape[1], np.int32)
    dx[:] = 0
    for oh in range(dout.shape[0]):
        top, bottom = max(0, oh * stride_h - pad_h), min(height, oh * stride_h - pad_h + size_h)
        best[:] = -np.inf
        winner[:] = -1
        for ih in range(top, bottom):
            for kw in range(size_w):
                first, last = inner[kw]
                tap = np.int32((ih - top) * size_w + kw)
                row, here, taps = x[ih, max(first * stride_w + kw - pad_w, 0) :], best[first:last], winner[first:last]
                for i in range(last - first):
                    value = row[i * stride_w]
                    better = replaces(value, here[i]) | (taps[i] < 0)
                    here[i] = value if better else here[i]
                    taps[i] = tap if better else taps[i]
        for ih in range(top, bottom):
            for kw in range(size_w):
                first, last = inner[kw]
                tap = np.int32((ih - top) * size_w + kw)
                row, taps = dx[ih, max(first * stride_w + kw - pad_w, 0) :], winner[first:last]
                gradient = dout[oh, first:last]
                for i in range(last - first):
                    # Added everywhere: which tap wins cannot be predicted, so a branch would cost more than the sum.
                    row[i * stride_w] += gradient[i] if taps[i] == tap else type(gradient[i])(0)


@parallel
def _avg_pool_forward(plane, x, size_h, size_w, stride_h, stride_w, pad_h, pad_w, out):
    channels, height, width = x.shape[1:]
    image, result = x[plane // channels, plane % channels], out[plane // channels, plane % channels]
    inner = spans(size_w, stride_w, pad_w, width, result.shape[1])
    for oh in range(result.shape[0]):
        total = result[oh]
        total[:] = 0
        for ih in range(max(0, oh * stride_h - pad_h), min(height, oh * stride_h - pad_h + size_h)):
            for kw in range(size_w):
                first, last = inner[kw]
                row, here = image[ih, max(first * stride_w + kw - pad_w, 0) :], total[first:last]
                for i in range(last - first):
                    here[i] += row[i * stride_w]
        for i in range(total.size):
            total[i] /= size_h * size_w


@parallel
def _avg_pool_backward(plane, dout, size_h, size_w, stride_h, stride_w, pad_h, pad_w, dx):
    channels, height, width = dx.shape[1:]
    gradient, result = dout[plane // channels, plane % channels], dx[plane // channels, plane % channels]
    inner = spans(size_w, stride_w, pad_w, width, gradient.shape[1])
    result[:] = 0
    for oh in range(gradient.shape[0]):
        share = gradient[oh] / dx.dtype.type(size_h * size_w)
        for ih in range(max(0, oh * stride_h - pad_h), min(height, oh * stride_h - pad_h + size_h)):
            for kw in range(size_w):
                first, last = inner[kw]
                row, here = result[ih, max(first * stride_w + kw - pad_w, 0) :], share[first:last]
                for i in range(last - first):
                    row[i * stride_w] += here[i]


@parallel
def _global_avg_pool_forward(plane, x, out):
    total, row = np.float64(0), x[plane]
    for i in range(row.size):
        total += row[i]
    out[plane] = total / row.size


@parallel
def _global_avg_pool_backward(plane, dout, dx):
    row = dx[plane]
    row[:] = dout[plane] / row.dtype.type(row.size)
