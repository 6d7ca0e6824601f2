"""Max, average and global average pooling.

Windows are small, overlap, and end where the image does; planes (an image's channels) are many and all alike. So eight
planes are pooled at once: a band of rows is transposed into a buffer in cache where the same pixel of the eight planes
stands together, an octet, and all that is done to a pixel is done to an octet.
"""

import numpy as np

from fastcnn.common.geometry import output_shape
from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.moves import BLOCK, transpose_block
from fastcnn.cpu.octets import (
    OCTET,
    choose,
    equals,
    gather_part,
    load,
    only,
    plus,
    replaces_each,
    scatter_part,
    spread,
    store,
    times,
)

PIXELS = 512  # of each plane, in a band: with those of the gradient they fill L1
TASK = 32768  # elements per task, in whole groups of eight planes
RUN = 512  # elements summed in the dtype before they go into a float64


def max_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out (N, C, H', W') = maximum of each window of x (N, C, H, W); padding counts as -inf."""
    out = output(out, (*x.shape[:2], *output_shape(x.shape[2:], size, stride, pad)), x.dtype)
    return _pool(_max_forward, x.shape, (contiguous(x),), size, stride, pad, out)


def max_pool_backward(dout, x, size, stride, pad=(0, 0), out=None):
    """dx (N, C, H, W): each window's gradient goes to its first maximum, found again in x."""
    out = output(out, x.shape, x.dtype)
    return _pool(_max_backward, x.shape, (contiguous(dout), contiguous(x)), size, stride, pad, out)


def avg_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out (N, C, H', W') = mean of each window of x (N, C, H, W); padding counts as zeros."""
    out = output(out, (*x.shape[:2], *output_shape(x.shape[2:], size, stride, pad)), x.dtype)
    return _pool(_mean_forward, x.shape, (contiguous(x),), size, stride, pad, out)


def avg_pool_backward(dout, x_shape, size, stride, pad=(0, 0), out=None):
    """dx (N, C, H, W): each window's gradient spread evenly over the window."""
    out = output(out, x_shape, dout.dtype)
    return _pool(_mean_backward, x_shape, (contiguous(dout), out), size, stride, pad, out)


def global_avg_pool_forward(x, out=None):
    """out (N, C) = mean of each plane of x (N, C, H, W)."""
    n, c, h, w = x.shape
    out = output(out, (n, c), x.dtype)
    planes = _planes_per_task(h * w)
    _global_forward(-(-n * c // planes), planes, contiguous(x).reshape(n * c, h * w), out.reshape(-1))
    return out


def global_avg_pool_backward(dout, x_shape, out=None):
    """dx (N, C, H, W): dout (N, C) divided by H W, in every place."""
    out = output(out, x_shape, dout.dtype)
    n, c, h, w = x_shape
    planes = _planes_per_task(h * w)
    _global_backward(-(-n * c // planes), planes, contiguous(dout).reshape(-1), out.reshape(n * c, h * w))
    return out


def _pool(kernel, shape, arrays, size, stride, pad, out):
    n, c, height, width = shape
    planes = _planes_per_task(height * width)
    flat = [a.reshape(n * c, *a.shape[2:]) for a in (*arrays, out)]
    kernel(-(-n * c // planes), planes, *flat, *size, *stride, *pad)
    return out


def _planes_per_task(pixels):
    """In whole octets."""
    return max(1, TASK // max(1, OCTET * pixels)) * OCTET


def _forward_kernel(window, name):
    """The kernel that writes window(...) of each window."""

    def task(task, planes, x, out, size_h, size_w, stride_h, stride_w, pad_h, pad_w):
        height, width = x.shape[1:]
        rows, columns = out.shape[1:]
        share = x.dtype.type(1 / (size_h * size_w))
        band = windows_in_band(size_h, stride_h, width)
        image = buffer(band_rows(band, size_h, stride_h, height) * width, x.dtype)
        results = buffer(min(band, rows) * columns, x.dtype)
        for plane in range(task * planes, min(x.shape[0], (task + 1) * planes), OCTET):
            for first in range(0, rows, band):
                last = min(rows, first + band)
                top, bottom = span(first, last, size_h, stride_h, pad_h, height)
                gather(x, plane, top, bottom, image)
                for oh in range(first, last):
                    upper, lower = span(oh, oh + 1, size_h, stride_h, pad_h, height)
                    for ow in range(columns):
                        left, right = span(ow, ow + 1, size_w, stride_w, pad_w, width)
                        start = ((upper - top) * width + left) * OCTET
                        place, step = ((oh - first) * columns + ow) * OCTET, width * OCTET
                        # Sizes that nets use stand here as constants, for which the compiler unrolls the loops.
                        if (lower - upper == 2) & (right - left == 2):
                            store(results, place, window(image, start, 2, 2, step, share))
                        elif (lower - upper == 3) & (right - left == 3):
                            store(results, place, window(image, start, 3, 3, step, share))
                        else:
                            value = window(image, start, lower - upper, right - left, step, share)
                            store(results, place, value)
                scatter(results, out, plane, first, last)

    return parallel(task, name=f"{__name__}.{name}")


def _backward_kernel(window, name, reads_x):
    """The kernel that adds window(...) of each window, of its gradient and, where it `reads_x`, of x."""

    def task(task, planes, dout, x, dx, size_h, size_w, stride_h, stride_w, pad_h, pad_w):
        height, width = dx.shape[1:]
        rows, columns = dout.shape[1:]
        share = dx.dtype.type(1 / (size_h * size_w))
        band = windows_in_band(size_h, stride_h, width)
        sums = buffer(band_rows(band, size_h, stride_h, height) * width, dx.dtype)
        image = np.zeros(sums.size if reads_x else 0, dx.dtype)
        gradients = buffer(min(band, rows) * columns, dx.dtype)
        for plane in range(task * planes, min(dx.shape[0], (task + 1) * planes), OCTET):
            reached = 0  # rows that have been in `sums`; those that are still there stand at its front
            for first in range(0, rows, band):
                last = min(rows, first + band)
                top, bottom = span(first, last, size_h, stride_h, pad_h, height)
                sums[(max(top, reached) - top) * width * OCTET : (bottom - top) * width * OCTET] = 0
                gather(dout, plane, first, last, gradients)
                if reads_x:
                    gather(x, plane, top, bottom, image)
                for oh in range(first, last):
                    upper, lower = span(oh, oh + 1, size_h, stride_h, pad_h, height)
                    for ow in range(columns):
                        left, right = span(ow, ow + 1, size_w, stride_w, pad_w, width)
                        start = ((upper - top) * width + left) * OCTET
                        gradient = load(gradients, ((oh - first) * columns + ow) * OCTET)
                        step = width * OCTET
                        if (lower - upper == 2) & (right - left == 2):
                            window(gradient, image, sums, start, 2, 2, step, share)
                        elif (lower - upper == 3) & (right - left == 3):
                            window(gradient, image, sums, start, 3, 3, step, share)
                        else:
                            window(gradient, image, sums, start, lower - upper, right - left, step, share)
                # Rows that no later window sees are finished; the others move to the front.
                done = height if last == rows else min(height, max(0, last * stride_h - pad_h))
                scatter(sums, dx, plane, top, min(done, bottom))
                if done > bottom:
                    dx[plane : plane + OCTET, bottom:done] = 0
                shift = (done - top) * width * OCTET
                for i in range((bottom - done) * width * OCTET):
                    sums[i] = sums[i + shift]
                reached = bottom

    return parallel(task, name=f"{__name__}.{name}")


@jit
def buffer(pixels, dtype):
    """Octets for so many pixels, and for those up to a whole block."""
    return np.zeros((pixels + BLOCK) * OCTET, dtype)


@jit
def windows_in_band(size, stride, width):
    """How many rows of windows are pooled at once."""
    return max(1, (PIXELS // width - size) // stride + 1)


@jit
def band_rows(band, size, stride, height):
    """Rows of the image that so many rows of windows see, at most."""
    return min(height, (band - 1) * stride + size)


@jit(inline=True)
def span(first, last, size, stride, pad, length):
    """The pixels, along an axis of `length`, that the windows from `first` to `last` see: from, to."""
    return max(0, first * stride - pad), min(length, (last - 1) * stride - pad + size)


@jit
def gather(source, plane, top, bottom, octets):
    """Rows of up to eight planes, from `plane` on, into octets."""
    planes, height, width = min(OCTET, source.shape[0] - plane), *source.shape[1:]
    step, length = height * width, (bottom - top) * width
    start = plane * step + top * width
    whole = length // BLOCK * BLOCK if planes == OCTET else 0
    for i in range(0, whole, BLOCK):
        transpose_block(source, start + i, step, octets, i * OCTET, OCTET)
    for i in range(whole, length, BLOCK):
        gather_part(source, start + i, step, planes, length - i, octets, i * OCTET)


@jit
def scatter(octets, target, plane, top, bottom):
    """The reverse of `gather`."""
    planes, height, width = min(OCTET, target.shape[0] - plane), *target.shape[1:]
    step, length = height * width, (bottom - top) * width
    start = plane * step + top * width
    whole = length // BLOCK * BLOCK if planes == OCTET else 0
    for i in range(0, whole, BLOCK):
        transpose_block(octets, i * OCTET, OCTET, target, start + i, step)
    for i in range(whole, length, BLOCK):
        scatter_part(octets, i * OCTET, target, start + i, step, planes, length - i)


@jit(inline=True)
def largest(image, start, rows, columns, step, share):
    """The maximum of a window; the first NaN, if there is one."""
    best = load(image, start)
    for row in range(rows):
        for column in range(columns):
            value = load(image, start + row * step + column * OCTET)
            best = choose(replaces_each(value, best), value, best)
    return best


@jit(inline=True)
def mean(image, start, rows, columns, step, share):
    """The sum of a window times `share`."""
    total = spread(image.dtype.type(0))
    for row in range(rows):
        for column in range(columns):
            total = plus(total, load(image, start + row * step + column * OCTET))
    return times(total, share)


@jit(inline=True)
def give_largest(gradient, image, sums, start, rows, columns, step, share):
    """Add the gradient of a window where its first maximum stands."""
    best, winner = load(image, start), spread(0)
    for row in range(rows):
        for column in range(columns):
            value = load(image, start + row * step + column * OCTET)
            better = replaces_each(value, best)
            best = choose(better, value, best)
            winner = choose(better, spread(row * columns + column), winner)
    for row in range(rows):
        for column in range(columns):
            place = start + row * step + column * OCTET
            store(sums, place, plus(load(sums, place), only(equals(winner, row * columns + column), gradient)))


@jit(inline=True)
def give_all(gradient, image, sums, start, rows, columns, step, share):
    """Add the gradient of a window, times `share`, everywhere in it."""
    part = times(gradient, share)
    for row in range(rows):
        for column in range(columns):
            place = start + row * step + column * OCTET
            store(sums, place, plus(load(sums, place), part))


_max_forward, _mean_forward = _forward_kernel(largest, "_max_forward"), _forward_kernel(mean, "_mean_forward")
_max_backward = _backward_kernel(give_largest, "_max_backward", True)
_mean_backward = _backward_kernel(give_all, "_mean_backward", False)


@parallel
def _global_forward(task, planes, x, out):
    for plane in range(task * planes, min(out.size, (task + 1) * planes)):
        row, total = x[plane], np.float64(0)
        for start in range(0, row.size, RUN):
            here, run = row[start : start + RUN], row.dtype.type(0)
            for i in range(here.size):
                run += here[i]
            total += np.float64(run)
        out[plane] = total / row.size


@parallel
def _global_backward(task, planes, dout, dx):
    for plane in range(task * planes, min(dout.size, (task + 1) * planes)):
        row = dx[plane]
        row[:] = dout[plane] / row.dtype.type(row.size)
