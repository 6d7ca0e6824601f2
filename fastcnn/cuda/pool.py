"""Max, average and global average pooling.

A thread for each window looks at its pixels, a thread for each pixel collects from the windows that cover it: no two
threads write to one place. Which pixel a window took is found once, and kept in a byte for each window where windows
are small. Windows of the sizes that nets use are walked by loops of constant length, whose loads wait for each other
nowhere.
"""

import math

import numpy as np
from numba import cuda

from fastcnn.common import activation as formula
from fastcnn.common.geometry import output_shape
from fastcnn.cuda.arrays import empty, flat, output
from fastcnn.cuda.indices import divide
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.reduce import team_of, team_sum, teams

replaces = device(formula.replaces)


def max_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out (N, C, H', W') = maximum of each window of x (N, C, H, W); padding counts as -inf."""
    out = output(out, (*x.shape[:2], *output_shape(x.shape[2:], size, stride, pad)), x.dtype)
    _max_forward.for_each(out.size, flat(x), _geometry(x.shape, out.shape, size, stride, pad), flat(out))
    return out


def max_pool_backward(dout, x, size, stride, pad=(0, 0), out=None):
    """dx (N, C, H, W): each window's gradient goes to its first maximum, found again in x."""
    out = output(out, x.shape, x.dtype)
    geometry = _geometry(x.shape, dout.shape, size, stride, pad)
    winners = empty(dout.size, np.uint8 if math.prod(size) <= 256 else np.int32)
    _max_winners.for_each(dout.size, flat(x), geometry, winners)
    _max_backward.for_each(out.size, flat(dout), winners, geometry, flat(out))
    return out


def avg_pool_forward(x, size, stride, pad=(0, 0), out=None):
    """out (N, C, H', W') = mean of each window of x (N, C, H, W); padding counts as zeros."""
    out = output(out, (*x.shape[:2], *output_shape(x.shape[2:], size, stride, pad)), x.dtype)
    share = x.dtype.type(1 / math.prod(size))
    _mean_forward.for_each(out.size, flat(x), _geometry(x.shape, out.shape, size, stride, pad), share, flat(out))
    return out


def avg_pool_backward(dout, x_shape, size, stride, pad=(0, 0), out=None):
    """dx (N, C, H, W): each window's gradient spread evenly over the window."""
    out = output(out, x_shape, dout.dtype)
    share = dout.dtype.type(1 / math.prod(size))
    _mean_backward.for_each(out.size, flat(dout), _geometry(x_shape, dout.shape, size, stride, pad), share, flat(out))
    return out


def global_avg_pool_forward(x, out=None):
    """out (N, C) = mean of each plane of x (N, C, H, W)."""
    out = output(out, x.shape[:2], x.dtype)
    pixels = math.prod(x.shape[2:])
    team = team_of(pixels)
    _global_forward[teams(out.size, team)](flat(x), np.int32(pixels), np.int32(team), flat(out))
    return out


def global_avg_pool_backward(dout, x_shape, out=None):
    """dx (N, C, H, W): dout (N, C) divided by H W, in every place."""
    out = output(out, x_shape, dout.dtype)
    pixels = math.prod(x_shape[2:])
    share = dout.dtype.type(1 / max(pixels, 1))
    _global_backward.for_each(out.size, flat(dout), np.int32(pixels), share, flat(out))
    return out


def _geometry(image, windows, size, stride, pad):
    """Pairs of (H, W), (H', W'), size, stride and pad, as kernels take them: ten numbers."""
    return tuple(map(np.int32, (*image[2:], *windows[2:], *size, *stride, *pad)))


@device
def corner(i, geometry):
    """The plane of window i, and where the window begins in it: row and column."""
    line, column = divide(i, geometry[3])
    plane, row = divide(line, geometry[2])
    return plane, np.int32(row * geometry[6] - geometry[8]), np.int32(column * geometry[7] - geometry[9])


@device
def reach(place, size, stride, pad, windows):
    """The windows that cover a row or column: the first, and the one after the last."""
    first = divide(max(place + pad - size + stride, 0), stride)[0]
    return first, np.int32(min(divide(place + pad, stride)[0] + 1, windows))


@device
def covering(i, geometry):
    """Plane, row and column of pixel i, and the rows and columns of windows that cover it."""
    line, w = divide(i, geometry[1])
    plane, h = divide(line, geometry[0])
    top, bottom = reach(h, geometry[4], geometry[6], geometry[8], geometry[2])
    left, right = reach(w, geometry[5], geometry[7], geometry[9], geometry[3])
    return plane, h, w, top, bottom, left, right


@device
def first_maximum(x, i, geometry, rows, columns):
    """The maximum of window i and the number of the pixel that it stands in, row-major; the first NaN, if any."""
    height, width = geometry[0], geometry[1]
    plane, top, left = corner(i, geometry)
    best, winner = x.dtype.type(-math.inf), np.int32(-1)
    for row in range(rows):
        for column in range(columns):
            h, w = np.int32(top + row), np.int32(left + column)
            if (h >= 0) & (h < height) & (w >= 0) & (w < width):
                value = x[np.int32((plane * height + h) * width + w)]
                if (winner < 0) | replaces(value, best):
                    best, winner = value, np.int32(row * columns + column)
    return best, winner


@device
def winner_of(x, i, geometry):
    """`first_maximum`, for the sizes that nets use with loops of constant length."""
    rows, columns = geometry[4], geometry[5]
    if (rows == 2) & (columns == 2):
        return first_maximum(x, i, geometry, 2, 2)
    if (rows == 3) & (columns == 3):
        return first_maximum(x, i, geometry, 3, 3)
    return first_maximum(x, i, geometry, rows, columns)


@device
def total(x, i, geometry, rows, columns):
    """The sum of window i, row by row."""
    height, width = geometry[0], geometry[1]
    plane, top, left = corner(i, geometry)
    total = x.dtype.type(0)
    for row in range(rows):
        row_total = x.dtype.type(0)
        for column in range(columns):
            h, w = np.int32(top + row), np.int32(left + column)
            if (h >= 0) & (h < height) & (w >= 0) & (w < width):
                row_total += x[np.int32((plane * height + h) * width + w)]
        total += row_total
    return total


@kernel("T[::1], UniTuple(int32, 10), T[::1]")
def _max_forward(x, geometry, out):
    i = np.int32(cuda.grid(1))
    if i < out.size:
        out[i] = winner_of(x, i, geometry)[0]


@kernel(("T[::1], UniTuple(int32, 10), uint8[::1]", "T[::1], UniTuple(int32, 10), int32[::1]"))
def _max_winners(x, geometry, winners):
    """The number of the pixel, in its window, that each window takes."""
    i = np.int32(cuda.grid(1))
    if i < winners.size:
        winners[i] = winner_of(x, i, geometry)[1]


@kernel(("T[::1], uint8[::1], UniTuple(int32, 10), T[::1]", "T[::1], int32[::1], UniTuple(int32, 10), T[::1]"))
def _max_backward(dout, winners, geometry, dx):
    _, _, rows, columns, _, size_w, stride_h, stride_w, pad_h, pad_w = geometry
    i = np.int32(cuda.grid(1))
    if i < dx.size:
        plane, h, w, top, bottom, left, right = covering(i, geometry)
        total = dx.dtype.type(0)
        for row in range(top, bottom):
            for column in range(left, right):
                k = np.int32((plane * rows + row) * columns + column)
                pixel = (h + pad_h - row * stride_h) * size_w + w + pad_w - column * stride_w
                total += dout[k] if winners[k] == np.int32(pixel) else dx.dtype.type(0)
        dx[i] = total


@kernel("T[::1], UniTuple(int32, 10), T, T[::1]")
def _mean_forward(x, geometry, share, out):
    i = np.int32(cuda.grid(1))
    if i < out.size:
        rows, columns = geometry[4], geometry[5]
        if (rows == 2) & (columns == 2):
            out[i] = total(x, i, geometry, 2, 2) * share
        elif (rows == 3) & (columns == 3):
            out[i] = total(x, i, geometry, 3, 3) * share
        else:
            out[i] = total(x, i, geometry, rows, columns) * share


@kernel("T[::1], UniTuple(int32, 10), T, T[::1]")
def _mean_backward(dout, geometry, share, dx):
    rows, columns = geometry[2], geometry[3]
    i = np.int32(cuda.grid(1))
    if i < dx.size:
        plane, _, _, top, bottom, left, right = covering(i, geometry)
        total = dx.dtype.type(0)
        for row in range(top, bottom):
            for column in range(left, right):
                total += dout[np.int32((plane * rows + row) * columns + column)]
        dx[i] = total * share


@kernel("T[::1], int32, int32, T[::1]")
def _global_forward(x, pixels, team, out):
    """A team for each plane."""
    plane, member = divide(np.int32(cuda.grid(1)), team)
    total = np.float64(0)
    if plane < out.size:
        for i in range(member, pixels, team):
            total += x[np.int32(plane * pixels + i)]
    total = team_sum(total, team)
    if member == 0 and plane < out.size:
        out[plane] = total / np.float64(pixels)


@kernel("T[::1], int32, T, T[::1]")
def _global_backward(dout, pixels, share, dx):
    i = np.int32(cuda.grid(1))
    if i < dx.size:
        dx[i] = dout[divide(i, pixels)[0]] * share
