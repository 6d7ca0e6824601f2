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
    """A row of samples at a time: first where they lie, then, for each colour, what lies there."""
    height, width = image.shape[1:]
    real, last_row, last_column = y.dtype.type, height - 1.0, width - 1.0
    one, share, n = real(1), real(1.0 / (rows * columns)), y.shape[2]
    place, below, beside, inside = np.empty((4, n), np.int64)
    p, q, nowhere = np.empty((3, n), y.dtype)  # nowhere: NaN at coordinates that are none, else 0
    for i in range(y.shape[1]):
        y[:, i, :] = real(0)
        for s, t in np.ndindex(rows, columns):
            row, first = i + (s + 0.5) / rows - 0.5, (t + 0.5) / columns - 0.5
            for j in range(n):
                u = nearest((m[0, 0] * row + m[0, 1] * (j + first) + m[0, 2]) * STEPS) * (1.0 / STEPS)
                v = nearest((m[1, 0] * row + m[1, 1] * (j + first) + m[1, 2]) * STEPS) * (1.0 / STEPS)
                inside[j] = (u >= -0.5) & (u <= last_row + 0.5) & (v >= -0.5) & (v <= last_column + 0.5)
                nowhere[j] = real(0) if u + v == u + v else real(u + v)
                u, v = _clip(u, last_row), _clip(v, last_column)
                top, left = np.floor(u), np.floor(v)
                p[j], q[j] = real(u - top), real(v - left)
                place[j] = int(top * width + left)
                below[j] = width if top < last_row else 0
                beside[j] = 1 if left < last_column else 0
            for c in range(y.shape[0]):
                target, plane, outside = y[c, i], image[c], colors[0, c]
                for j in range(n):
                    above, under = place[j], place[j] + below[j]
                    upper = real(get(plane, above)) * (one - q[j]) + real(get(plane, above + beside[j])) * q[j]
                    lower = real(get(plane, under)) * (one - q[j]) + real(get(plane, under + beside[j])) * q[j]
                    value = upper * (one - p[j]) + lower * p[j]
                    target[j] += value if inside[j] else outside + nowhere[j]
        for c in range(y.shape[0]):
            factor, shift, target = share * colors[1, c], colors[2, c], y[c, i]
            for j in range(n):
                target[j] = target[j] * factor + shift


@jit
def _clip(u, last):
    """A coordinate within the image; 0 for a NaN."""
    u = u if u >= 0.0 else 0.0
    return u if u <= last else last


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
