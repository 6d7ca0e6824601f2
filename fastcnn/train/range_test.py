"""The learning-rate range test: how the loss goes as the rate rises, and which rates that speaks for.

Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3.
"""

import copy
import itertools
import math
from dataclasses import asdict, dataclass

import numpy as np

from fastcnn.layers import checks, softmax_loss
from fastcnn.nn import FlatParameters
from fastcnn.train.loop import forward_loss, placed, placement, prepared

_SMOOTHING = 0.8  # a loss so many steps away counts this to their power
_CAP = 2.0  # no loss counts for more than so many times the first
_DIVERGED = 1.5  # training has diverged when the smoothed loss is so many times the first
_BEGUN, _RISEN = 0.1, 0.25  # shares of its fall by which a loss has begun to fall, or has risen again
_SAFETY = 3.0  # how far the upper rate lies below that at which the loss is the lowest before it rises


@dataclass(frozen=True)
class RangeTest:
    """What a range test found.

    Attributes
    ----------
    rates, losses, smoothed : lists of floats, a learning rate, loss and smoothed loss for each step
    diverged : bool, whether the loss rose far above the first, or was no number, at the last step
    low : float, the rate at which the loss has begun to fall
    high : float, a third of the rate from which on it rises again
    """

    rates: list
    losses: list
    smoothed: list
    diverged: bool
    low: float
    high: float

    as_dict = asdict


def range_test(
    net, optimizer, batches, preprocess, low=1e-6, high=10.0, steps=120, dtype=np.float32, loss=softmax_loss
):
    """Train a copy of a net while the learning rate rises from step to step by one factor.

    Net, optimizer and batches are left as they are. The test ends early where training diverges.

    Parameters
    ----------
    net : nn.Module that gives class scores (N, classes)
    optimizer : optim.Optimizer over `nn.FlatParameters` of the net; its own rate plays no part
    batches : data.Batches of images and labels, from its first epoch on
    preprocess : object with `apply(images, dtype)`, fitted on the training images
    low, high : float, the first and the last rate
    steps : int of at least 10
    dtype : float32 or float64, of the images that the net sees
    loss : function of scores and labels that gives the loss and its gradient

    Returns
    -------
    RangeTest

    Raises
    ------
    ValueError
        If the loss falls at no rate, or the range is none.
    """
    checks.number("low", low, above=0), checks.number("high", high, above=low), checks.integer("steps", steps, 10)
    twin = copy.deepcopy(net).train()
    optimizer, place = optimizer.over(FlatParameters(twin)), placement(net)
    rates, losses = [], []
    rising = np.geomspace(low, high, steps).tolist()
    endless = itertools.chain.from_iterable(map(batches.epoch, itertools.count()))
    for optimizer.lr, (x, y) in zip(rising, endless, strict=False):
        _, value, dscores = forward_loss(twin, *placed(prepared(x, batches, preprocess, dtype), y, place), loss)
        diverged = not math.isfinite(float(value))
        if not diverged:
            rates.append(optimizer.lr)
            losses.append(float(value))
            diverged = smooth(losses)[-1] > _DIVERGED * losses[0]
        if diverged:
            break
        twin.backward(dscores, need_dx=False)
        optimizer.step()
    smoothed = smooth(losses)
    return RangeTest(rates, losses, smoothed, diverged, *_bounds(rates, smoothed))


def smooth(losses):
    """Each loss averaged with those before and after it, which count the less the further away they are.

    Losses far above the first count as if they were less far: they have no bounds once training diverges.
    """
    steps, capped = np.arange(len(losses)), np.minimum(losses, [_CAP * loss for loss in losses[:1]])
    weights = _SMOOTHING ** abs(steps[:, None] - steps)
    return (weights @ capped / weights.sum(axis=1)).tolist()


def _bounds(rates, smoothed):
    """The rate at which the loss has begun to fall, and one safely below that past which it rises."""
    fall = max((smoothed[0] - loss for loss in smoothed), default=0)
    if fall <= 0:
        raise ValueError("the loss falls at none of the learning rates: begin with a lower one, or look at the data")
    begun = next(i for i, loss in enumerate(smoothed) if loss <= smoothed[0] - _BEGUN * fall)
    best = begun
    for i in range(begun, len(smoothed)):
        if smoothed[i] > smoothed[best] + _RISEN * fall:
            break
        best = min(best, i, key=smoothed.__getitem__)
    high = rates[best] / _SAFETY
    return min(rates[begun], high), high
