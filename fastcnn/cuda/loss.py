"""Losses: mean over the batch, summed in float64, and the gradient in the same launch.

A team of threads has a row; blocks leave parts of the loss, which are folded into a `Pending` number. Targets that are
not allowed are found on the way: their loss and gradient are NaN, and to read the loss is an error.
"""

import functools
import math

import numpy as np
from numba import cuda

from fastcnn.cuda.arrays import aligned, contiguous, copy, empty, flat, output
from fastcnn.cuda.indices import divide
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.pending import Pending
from fastcnn.cuda.reduce import block_min, block_sum, fold, parts_of, team_max, team_of, team_sum, teams
from fastcnn.cuda.vectors import LANES, lanes, load_part, store_part


def softmax_loss(x, y, label_smoothing=0.0, out=None):
    """Cross-entropy of softmax(x) (N, C) with labels y (N,) or target distributions y (N, C); loss and dx.

    loss = -mean_n sum_c t_nc log softmax(x_n)_c, where t = (1 - s) y + s / C for label smoothing s.
    """
    classes = x.shape[1]
    numbers = 1.0 - label_smoothing, label_smoothing / classes
    if y.ndim == 1:
        y = _labels(y)
        parts, dx = _by_rows(_softmax_loss_labels, x, y, numbers, out)
        return _checked(parts, y, classes - 1, functools.partial(_refuse_label, classes)), dx
    parts, dx = _by_rows(_softmax_loss_targets, x, flat(y), numbers, out)
    result = empty(1, np.float64)
    fold(parts, result)
    return Pending(result), dx


def svm_loss(x, y, margin=1.0, out=None):
    """Multi-class hinge loss: mean_n sum_{j != y_n} max(0, x_nj - x_ny + margin); loss and dx."""
    y, classes = _labels(y), x.shape[1]
    parts, dx = _by_rows(_svm_loss, x, y, (x.dtype.type(margin),), out)
    return _checked(parts, y, classes - 1, functools.partial(_refuse_label, classes)), dx


def binary_cross_entropy_loss(x, y, out=None):
    """Mean over elements of max(x, 0) - x y + log(1 + e^-|x|), for logits x and targets y in [0, 1]; loss and dx."""
    out = output(out, x.shape, x.dtype)
    x, y, dx, parts = flat(x), flat(y), flat(out), parts_of(x.size)
    _binary_cross_entropy_loss[parts.shape[1]](x, y, aligned(x, y, dx), 1 / max(x.size, 1), dx, parts)
    return _checked(parts, y, 1, _refuse_target), out


def _labels(y):
    return contiguous(y) if y.dtype in (np.int32, np.int64) else copy(y, np.int64)


def _by_rows(function, x, y, numbers, out):
    """Launch a kernel with a team for each row; the parts of the loss, and dx."""
    dx = output(out, x.shape, x.dtype)
    rows, classes = x.shape
    team = team_of(classes)
    parts, share = empty((1, teams(rows, team)), np.float64), 1 / max(rows, 1)
    function[parts.shape[1]](flat(x), y, *numbers, share, np.int32(classes), np.int32(team), flat(dx), parts)
    return parts, dx


def _checked(parts, y, top, refuse):
    """The sum of parts, a number that calls `refuse` when it is read if an element of y is not in [0, top]."""
    result = empty(3, np.float64)
    _checked_fold[1](parts, flat(y), float(top), result)
    return Pending(result, functools.partial(_check, refuse))


def _check(refuse, found, wrong):
    if found:
        refuse(wrong)


def _refuse_label(classes, wrong):
    raise ValueError(f"y: expected labels in [0, {classes}), got {wrong:.0f}")


def _refuse_target(wrong):
    raise ValueError(f"y: expected targets in [0, 1], got {wrong}")


@device
def row_of_team(x, classes, team):
    """(row, first, start, stop): the row, where it begins, where this thread begins in it, and its end in flat x.

    Teams past the last row have no elements.
    """
    row, member = divide(np.int32(cuda.grid(1)), team)
    first = np.int32(row * classes)  # may have become negative
    stop = first + classes if 0 <= first < np.int32(x.size) else first
    return row, first, np.int32(first + member), np.int32(stop)


@device
def place_of_label(y, row, first, stop):
    """Where the element of the row's label is; -1 where there is none."""
    return np.int32(first + y[row] if first < stop and 0 <= y[row] < stop - first else -1)


@device
def largest(x, start, stop, team):
    """The maximum of a row."""
    most = x.dtype.type(-math.inf)
    for i in range(start, stop, team):
        most = x[i] if x[i] > most else most
    return x.dtype.type(team_max(most, team))


_ROWS = "float64, int32, int32, T[::1], float64[:, ::1]"  # share, classes, team, dx, parts


@kernel([f"T[::1], {y}[::1], float64, float64, {_ROWS}" for y in ("int64", "int32")])
def _softmax_loss_labels(x, y, weight, even, share, classes, team, dx, parts):
    """Targets are weight + even for the label, even for the others; share = 1/N."""
    row, first, start, stop = row_of_team(x, classes, team)
    most, total, distance = largest(x, start, stop, team), 0.0, 0.0
    for i in range(start, stop, team):
        below = most - x[i]
        total += np.float64(math.exp(-below))
        distance += np.float64(below)
    total, loss = team_sum(total, team), even * distance if even != 0 else 0.0
    right = place_of_label(y, row, first, stop)
    log_total = math.log(total) if right >= 0 else math.nan
    inverse = math.exp(-log_total)  # a division would call a function, and save registers before
    if right >= 0 and start == first:
        # The label's own element, in float64: where the prediction is right the difference is small.
        below = most - x[right]
        dx[right] = (np.float64(math.exp(-below)) * inverse - (weight + even)) * share
        loss += weight * np.float64(below)
    loss = block_sum(loss + log_total if first < stop and start == first else loss)
    if cuda.threadIdx.x == 0:
        parts[0, cuda.blockIdx.x] = loss * share
    scale, shift = dx.dtype.type(inverse * share), dx.dtype.type(even * share)
    for i in range(start, stop, team):
        if i != right:
            dx[i] = dx.dtype.type(math.exp(x[i] - most)) * scale - shift


@kernel(f"T[::1], T[::1], float64, float64, {_ROWS}")
def _softmax_loss_targets(x, y, weight, even, share, classes, team, dx, parts):
    """Targets are weight y + even; share = 1/N."""
    row, first, start, stop = row_of_team(x, classes, team)
    most, total, targets, product = largest(x, start, stop, team), 0.0, 0.0, 0.0
    for i in range(start, stop, team):
        below, target = most - x[i], weight * np.float64(y[i]) + even
        total += np.float64(math.exp(-below))
        targets += target
        product += target * np.float64(below) if target != 0 else 0.0
    total = team_sum(total, team)
    log_total = math.log(total) if first < stop else 0.0
    loss = block_sum(targets * log_total + product)
    if cuda.threadIdx.x == 0:
        parts[0, cuda.blockIdx.x] = loss * share
    scale = team_sum(targets, team) * math.exp(-log_total)
    for i in range(start, stop, team):
        target = weight * np.float64(y[i]) + even
        dx[i] = (np.float64(math.exp(x[i] - most)) * scale - target) * share


@kernel([f"T[::1], {y}[::1], T, {_ROWS}" for y in ("int64", "int32")])
def _svm_loss(x, y, margin, share, classes, team, dx, parts):
    """share = 1/N."""
    row, first, start, stop = row_of_team(x, classes, team)
    right, loss, count = place_of_label(y, row, first, stop), 0.0, 0.0
    bar = x[right] - margin if right >= 0 else x.dtype.type(math.nan)
    for i in range(start, stop, team):
        if i != right:
            excess = x[i] - bar
            above = 1.0 if excess > 0 else (0.0 if excess <= 0 else math.nan)
            dx[i] = above * share
            loss += np.float64(excess) if above != 0 else 0.0
            count += above
    count = team_sum(count, team)
    if right >= 0 and start == first:
        dx[right] = -count * share
    loss = block_sum(loss)
    if cuda.threadIdx.x == 0:
        parts[0, cuda.blockIdx.x] = loss * share


@device
def cross_entropy(x, y):
    """The loss of a logit and its derivative; NaN for targets outside [0, 1]."""
    if not 0 <= y <= 1:
        return type(x)(math.nan), type(x)(math.nan)
    power, zero, one = type(x)(math.exp(-abs(x))), type(x)(0), type(x)(1)
    loss = (zero if x < 0 else x) - x * y + type(x)(math.log1p(power))
    return loss, (power if x < 0 else one) / (one + power) - y


@kernel("T[::1], T[::1], boolean, float64, T[::1], float64[:, ::1]", opcodes=("LDG.E.128", "STG.E.128"))
def _binary_cross_entropy_loss(x, y, whole, share, dx, parts):
    """share = 1/size; `whole`: all arrays are aligned. The sum is the same if not."""
    values, targets, total = cuda.local.array(LANES, x.dtype), cuda.local.array(LANES, x.dtype), 0.0
    first, step = np.int32(cuda.grid(1) * lanes(x)), np.int32(cuda.gridsize(1) * lanes(x))
    for i in range(first, np.int32(x.size), step):
        load_part(x, i, whole, values)
        load_part(y, i, whole, targets)
        for k in range(lanes(x)):
            loss, slope = cross_entropy(values[k], targets[k])
            total += np.float64(loss) if i + k < x.size else 0.0
            values[k] = slope * x.dtype.type(share)
        store_part(values, dx, i, 0, x.size, whole)
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        parts[0, cuda.blockIdx.x] = total * share


@kernel([f"float64[:, ::1], {y}[::1], float64, float64[::1]" for y in ("int64", "int32", "T")])
def _checked_fold(parts, y, top, result):
    """One block: result = the sum of parts; where that is NaN, whether a y is not in [0, top], and the first such."""
    thread, total = np.int32(cuda.threadIdx.x), 0.0
    for i in range(thread, parts.shape[1], cuda.blockDim.x):
        total += parts[0, i]
    total = block_sum(total)
    if thread == 0:
        result[0], result[1], result[2] = total, 0.0, 0.0
    if total != total:
        first = np.int32(y.size)
        for i in range(thread, np.int32(y.size), np.int32(cuda.blockDim.x)):
            if i < first and not 0 <= y[i] <= top:
                first = i
        first = np.int32(block_min(first))
        if thread == 0 and first < y.size:
            result[1], result[2] = 1.0, y[first]
