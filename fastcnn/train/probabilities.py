"""Class probabilities from scores, and from a net whose dropout stays on: Monte-Carlo dropout."""

import copy
from typing import NamedTuple

import numpy as np

from fastcnn.common.philox import derive_key
from fastcnn.layers import checks, device
from fastcnn.nn import Dropout
from fastcnn.train.loop import placement


def softmax(scores):
    """Probabilities (N, classes) of class scores, wherever these lie, as float64 on the host."""
    scores = device.to_host(scores).astype(np.float64)
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


class MonteCarlo(NamedTuple):
    """What `monte_carlo` gives: mean and standard deviation of each class's probability, both (N, classes) float64."""

    mean: np.ndarray
    std: np.ndarray


def monte_carlo(net, x, samples=30, preprocess=None, seed=0, dtype=np.float32, batch_size=256):
    """Class probabilities averaged over the masks of dropout, which is kept on, and how far they lie apart.

    All else is in test mode, batch norms included. The masks are a function of the seed, not of the net's training; the
    net itself is left as it is, a copy is run. Source: Gal, Ghahramani, "Dropout as a Bayesian Approximation" (2016).

    Parameters
    ----------
    net : nn.Module with `nn.Dropout`, that gives class scores (N, classes)
    x : images (N, ...), or what else the net takes
    samples : int, how many masks each image is seen with
    preprocess : object with `apply(images, dtype)`, as fitted to the training images, or None: x is ready
    seed : int
    dtype : float32 or float64, of the images that the net sees
    batch_size : int

    Returns
    -------
    MonteCarlo : mean, std

    Raises
    ------
    ValueError
        If no layer of the net drops anything, or x is empty.
    """
    checks.integer("samples", samples, 1), checks.integer("batch_size", batch_size, 1)
    net = copy.deepcopy(net).eval()
    dropouts = [module for module in net.modules() if isinstance(module, Dropout) and module.keep < 1]
    if not dropouts:
        raise ValueError("net: expected layers of nn.Dropout that drop something, found none")
    if not len(x):
        raise ValueError("x: expected images, got none")
    for number, dropout in enumerate(dropouts):
        dropout.training, dropout.key, dropout.step = True, derive_key(seed, number), 0
    place, results = placement(net), []
    for first in range(0, len(x), batch_size):
        part = x[first : first + batch_size]
        part = part if preprocess is None else preprocess.apply(part, dtype)
        part = part if place is None else place(part)
        found = np.stack([softmax(net.forward(part)) for _ in range(samples)])
        results.append((found.mean(axis=0), found.std(axis=0)))
    return MonteCarlo(*map(np.concatenate, zip(*results, strict=True)))
