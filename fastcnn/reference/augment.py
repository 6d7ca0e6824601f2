"""Data augmentation of batches (N, C, H, W). What is random comes as arguments: the floors draw nothing but noise.

Kernels that change pixel values end with ``scale[c] value + shift[c]``, which is the standardisation of the last one.
Images are uint8 or of the dtype of `scale`; so are the results.
"""

import numpy as np

from fastcnn.common.philox import philox_4x32
from fastcnn.common.warp import STEPS, samples
from fastcnn.reference._arrays import deliver


def warp_images(x, maps, size, fill, scale, shift, out=None):
    """out[n, c, i, j] = scale[c] x[n, c, u, v] + shift[c] with (u, v) = maps[n] (i, j, 1), interpolated bilinearly.

    maps is (N, 2, 3), size the height and width of out. Beyond half a pixel outside of x lies fill[c]. Where a map
    shrinks the image, a pixel is the mean of samples spread over its area (`common.warp.samples`).
    """
    result = np.empty((*x.shape[:2], *size))
    for image, matrix, (rows, columns), y in zip(x.astype(float), maps, samples(maps), result, strict=True):
        total = np.zeros(y.shape)
        for s, t in np.ndindex(rows, columns):
            i = np.arange(size[0])[:, None] + (s + 0.5) / rows - 0.5
            j = np.arange(size[1]) + (t + 0.5) / columns - 0.5
            total += _bilinear(image, *(m[0] * i + m[1] * j + m[2] for m in matrix.astype(float)), fill)
        y[...] = total / (rows * columns)
    return deliver(result * scale[:, None, None] + shift[:, None, None], out, scale.dtype)


def _bilinear(image, u, v, fill):
    """image (C, H, W) at the points (u, v)."""
    u, v = np.rint(u * STEPS) / STEPS, np.rint(v * STEPS) / STEPS
    height, width = image.shape[1:]
    inside = (u >= -0.5) & (u <= height - 0.5) & (v >= -0.5) & (v <= width - 0.5)
    top, p = _cell(np.where(inside, u, 0), height)
    left, q = _cell(np.where(inside, v, 0), width)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    upper = image[:, top, left] * (1 - q) + image[:, top, right] * q
    lower = image[:, bottom, left] * (1 - q) + image[:, bottom, right] * q
    outside = np.where(np.isnan(u + v), np.nan, fill[:, None, None])
    return np.where(inside, upper * (1 - p) + lower * p, outside)


def _cell(u, length):
    """The pixel before a coordinate, and how far that lies behind it."""
    u = np.clip(u, 0, length - 1)
    return np.floor(u).astype(int), u - np.floor(u)


def color_images(x, mix, mean_mix, scale, shift, out=None):
    """out = scale min(max(mix x + mean_mix m, 0), 255) + shift, for the colour x of each pixel; m is an image's mean.

    mix and mean_mix are (N, C, C).
    """
    x = x.astype(float)
    colors = np.einsum("ncd,ndhw->nchw", mix, x)
    colors += np.einsum("ncd,nd->nc", mean_mix, x.mean((2, 3)))[:, :, None, None]
    return deliver(np.clip(colors, 0, 255) * scale[:, None, None] + shift[:, None, None], out, scale.dtype)


def noise_images(x, std, keys, scale, shift, out=None):
    """out[n] = scale (x[n] + std[n] z) + shift, z standard normal numbers: functions of keys[n] and the element.

    keys is (N,) uint64. Elements 4 k to 4 k + 3 of an image come from the four words of the block with counter k, two
    from the first two words, two from the others (Box and Muller, "A Note on the Generation of Random Normal Deviates",
    1958).
    """
    size, low = x[0].size if len(x) else 0, np.uint64(0xFFFFFFFF)
    counters, zero = np.arange(-(-size // 4), dtype=np.uint64), np.uint64(0)
    z = np.empty((len(x), 4 * len(counters)))
    for key, normal in zip(keys, z, strict=True):
        words = philox_4x32(counters, zero, zero, zero, key & low, key >> np.uint64(32))
        a, b, c, d = ((word + 0.5) / 2**32 for word in words)
        for k, (first, second) in enumerate(((a, b), (c, d))):
            radius, angle = np.sqrt(-2 * np.log(first)), 2 * np.pi * second
            normal[2 * k :: 4], normal[2 * k + 1 :: 4] = radius * np.cos(angle), radius * np.sin(angle)
    noisy = x + std[:, None, None, None] * z[:, :size].reshape(x.shape)
    return deliver(noisy * scale[:, None, None] + shift[:, None, None], out, scale.dtype)


def erase_boxes(x, boxes, fill, out=None):
    """x with fill[c] in one box of each image: boxes[n] = (top, bottom, left, right), within it, end excluded."""
    result = x.copy()
    for image, (top, bottom, left, right) in zip(result, boxes, strict=True):
        image[:, top:bottom, left:right] = fill[:, None, None]
    return deliver(result, out, x.dtype)


def mix_images(x, partner, weight, out=None):
    """out[n] = weight[n] x[n] + (1 - weight[n]) x[partner[n]], for arrays (N, ...)."""
    weight = weight.reshape(-1, *[1] * (x.ndim - 1))
    return deliver(weight * x + (1 - weight) * x[partner], out, x.dtype)
