"""The end of a convolution, done while its output is in cache: bias, residual sum, ReLU, the moments of a channel."""

import dataclasses

import numpy as np

from fastcnn.cpu.gemm import rectify
from fastcnn.cpu.jit import jit, parallel


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """out = max(out + bias + add, 0): the parts that are wanted.

    Parameters
    ----------
    bias : (F,) array
    add : array of the output's shape, or one of no elements: nothing is added
    relu : bool
    moments : whether the means and squares of the output's channels are wanted
    """

    bias: np.ndarray
    add: np.ndarray
    relu: bool = False
    moments: bool = False

    def buffer(self, blocks, filters):
        """Where an algorithm that cuts its output into `blocks` leaves (count, mean, squares) of each, per filter."""
        return np.zeros((blocks, filters, 3) if self.moments else (0, 0, 3))


def fold(parts, dtype):
    """Mean and biased variance (F,) from the (count, mean, sum of squared deviations) of blocks, (blocks, F, 3).

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance" (1983), equation 2.1.
    """
    count, mean, squares = np.moveaxis(parts, 2, 0)
    total = np.maximum(count.sum(axis=0), 1)
    middle = (count * mean).sum(axis=0) / total
    squares = (squares + count * (mean - middle) ** 2).sum(axis=0)
    return middle.astype(dtype), (squares / total).astype(dtype)


@jit
def emit(source, bias, add, relu, target):
    """One run of output: target = source + bias + add, rectified where `relu`; `add` may have no elements."""
    if add.size:
        for i in range(target.size):
            target[i] = rectify(source[i] + bias + add[i], relu)
    else:
        for i in range(target.size):
            target[i] = rectify(source[i] + bias, relu)


@jit
def gather_moments(run, pivot, moments):
    """Add a run of output to a block's moments: its length, and the sums of its values less `pivot` and their squares.

    A pivot near the values keeps the squares from cancelling when `finish_moments` subtracts the mean's.
    """
    total, squares = type(pivot)(0), type(pivot)(0)
    for i in range(run.size):
        deviation = run[i] - pivot
        total += deviation
        squares += deviation * deviation
    moments[0] += run.size
    moments[1] += total
    moments[2] += squares


@jit
def finish_moments(pivot, moments):
    """From sums about the pivot to the mean and the sum of squared deviations from it."""
    if moments[0] > 0:
        mean = moments[1] / moments[0]
        moments[2] -= mean * moments[1]
        moments[1] = mean + pivot


def moments_of(out, end):
    """The moments of an output that is complete already, where the epilogue wants them."""
    n, f, h, w = out.shape
    parts = end.buffer(n, f)
    if parts.size:
        _moments_of_planes(n * f, out.reshape(n * f, h * w), parts.reshape(n * f, 3))
    return parts


@parallel
def _moments_of_planes(plane, out, parts):
    row, moments = out[plane], parts[plane]
    if row.size:
        gather_moments(row, row[0], moments)
        finish_moments(row[0], moments)
