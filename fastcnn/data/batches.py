"""Mini-batches."""

import numpy as np

from fastcnn.data.prefetch import ahead
from fastcnn.data.shuffle import EPOCH, permutation


class Batches:
    """Arrays cut into mini-batches, in an order that is a function of seed and epoch alone.

    Parameters
    ----------
    x, y : arrays of the same length N
        Images and their labels (or soft labels).
    batch_size : int
    shuffle : bool
        A new order in every epoch; False keeps that of x.
    seed : int
    drop_last : bool
        Leave out the last batch if it is smaller than the others.
    augment : `Compose` or None
        What is done to each batch; its random numbers depend on the seed, the epoch and the images' places in x.
    prefetch : int
        So many batches are made ahead, on a background thread; 0 makes each when it is asked for. The batches are the
        same, whatever it is.

    Raises
    ------
    ValueError
        x and y differ in length, the batch size is below 1, prefetch is negative, or drop_last leaves no batch.
    """

    def __init__(self, x, y, batch_size, shuffle=True, seed=0, drop_last=False, augment=None, prefetch=0):
        if len(x) != len(y):
            raise ValueError(f"{len(x)} images but {len(y)} labels")
        if batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {batch_size}")
        if prefetch < 0:
            raise ValueError(f"prefetch: expected a number of batches, 0 or more, got {prefetch}")
        if drop_last and len(x) < batch_size:
            raise ValueError(f"drop_last leaves no batch: {len(x)} images, batch size {batch_size}")
        self.x, self.y, self.batch_size = x, y, batch_size
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last
        self.augment, self.prefetch = augment, prefetch

    def __len__(self):
        full, rest = divmod(len(self.x), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, epoch, first=0):
        """Iterate over the batches (xb, yb) of epoch number `epoch`; both are copies, free to be written to.

        `first` is the number of the batch to begin with: those from there on are the same as without it.
        """
        n = len(self.x)
        order = permutation(n, self.seed, EPOCH, epoch) if self.shuffle else np.arange(n)

        def batch(i):
            chosen = order[i * self.batch_size : (i + 1) * self.batch_size]
            x, y = self.x[chosen], self.y[chosen]
            return self.augment(x, y, self.seed, epoch, chosen) if self.augment else (x, y)

        if self.prefetch:
            return ahead(batch, first, len(self), self.prefetch)
        return map(batch, range(first, len(self)))
