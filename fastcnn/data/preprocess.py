"""Preprocessing fitted on the training images, the same at test time and in fine-tuning.

Every class here has ``fit(x_train) -> instance``, ``apply(x, dtype) -> array`` and, so that the statistics can be saved
with a model's weights, ``state() -> dict of arrays`` and ``from_state(state) -> instance``.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Standardize:
    """Subtract the mean of each channel and divide by its standard deviation.

    Parameters
    ----------
    mean, std : (C,) float64
        Made by `fit`. The standard deviation is the biased one; a constant channel has 1.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, x):
        """Statistics of the images x, (N, C, H, W) uint8 or float.

        Raises ValueError if there are none, x has another rank, or a value is not finite.
        """
        if x.ndim != 4 or x.size == 0:
            raise ValueError(f"need images (N, C, H, W) to fit to, not an array of shape {x.shape}")
        shift = x[:1, :, :1, :1].astype(np.float64)  # makes a constant channel exactly so
        mean = shift + _channel_mean(x, lambda part: part - shift)
        variance = _channel_mean(x, lambda part: np.square(part - mean))
        if not np.isfinite(variance).all():
            raise ValueError("the images hold NaN or infinite values")
        std = np.sqrt(variance).ravel()
        return cls(mean.ravel(), np.where(std == 0, 1.0, std))

    def apply(self, x, dtype=np.float32):
        """(x - mean) / std as a new array of dtype float32 or float64; x is (N, C, H, W) or one image (C, H, W).

        Raises ValueError if x has another number of channels.
        """
        channels = len(self.mean)
        if x.ndim not in (3, 4) or x.shape[-3] != channels:
            raise ValueError(f"need images (N, {channels}, H, W), the channels that were fitted, not {x.shape}")
        out = np.subtract(x, self.mean[:, None, None], dtype=dtype)
        out /= self.std[:, None, None].astype(dtype)
        return out

    def scale_and_shift(self, dtype=np.float32):
        """Two arrays (C,) such that ``scale x + shift`` is what `apply` gives, but for rounding."""
        return (1 / self.std).astype(dtype), (-self.mean / self.std).astype(dtype)

    def state(self):
        """The statistics as ``{"mean": (C,), "std": (C,)}``, float64."""
        return {"mean": self.mean, "std": self.std}

    @classmethod
    def from_state(cls, state):
        """The inverse of `state`; ValueError if arrays are missing or cannot be such statistics."""
        if set(state) != {"mean", "std"}:
            raise ValueError(f"the state of Standardize is mean and std, not {', '.join(state) or 'empty'}")
        mean, std = (np.array(state[key], np.float64) for key in ("mean", "std"))
        if mean.ndim != 1 or mean.shape != std.shape or not (np.isfinite(mean) & np.isfinite(std) & (std > 0)).all():
            raise ValueError(f"mean {mean} and std {std} must be finite, (C,), and std positive")
        return cls(mean, std)


def _channel_mean(x, function):
    """Mean per channel of function(x), (1, C, 1, 1) float64, a few images at a time: x may fill half the memory."""
    step = max(1, 2**18 // x[0].size)
    total = 0.0
    for start in range(0, len(x), step):
        total = total + function(x[start : start + step]).sum(axis=(0, 2, 3), keepdims=True)
    return total / (x.size // x.shape[1])
