"""Random orders as functions of a seed alone: not of NumPy's version, of threads, or of what was drawn before."""

import operator

import numpy as np

from fastcnn.common.philox import derive_key

# First step of a key's path, so that the same seed gives unrelated numbers to different uses.
SPLIT, EPOCH, AUGMENT, BOOTSTRAP = 1, 2, 3, 4


def permutation(n, seed, *use):
    """A random order of 0 .. n-1, (n,) intp, named by an integer seed and a path of integers.

    The raw words of a bit generator are sorted: NumPy promises never to change those, which it does not promise of
    ``Generator.permutation``.
    """
    words = np.random.Philox(key=derive_key(operator.index(seed), *use)).random_raw(n)
    return np.argsort(words, kind="stable")


def draw(n, seed):
    """n numbers below n, drawn with replacement, (n,) intp."""
    words = np.random.Philox(key=derive_key(operator.index(seed), BOOTSTRAP)).random_raw(n)
    return ((words >> np.uint64(32)) * np.uint64(n) >> np.uint64(32)).astype(np.intp)


def stratified_split(y, fraction, seed):
    """Indices of a random part that holds the same fraction of each class, and of the rest.

    Parameters
    ----------
    y : (N,) integer labels
    fraction : float
        In (0, 1). Per class it is rounded to whole images: at least one, and at least one is left in the rest;
        a class of a single image stays in the rest.

    Returns
    -------
    rest, part : intp arrays, ascending

    Raises
    ------
    ValueError
        The fraction is not in (0, 1), or no class has two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"the fraction to split off must lie between 0 and 1, not {fraction}")
    in_part = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = np.flatnonzero(y == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        in_part[members[permutation(len(members), seed, SPLIT, int(label))[:count]]] = True
    if not in_part.any():
        raise ValueError("cannot split: no class has two or more images")
    return np.flatnonzero(~in_part), np.flatnonzero(in_part)
