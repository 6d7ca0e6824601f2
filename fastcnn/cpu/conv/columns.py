"""im2col and col2im: the windows of an image as the columns of a matrix, and the transposed operation."""

from fastcnn.common.geometry import output_shape
from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.jit import jit, parallel


def im2col(x, kernel, stride, pad, dilation=(1, 1), out=None):
    """cols (N, C HH WW, H' W'): row (c, kh, kw) holds, for every window, the pixel under that tap; zeros outside x."""
    n, c, *size = x.shape
    windows = output_shape(size, kernel, stride, pad, dilation)
    out = output(out, (n, c * kernel[0] * kernel[1], windows[0] * windows[1]), x.dtype)
    _im2col(n * c, contiguous(x), *kernel, *stride, *pad, *dilation, out.reshape(n, c, *kernel, *windows))
    return out


def col2im(cols, x_shape, kernel, stride, pad, dilation=(1, 1), out=None):
    """x (N, C, H, W): each pixel is the sum of the elements of cols that `im2col` would have copied it to."""
    n, c, *size = x_shape
    windows = output_shape(size, kernel, stride, pad, dilation)
    out = output(out, x_shape, cols.dtype)
    _col2im(n * c, contiguous(cols).reshape(n, c, *kernel, *windows), *stride, *pad, *dilation, out)
    return out


@parallel
def _im2col(plane, x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, cols):
    n, channels, height, width = x.shape
    i, c = plane // channels, plane % channels
    for kh in range(kernel_h):
        for kw in range(kernel_w):
            first, last = inside(kw * dilation_w - pad_w, stride_w, width, cols.shape[5])
            for oh in range(cols.shape[4]):
                row = cols[i, c, kh, kw, oh]
                ih = oh * stride_h + kh * dilation_h - pad_h
                if 0 <= ih < height and first < last:
                    row[:first] = 0
                    source = x[i, c, ih, first * stride_w + kw * dilation_w - pad_w :]
                    for ow in range(last - first):
                        row[first + ow] = source[ow * stride_w]
                    row[last:] = 0
                else:
                    row[:] = 0


@parallel
def _col2im(plane, cols, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, x):
    n, channels, kernel_h, kernel_w, out_h, out_w = cols.shape
    height, width = x.shape[2:]
    i, c = plane // channels, plane % channels
    x[i, c] = 0
    for kh in range(kernel_h):
        for kw in range(kernel_w):
            first, last = inside(kw * dilation_w - pad_w, stride_w, width, out_w)
            for oh in range(out_h):
                ih = oh * stride_h + kh * dilation_h - pad_h
                if 0 <= ih < height and first < last:
                    target = x[i, c, ih, first * stride_w + kw * dilation_w - pad_w :]
                    row = cols[i, c, kh, kw, oh]
                    for ow in range(last - first):
                        target[ow * stride_w] += row[first + ow]


@jit
def inside(offset, stride, size, windows):
    """The range [first, last) of windows o in [0, windows) whose tap at o * stride + offset falls inside [0, size)."""
    if stride == 1:  # spares two divisions
        return min(max(0, -offset), windows), max(min(windows, size - offset), 0)
    return min(max(0, -(offset // stride)), windows), max(min(windows, (size - 1 - offset) // stride + 1), 0)
