"""Preprocessing fitted on the training images, the same at test time and in fine-tuning.

Every class of `PREPROCESSING` has ``fit(x_train) -> instance``, ``apply(x, dtype) -> array`` and, so that the
statistics can be saved with a model's weights, ``state() -> dict of float64 arrays`` and ``from_state(state) ->
instance``. Those that are an affine map per channel also have ``scale_and_shift(dtype)``, which augmentation folds into
its own last pass.
"""

import functools
from dataclasses import dataclass, fields

import numpy as np

from fastcnn.data import statistics
from fastcnn.layers import checks
from fastcnn.layers.backend import host_floor


class Preprocessing:
    """What all kinds share. Subclasses are dataclasses whose fields are the statistics.

    ``fit(x)`` takes images (N, C, H, W), uint8 or float, in blocks; it raises ValueError if there are none, x has
    another rank, or a value is not finite.
    """

    has_pixels = True  # of the result: its places are those of the image, so that boxes can be cut out of it

    def __post_init__(self):
        """Raise ValueError unless the statistics are such."""

    def apply(self, x, dtype=np.float32):
        """The preprocessed images as a new array of dtype float32 or float64.

        x is (N, C, H, W), or one image (C, H, W); ValueError if the shape is not that of the images that were fitted.
        """
        raise NotImplementedError

    def state(self):
        """The statistics by name, float64."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_state(cls, state):
        """The inverse of `state`; ValueError if arrays are missing or unknown, or cannot be such statistics."""
        names = [field.name for field in fields(cls)]
        if set(state) != set(names):
            raise ValueError(
                f"the state of {cls.__name__} is {' and '.join(names) or 'empty'}, not {', '.join(state) or 'empty'}"
            )
        return cls(**{name: np.array(state[name], np.float64, order="C") for name in names})


@dataclass(frozen=True, eq=False)
class Standardize(Preprocessing):
    """Subtract the mean of each channel and divide by its standard deviation.

    Parameters
    ----------
    mean, std : (C,) float64
        Made by `fit`. The standard deviation is the biased one; a constant channel has 1.
    """

    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self):
        mean, std = self.mean, self.std
        if mean.ndim != 1 or mean.shape != std.shape or not (np.isfinite(mean) & np.isfinite(std) & (std > 0)).all():
            raise ValueError(f"mean {mean} and std {std} must be finite, (C,), and std positive")

    @classmethod
    def fit(cls, x):
        """Statistics of the images x."""
        mean = statistics.channel_mean(x)
        std = statistics.channel_std(x, mean)
        return cls(mean.ravel(), np.where(std == 0, 1.0, std).ravel())

    def apply(self, x, dtype=np.float32):
        """(x - mean) / std."""
        _check(x, (len(self.mean), None, None))
        out = np.subtract(x, self.mean[:, None, None], dtype=dtype)
        out /= self.std[:, None, None].astype(dtype)
        return out

    def scale_and_shift(self, dtype=np.float32):
        """Two arrays (C,) such that ``scale x + shift`` is what `apply` gives, but for rounding."""
        return (1 / self.std).astype(dtype), (-self.mean / self.std).astype(dtype)


class SubtractMean(Standardize):
    """Subtract the mean of each channel: `Standardize` with standard deviations of 1."""

    @classmethod
    def fit(cls, x):
        """Means of the images x."""
        mean = statistics.channel_mean(x).ravel()
        return cls(mean, np.ones_like(mean))


class ScaleToRange(Standardize):
    """Bring values into a range, those of all channels alike; the fields say what becomes 0, and how far off 1 is."""

    @classmethod
    def fit(cls, x, low=-1.0, high=1.0):
        """The lowest value of the images x becomes `low`, the highest `high` (where they are one, it becomes `low`)."""
        checks.number("high", high, above=checks.number("low", low))
        lowest, highest = statistics.extremes(x)
        unit = (highest - lowest or 1.0) / (high - low)
        return cls(np.full(x.shape[1], lowest - low * unit), np.full(x.shape[1], unit))


@dataclass(frozen=True, eq=False)
class SubtractMeanImage(Preprocessing):
    """Subtract the mean of each pixel: Krizhevsky, Sutskever, Hinton, "ImageNet Classification ..." (2012), section 2.

    Parameters
    ----------
    mean : (C, H, W) float64
    """

    mean: np.ndarray

    def __post_init__(self):
        _check_mean_image(self.mean)

    @classmethod
    def fit(cls, x):
        """The mean of the images x."""
        return cls(statistics.mean_image(x))

    def apply(self, x, dtype=np.float32):
        """x - mean."""
        _check(x, self.mean.shape)
        return np.subtract(x, self.mean, dtype=dtype)


@dataclass(frozen=True, eq=False)
class StandardizeEach(Preprocessing):
    """Standardise each channel of each image by its own mean and standard deviation; nothing is fitted.

    The standard deviation is the biased one; where a channel of an image is constant, it becomes 0.
    """

    @classmethod
    def fit(cls, x):
        """Nothing: statistics are each image's own."""
        return cls()

    def apply(self, x, dtype=np.float32):
        """(x - mean) / std of the image and channel."""
        _check(x, (None, None, None))
        out = np.subtract(x, x[..., :1, :1], dtype=dtype)  # makes a constant channel exactly 0
        out -= out.mean(axis=(-2, -1), keepdims=True, dtype=np.float64).astype(dtype)
        std = np.sqrt(np.square(out).mean(axis=(-2, -1), keepdims=True, dtype=np.float64)).astype(dtype)
        out /= np.where(std == 0, 1, std)
        return out


@dataclass(frozen=True, eq=False)
class PCA(Preprocessing):
    """Turn images, as vectors of their D = C H W values, so that these are uncorrelated: principal components.

    `apply` gives them in the order of their variance, in an array of the images' shape, or, where only some are kept,
    (N, K, 1, 1). They have no places: nets of affine layers make use of them, convolutions cannot.

    Parameters
    ----------
    mean : (C, H, W) float64
    matrix : (D, K) float64
        Made by `fit`; its size in memory and in files is that of D^2 numbers.
    """

    mean: np.ndarray
    matrix: np.ndarray
    has_pixels = False
    LARGEST = 2**14  # D: the covariance takes 2 GiB, its eigenvectors many minutes

    def __post_init__(self):
        _check_mean_image(self.mean)
        rows, columns = self.matrix.shape if self.matrix.ndim == 2 else (0, 0)
        if rows != self.mean.size or not 0 < columns <= rows or not np.isfinite(self.matrix).all():
            raise ValueError(f"the matrix must be finite, ({self.mean.size}, K), not {self.matrix.shape}")

    @classmethod
    def fit(cls, x, components=None):
        """The K = `components` directions of largest variance of the images x; None: all.

        ValueError also if D is too large for a matrix of that size (`LARGEST`).
        """
        mean, axes, _ = _principal_axes(x, components)
        return cls(mean, axes)

    def apply(self, x, dtype=np.float32):
        """The rows of (x - mean) matrix."""
        _check(x, self.mean.shape)
        centred = np.subtract(x, self.mean, dtype=dtype).reshape(-1, self.mean.size)
        out = host_floor("linear").affine_forward(centred, self._matrix_as(np.dtype(dtype)), None)
        whole = self.matrix.shape[0] == self.matrix.shape[1]
        return out.reshape(*x.shape[:-3], *(self.mean.shape if whole else (-1, 1, 1)))

    def _matrix_as(self, dtype):
        return self.matrix if dtype == np.float64 else self._single

    @functools.cached_property
    def _single(self):
        return self.matrix.astype(np.float32)


class Whiten(PCA):
    """Principal components, each divided by its standard deviation: their covariance is the identity."""

    @classmethod
    def fit(cls, x, components=None, eps=1e-2):
        """As `PCA.fit`; `eps` times the mean variance is added to each variance, so that what is all but constant in
        the images x is not blown up.
        """
        mean, axes, variances = _principal_axes(x, components)
        return cls(mean, axes * _inverse_root(variances, eps)[: axes.shape[1]])


class ZCA(PCA):
    """`Whiten`, turned back: uncorrelated values of variance 1 that are as near to the image as such can be.

    Source: Bell, Sejnowski, "The 'Independent Components' of Natural Scenes are Edge Filters" (1997).
    """

    has_pixels = True

    @classmethod
    def fit(cls, x, eps=1e-2):
        """As `Whiten.fit`, with all components."""
        mean, axes, variances = _principal_axes(x)
        return cls(mean, axes * _inverse_root(variances, eps) @ axes.T)


# What nets for download were trained with on ImageNet, by torchvision's documentation of its weights: mean and standard
# deviation of red, green and blue in a range of 0 to 1; images here have one of 0 to 255.
IMAGENET = Standardize(255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225]))

PREPROCESSING = {
    kind.__name__: kind
    for kind in (Standardize, SubtractMean, SubtractMeanImage, ScaleToRange, StandardizeEach, PCA, Whiten, ZCA)
}


def _principal_axes(x, components=None):
    """The mean image, the directions of largest variance (D, K), and all D variances, the largest first."""
    mean = statistics.mean_image(x)
    if mean.size > PCA.LARGEST:
        raise ValueError(f"x: expected images of at most {PCA.LARGEST} values, got {mean.size} in {mean.shape}")
    count = mean.size if components is None else checks.integer("components", components, 1, mean.size)
    variances, axes = np.linalg.eigh(statistics.covariance(x, mean))
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(mean.size)])  # both directions are eigenvectors
    return mean, np.ascontiguousarray(axes[:, :count]), variances


def _inverse_root(variances, eps):
    return 1 / np.sqrt(variances + (checks.number("eps", eps, above=0) * variances.mean() or 1.0))


def _check(x, shape):
    """x is a batch of images, or one, of this shape, in which None stands for any size."""
    names = [name if size is None else str(size) for name, size in zip("CHW", shape, strict=True)]
    fits = x.ndim in (3, 4) and all(size in (None, given) for size, given in zip(shape, x.shape[-3:], strict=True))
    if not fits:
        raise ValueError(f"need images (N, {', '.join(names)}), as those that were fitted, not {x.shape}")


def _check_mean_image(mean):
    if mean.ndim != 3 or not np.isfinite(mean).all():
        raise ValueError(f"the mean image must be finite, (C, H, W), not {mean.shape}")
