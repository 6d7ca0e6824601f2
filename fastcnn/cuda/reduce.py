"""Reductions over the threads of a block, and over the parts that blocks leave: in a fixed order, without atomics.

A block has THREADS threads, or as many *teams* of neighbouring threads as fit, of a power of two each, which reduce
something of their own each. Threads sum what they meet in float64 where the terms are few or cancel, from
``np.float64(0)`` on: to 0.0 the simulator would add in the dtype of the terms. Blocks leave one part each, which
`fold` adds.
"""

import numpy as np
from numba import cuda, float64

from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.memory import empty

THREADS = 256  # of a block that calls functions of this file
EACH = 4  # things for each thread of a team, at least
PART, PARTS = 8192, 1024  # parts have at least so many elements, and there are at most so many, in sums over all


def team_of(count):
    """The threads of a team that reduces so many things."""
    return min(THREADS, 1 << max(0, -(-count // EACH) - 1).bit_length())


def teams(count, team):
    """The blocks that have so many teams."""
    return -(-count * team // THREADS)


def parts_of(size):
    """Room for the sums of the parts of so many elements, (1, parts)."""
    return empty((1, min(PARTS, -(-size // PART))), np.float64)


def _team_reduction(combine):
    """The function (value, team) that combines the values of a team's threads, in float64, for each of them.

    All threads of the block call it, as often as each other.
    """

    def reduction(value, team):
        results = cuda.shared.array(256, float64)
        thread = cuda.threadIdx.x
        member = thread & (team - 1)
        cuda.syncthreads()  # the results of an earlier call have been read
        results[thread] = value
        cuda.syncthreads()
        half = team >> 1
        while half > 0:
            if member < half:
                results[thread] = combine(results[thread], results[thread + half])
            cuda.syncthreads()
            half >>= 1
        return results[thread - member]

    return device(reduction)


@device
def add(a, b):
    """a + b."""
    return a + b


@device
def larger(a, b):
    """The larger one; a NaN may be lost."""
    return b if b > a else a


@device
def smaller(a, b):
    """The smaller one; a NaN may be lost."""
    return b if b < a else a


team_sum, team_max, team_min = map(_team_reduction, (add, larger, smaller))


@device
def team_sums(first, second, team):
    """`team_sum` of two values at once."""
    firsts = cuda.shared.array(256, float64)
    seconds = cuda.shared.array(256, float64)
    thread = cuda.threadIdx.x
    member = thread & (team - 1)
    cuda.syncthreads()
    firsts[thread], seconds[thread] = first, second
    cuda.syncthreads()
    half = team >> 1
    while half > 0:
        if member < half:
            firsts[thread] += firsts[thread + half]
            seconds[thread] += seconds[thread + half]
        cuda.syncthreads()
        half >>= 1
    return firsts[thread - member], seconds[thread - member]


@device
def merge_moments(count, mean, squares, count2, mean2, squares2):
    """Count, mean and sum of squared deviations of two samples together (Chan, Golub and LeVeque 1979); either may be
    empty.
    """
    both, step = count + count2, mean2 - mean
    share = count2 / max(both, 1.0)
    return both, mean + step * share, squares + squares2 + step * step * count * share


@device
def team_moments(count, mean, squares, team):
    """`merge_moments` of the samples of a team's threads, as `team_sum`."""
    counts = cuda.shared.array(256, float64)
    means = cuda.shared.array(256, float64)
    deviations = cuda.shared.array(256, float64)
    thread = cuda.threadIdx.x
    member = thread & (team - 1)
    cuda.syncthreads()
    counts[thread], means[thread], deviations[thread] = count, mean, squares
    cuda.syncthreads()
    half = team >> 1
    while half > 0:
        if member < half:
            other = thread + half
            count, mean, squares = merge_moments(count, mean, squares, counts[other], means[other], deviations[other])
            counts[thread], means[thread], deviations[thread] = count, mean, squares
        cuda.syncthreads()
        half >>= 1
    leader = thread - member
    return counts[leader], means[leader], deviations[leader]


@device
def block_sum(value):
    """`team_sum` over all threads of the block."""
    return team_sum(value, THREADS)


@device
def block_min(value):
    """`team_min` over all threads of the block."""
    return team_min(value, THREADS)


def fold(parts, out):
    """out[i] = the sum of parts[i, :] (rows, parts), which are float64, in a fixed order."""
    _fold[parts.shape[0]](parts, out)


@kernel("float64[:, ::1], T[::1]")
def _fold(parts, out):
    """A block for each row."""
    row, total = cuda.blockIdx.x, 0.0
    for i in range(cuda.threadIdx.x, parts.shape[1], cuda.blockDim.x):
        total += parts[row, i]
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        out[row] = total
