"""Random numbers for augmentation: functions of seed, epoch, image and use, of nothing else."""

import operator

import numpy as np

from fastcnn.common.philox import derive_key, philox_4x32, split_key
from fastcnn.data.shuffle import AUGMENT


class Draws:
    """The random numbers of some images in one epoch.

    Parameters
    ----------
    seed, epoch : int
    images : (N,) integers, the images' places in the data set
    """

    def __init__(self, seed, epoch, images):
        self._key = split_key(derive_key(operator.index(seed), AUGMENT, operator.index(epoch)))
        self._images = np.asarray(images).astype(np.uint64)

    def __len__(self):
        return len(self._images)

    def words(self, use, count):
        """(N, count) uint64 below 2**32; `use`, an integer, tells apart who asks."""
        low, high = self._images & np.uint64(0xFFFFFFFF), self._images >> np.uint64(32)
        blocks = [
            philox_4x32(low, high, np.uint64(use), np.uint64(block), *self._key) for block in range(-(-count // 4))
        ]
        return np.stack([word for block in blocks for word in block][:count], axis=1)

    def uniform(self, use, count):
        """(N, count) float64, uniform in the open interval (0, 1)."""
        return (self.words(use, count) + 0.5) / 2**32

    def keys(self, use):
        """(N,) uint64: a key for a stream of numbers of each image."""
        low, high = self.words(use, 2).T
        return low | high << np.uint64(32)
