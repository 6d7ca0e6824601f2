"""Mini-batches."""

import numpy as np

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

    Raises
    ------
    ValueError
        x and y differ in length, the batch size is below 1, or drop_last leaves no batch.
    """

    def __init__(self, x, y, batch_size, shuffle=True, seed=0, drop_last=False):
        if len(x) != len(y):
            raise ValueError(f"{len(x)} images but {len(y)} labels")
        if batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {batch_size}")
        if drop_last and len(x) < batch_size:
            raise ValueError(f"drop_last leaves no batch: {len(x)} images, batch size {batch_size}")
        self.x, self.y, self.batch_size = x, y, batch_size
        self.shuffle, self.seed, self.drop_last = shuffle, seed, drop_last

    def __len__(self):
        full, rest = divmod(len(self.x), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, epoch):
        """Iterate over the batches (xb, yb) of epoch number `epoch`; both are copies, free to be written to."""
        n = len(self.x)
        order = permutation(n, self.seed, EPOCH, epoch) if self.shuffle else np.arange(n)
        for i in range(len(self)):
            chosen = order[i * self.batch_size : (i + 1) * self.batch_size]
            yield self.x[chosen], self.y[chosen]
