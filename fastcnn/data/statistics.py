"""Statistics of images in float64, a few images at a time: the images may fill half the memory."""

import numpy as np

_AT_ONCE, _MANY = 2**18, 2**22  # elements


def channel_mean(x):
    """Mean of each channel of images x (N, C, H, W), (C, 1, 1); of a constant channel exactly its value.

    Raises ValueError if there are no images, x has another rank, or a value is not finite.
    """
    _check(x)
    first = x[0, :, :1, :1].astype(np.float64)
    return finite(first + _mean(x, lambda part: part - first, (0, 2, 3)))


def channel_std(x, mean):
    """Standard deviation, the biased one, of each channel of images with that mean, (C, 1, 1)."""
    return np.sqrt(finite(_mean(x, lambda part: np.square(part - mean), (0, 2, 3))))


def mean_image(x):
    """Mean of each pixel of each channel, (C, H, W); raises as `channel_mean`."""
    _check(x)
    first = x[0].astype(np.float64)
    return finite(first + _mean(x, lambda part: part - first, (0,)))


def extremes(x):
    """The lowest and the highest of all values; raises as `channel_mean`."""
    _check(x)
    return float(finite(x.min())), float(finite(x.max()))


def covariance(x, mean):
    """Covariance of all pairs of an image's elements, (D, D) with D = C H W, of images with that mean image."""
    total = np.zeros((mean.size, mean.size))
    for part in _parts(x, _MANY):
        centred = (part - mean).reshape(len(part), -1)
        total += centred.T @ centred
    return finite(total / len(x))


def finite(statistics):
    """The statistics themselves; ValueError if the images they were made of were not finite."""
    if not np.isfinite(statistics).all():
        raise ValueError("the images hold NaN or infinite values")
    return statistics


def _check(x):
    if x.ndim != 4 or x.size == 0:
        raise ValueError(f"need images (N, C, H, W) to fit to, not an array of shape {x.shape}")


def _mean(x, function, axes):
    """Mean of function(x) over the images and, if `axes` says so, over the places of each channel."""
    total = sum(function(part).sum(axis=axes, keepdims=True)[0] for part in _parts(x, _AT_ONCE))
    return total * (total.size / x.size)


def _parts(x, elements):
    step = max(1, elements // x[0].size)
    return (x[first : first + step] for first in range(0, len(x), step))
