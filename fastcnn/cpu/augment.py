"""Data augmentation of batches (N, C, H, W), an image a task: `reference.augment` has the equations."""

import math

import numpy as np

from fastcnn.common.warp import STEPS, samples
from fastcnn.cpu.apart import get, put
from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.random import four_words
from fastcnn.cpu.vectormath import nearest


def warp_images(x, maps, size, fill, scale, shift, out=None):
    """Each image under an affine map, interpolated bilinearly; where it shrinks, a pixel is the mean of samples."""
    out = output(out, (*x.shape[:2], *size), scale.dtype)
    maps, colors = contiguous(maps.astype(np.float64)), np.stack([fill, scale, shift])
    _warp(len(x), contiguous(x), maps, samples(maps), colors, out)
    return out


def color_images(x, mix, mean_mix, scale, shift, out=None):
    """Linear maps of each image's colours and of their means, kept within 0 to 255."""
    out = output(out, x.shape, scale.dtype)
    _color(
        len(x),
        _planes(contiguous(x)),
        contiguous(np.stack([mix, mean_mix])),
        contiguous(np.stack([scale, shift])),
        _planes(out),
    )
    return out


def noise_images(x, std, keys, scale, shift, out=None):
    """Normal noise that is a function of each image's key."""
    out = output(out, x.shape, scale.dtype)
    _noise(
        len(x),
        _planes(contiguous(x)),
        contiguous(std),
        contiguous(keys),
        contiguous(np.stack([scale, shift])),
        _planes(out),
    )
    return out


def erase_boxes(x, boxes, fill, out=None):
    """One box of each image filled."""
    out = output(out, x.shape, x.dtype)
    if out is not x:
        out[...] = x
    _erase(len(x), contiguous(boxes), contiguous(fill), out)
    return out


def mix_images(x, partner, weight, out=None):
    """Weighted sums of pairs of images, or of their labels."""
    out = output(out, x.shape, x.dtype)
    shape = len(x), math.prod(x.shape[1:])
    _mix(len(x), contiguous(x).reshape(shape), contiguous(partner), contiguous(weight), out.reshape(shape))
    return out


def _planes(x):
    return x.reshape(*x.shape[:2], x.shape[2] * x.shape[3])


@parallel
def _warp(n, x, maps, counts, colors, out):
    image, y, m, rows, columns = x[n], out[n], maps[n], counts[n, 0], counts[n, 1]
    whole = (m[0, 2] == nearest(m[0, 2])) & (m[1, 2] == nearest(m[1, 2]))
    if whole & (m[0, 0] == 1.0) & (m[0, 1] == 0.0) & (m[1, 0] == 0.0) & (abs(m[1, 1]) == 1.0):
        _shift(image, m, colors, y)
    else:
        _resample(image, m, rows, columns, colors, y)


@jit
def _shift(image, m, colors, y):
    """A shift by whole pixels, mirrored or not: a crop."""
    height, width = image.shape[1:]
    forward = m[1, 1] > 0
    # Columns [first, last) of the output lie within the image.
    start = min(max(-m[1, 2] if forward else m[1, 2] - (width - 1), 0.0), float(y.shape[2]))
    stop = min(max(width - m[1, 2] if forward else m[1, 2] + 1, 0.0), float(y.shape[2]))
    first, last = int(start), int(max(start, stop))
    begin = int(m[1, 2]) if last > first else 0
    for c in range(y.shape[0]):
        scale, shift = colors[1, c], colors[2, c]
        outside = colors[0, c] * scale + shift
        for i in range(y.shape[1]):
            target = y[c, i]
            if not 0.0 <= i + m[0, 2] <= height - 1:
                target[:] = outside
                continue
            source = image[c, i + int(m[0, 2])]
            target[:first] = outside
            target[last:] = outside
            if forward:
                for j in range(first, last):
                    put(target, j, y.dtype.type(get(source, begin + j)) * scale + shift)
            else:
                for j in range(first, last):
                    put(target, j, y.dtype.type(get(source, begin - j)) * scale + shift)


@jit
def _resample(image, m, rows, columns, colors, y):
    height, width = image.shape[1:]
    real = y.dtype.type
    one, share = real(1), real(1.0 / (rows * columns))
    lowest, last_row, last_column = -0.5 * STEPS, (height - 0.5) * STEPS, (width - 0.5) * STEPS
    for i in range(y.shape[1]):
        y[:, i, :] = real(0)
        for s in range(rows):
            row = i + (s + 0.5) / rows - 0.5
            for j in range(y.shape[2]):
                for t in range(columns):
                    column = j + (t + 0.5) / columns - 0.5
                    u = nearest((m[0, 0] * row + m[0, 1] * column + m[0, 2]) * STEPS)
                    v = nearest((m[1, 0] * row + m[1, 1] * column + m[1, 2]) * STEPS)
                    if (u >= lowest) & (u <= last_row) & (v >= lowest) & (v <= last_column):
                        top, p = _cell(u, height)
                        left, q = _cell(v, width)
                        below = width if top + 1 < height else 0
                        beside = 1 if left + 1 < width else 0
                        p, q, place = real(p), real(q), top * width + left
                        for c in range(y.shape[0]):
                            upper = real(get(image, place)) * (one - q) + real(get(image, place + beside)) * q
                            lower = real(get(image, place + below)) * (one - q)
                            lower += real(get(image, place + below + beside)) * q
                            y[c, i, j] += upper * (one - p) + lower * p
                            place += height * width
                    else:
                        outside = real(u + v)
                        for c in range(y.shape[0]):
                            y[c, i, j] += colors[0, c] if outside == outside else outside
        for c in range(y.shape[0]):
            factor, shift = share * colors[1, c], colors[2, c]
            for j in range(y.shape[2]):
                y[c, i, j] = y[c, i, j] * factor + shift


@jit
def _cell(steps, length):
    """The pixel before a coordinate in steps, within the image, and how far that lies behind it."""
    whole = min(max(int(steps), 0), (length - 1) * STEPS)
    return whole // STEPS, (whole % STEPS) * (1.0 / STEPS)


@parallel
def _color(n, x, mixes, colors, out):
    image, y, mix, mean_mix = x[n], out[n], mixes[0, n], mixes[1, n]
    real, channels, pixels = out.dtype.type, x.shape[1], x.shape[2]
    zero, most = real(0), real(255)
    means = np.empty(channels)
    for d in range(channels):
        total = 0.0
        for i in range(pixels):
            total += image[d, i]
        means[d] = total / pixels
    for c in range(channels):
        offset = 0.0
        for d in range(channels):
            offset += mean_mix[c, d] * means[d]
        target = y[c]
        target[:] = real(offset)
        for d in range(channels):
            factor, source = mix[c, d], image[d]
            for i in range(pixels):
                put(target, i, target[i] + factor * real(get(source, i)))
        for i in range(pixels):
            color = target[i]
            color = zero if color < zero else (most if color > most else color)
            target[i] = color * colors[0, c] + colors[1, c]


@parallel
def _noise(n, x, std, keys, colors, out):
    image, y, real, pixels = x[n], out[n], out.dtype.type, x.shape[2]
    low, size = np.uint64(0xFFFFFFFF), x.shape[1] * x.shape[2]
    normal = np.empty(4)
    for block in range(-(-size // 4)):
        words = four_words(block, keys[n] & low, keys[n] >> np.uint64(32))
        for k in range(2):
            first, second = (words[2 * k] + 0.5) / 2.0**32, (words[2 * k + 1] + 0.5) / 2.0**32
            radius, angle = math.sqrt(-2.0 * math.log(first)), 2.0 * math.pi * second
            normal[2 * k], normal[2 * k + 1] = radius * math.cos(angle), radius * math.sin(angle)
        for element in range(4 * block, min(4 * block + 4, size)):
            c, i = element // pixels, element % pixels
            y[c, i] = (real(image[c, i]) + std[n] * real(normal[element % 4])) * colors[0, c] + colors[1, c]


@parallel
def _erase(n, boxes, fill, out):
    for c in range(out.shape[1]):
        for i in range(boxes[n, 0], boxes[n, 1]):
            for j in range(boxes[n, 2], boxes[n, 3]):
                out[n, c, i, j] = fill[c]


@parallel
def _mix(n, x, partner, weight, out):
    one, here, there, y = out.dtype.type(1), x[n], x[partner[n]], out[n]
    share = weight[n]
    for i in range(y.size):
        put(y, i, share * get(here, i) + (one - share) * get(there, i))
