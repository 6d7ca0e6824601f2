"""Batch, layer, instance and group normalisation; ReLU, and the sum of a residual block, fused into batch norm.

Sources: Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1; Wu and He, "Group Normalization" (2018), of which
layer norm (Ba et al. 2016, one group) and instance norm (Ulyanov et al. 2016, a group per channel) are special cases.

A *set* is what shares a mean and a variance: a channel of the batch, or a group of an image; it lies in memory as
segments of one length, as far apart as there are sets. A team of threads reads it in vectors of 16 bytes, which are
cut where a segment begins or ends between, finishes its sums, and goes over it once more, now from cache. Where there
are few sets for that, and large ones, blocks sum parts of each, a small kernel folds them, and a third computes the
elements. Where segments are shorter than NARROW, as in batch norm of (N, C) input, a set's vectors would be mostly
those of others: there a thread walks down a column of SPAN rows, beside those of the columns next to it.

Sums within a vector or column are of x's dtype, those of them of float64. Squares are those of differences from a
value that the thread met itself, so that a large mean does not cancel a small variance.
"""

import math

import numpy as np
from numba import cuda

from fastcnn.common import activation as formula
from fastcnn.cuda.arrays import aligned, contiguous, empty, flat, output
from fastcnn.cuda.elementwise import binary, run
from fastcnn.cuda.indices import divide
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.reduce import EACH, THREADS, team_moments, team_of, team_sums, teams
from fastcnn.cuda.vectors import LANES, lanes, lanes_of, load_part, store_part

NARROW = 8  # elements of a segment that are worth vectors
SPAN = 32  # rows of a column that are summed in their own dtype
BLOCKS = 2048  # that keep a GPU busy

relu, relu_derivative = map(device, (formula.relu, formula.relu_derivative))


def batchnorm_forward(x, gamma, beta, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta, with the mean and biased variance of each channel of the batch.

    x (N, C, ...), gamma, beta (C,). Returns out, mean (C,), var (C,).
    """
    return _batchnorm_forward(x, None, gamma, beta, eps, relu, out)


def batchnorm_add_forward(x, add, gamma, beta, eps=1e-5, relu=False, out=None):
    """`batchnorm_forward`, to which `add` of x's shape is added before the ReLU: the end of a residual block."""
    return _batchnorm_forward(x, add, gamma, beta, eps, relu, out)


def batchnorm_inference(x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta with given statistics."""
    return _normalise(x, None, contiguous(mean), _inverse(var, eps), gamma, beta, _by_channel(x), relu, out)


def batchnorm_add_inference(x, add, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """`batchnorm_inference`, to which `add` of x's shape is added before the ReLU."""
    return _normalise(x, add, contiguous(mean), _inverse(var, eps), gamma, beta, _by_channel(x), relu, out)


def batchnorm_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx, dgamma, dbeta of `batchnorm_forward`; with `relu` its mask is found again from x."""
    return _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, False, out)


def batchnorm_inference_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx, dgamma, dbeta of `batchnorm_inference`: the statistics are constants."""
    return _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, True, out)


def batchnorm_add_backward(dout, x, y, gamma, mean, var, eps=1e-5, relu=False, out=(None, None)):
    """dx, dadd, dgamma, dbeta of `batchnorm_add_forward`, whose output y says where the ReLU let pass."""
    return _batchnorm_add_backward(dout, x, y, gamma, mean, var, eps, relu, False, out)


def batchnorm_add_inference_backward(dout, x, y, gamma, mean, var, eps=1e-5, relu=False, out=(None, None)):
    """dx, dadd, dgamma, dbeta of `batchnorm_add_inference`: the statistics are constants."""
    return _batchnorm_add_backward(dout, x, y, gamma, mean, var, eps, relu, True, out)


def moving_average(old, new, momentum, out=None):
    """momentum old + (1 - momentum) new, the running statistics; `out` may be `old`."""
    return run(_moving_average, (old, new), (momentum, 1 - momentum), out)


def groupnorm_forward(x, gamma, beta, groups, eps=1e-5, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta, with statistics of each image's groups of C/groups channels.

    x (N, C, ...), gamma, beta (C,). Returns out, mean (N, groups), var (N, groups).
    """
    out, mean, var = _forward(x, None, gamma, beta, _groups(x, groups), _by_group(x, groups), eps, False, out)
    return out, mean.reshape(x.shape[0], groups), var.reshape(x.shape[0], groups)


def groupnorm_backward(dout, x, gamma, mean, var, groups, eps=1e-5, out=None):
    """dx, dgamma, dbeta of `groupnorm_forward`."""
    dout, x, gamma = contiguous(dout), contiguous(x), contiguous(gamma)
    place, sets = _by_group(x, groups), _groups(x, groups)
    numbers = flat(mean), _inverse(flat(var), eps), gamma, gamma
    dbeta, dgamma, _, _ = _sums(dout, x, None, numbers, _channels(x), place, False, False, 0.0)
    dx, _, _ = _backward(dout, x, None, numbers, sets, place, True, False, 1 / max(sets[2], 1), out)
    return dx, dgamma, dbeta


def _batchnorm_forward(x, add, gamma, beta, eps, relu, out):
    return _forward(x, add, gamma, beta, _channels(x), _by_channel(x), eps, relu, out)


def _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, constant, out):
    numbers = contiguous(mean), _inverse(var, eps), contiguous(gamma), contiguous(beta)
    how = numbers, _channels(x), _by_channel(x), False, relu, _share(x, constant), out
    dx, dbeta, dgamma = _backward(contiguous(dout), contiguous(x), None, *how)
    return dx, dgamma, dbeta


def _batchnorm_add_backward(dout, x, y, gamma, mean, var, eps, relu, constant, out):
    dadd, gamma = output(out[1], x.shape, x.dtype), contiguous(gamma)
    numbers = contiguous(mean), _inverse(var, eps), gamma, gamma
    how = numbers, _channels(x), _by_channel(x), False, relu, _share(x, constant), out[0]
    dx, dbeta, dgamma = _backward(contiguous(dout), contiguous(x), (contiguous(y), dadd), *how)
    return dx, dadd, dgamma, dbeta


def _pixels(x):
    """Elements of a plane of x (N, C, ...)."""
    return math.prod(x.shape[2:])


def _channels(x):
    """(segments, sets, length) of the channels of x."""
    return tuple(map(np.int32, (x.shape[0], x.shape[1], _pixels(x))))


def _groups(x, groups):
    """(segments, sets, length) of the groups of each image of x."""
    return tuple(map(np.int32, (1, x.shape[0] * groups, math.prod(x.shape[1:]) // groups)))


def _by_channel(x):
    """What tells kernels the set of a plane: its pixels, the channels, how many of them share a set; 0 for channels."""
    return tuple(map(np.int32, (_pixels(x), x.shape[1], 0)))


def _by_group(x, groups):
    """`_by_channel`, for sets that are groups."""
    return tuple(map(np.int32, (_pixels(x), x.shape[1], x.shape[1] // groups)))


def _share(x, constant):
    """What an element has in the averages of its channel; nothing where the statistics are constants."""
    return 0.0 if constant else 1 / max(x.shape[0] * _pixels(x), 1)


def _inverse(var, eps):
    """1 / sqrt(var + eps)."""
    out = empty(var.size, var.dtype)
    _inverse_std.for_each(var.size, contiguous(var), eps, out)
    return out


def _cut(x, sets):
    """How the sets of x are read: the parts that each is cut to, and the team that reads one; 0 for columns."""
    segments, count, length = map(int, sets)
    if segments > 1 and length < NARROW:
        return -(-segments // SPAN), 0
    slots = segments * (length // lanes_of(x.dtype) + 2)
    parts = min(slots // (THREADS * EACH), BLOCKS // max(count, 1))
    return max(parts, 1), team_of(slots)


def _forward(x, add, gamma, beta, sets, place, eps, relu, out):
    """out = gamma xhat + beta, plus `add` unless it is None; and the mean and variance of each set."""
    out, x, gamma, beta = output(out, x.shape, x.dtype), contiguous(x), contiguous(gamma), contiguous(beta)
    parts, team = _cut(x, sets)
    if parts > 1 or not team:
        mean, var, inverse = _statistics(x, sets, eps)
        return _normalise(x, add, mean, inverse, gamma, beta, place, relu, out), mean, var
    more = x if add is None else contiguous(add)
    mean, var, inverse = (empty(int(sets[1]), x.dtype) for _ in range(3))
    numbers, flags = (mean, inverse, gamma, beta), (add is not None, relu, aligned(x, more, out))
    _forward_sets[teams(int(sets[1]), team)](
        flat(x), flat(more), *numbers, place, sets, np.int32(team), eps, *flags, flat(out), var
    )
    return out, mean, var


def _backward(dout, x, through, numbers, sets, place, weighted, relu, share, out):
    """dx, and the two sums of `_sums`, whose arguments these are."""
    parts, team = _cut(x, sets)
    dout_of_norm, masked = (through[1], False) if through else (dout, relu)
    if parts > 1 or not team:
        *sums, average, average_product = _sums(dout, x, through, numbers, sets, place, weighted, relu, share)
        dx = _gradient(dout_of_norm, x, numbers, (average, average_product), place, masked, out)
        return dx, *sums
    out = output(out, x.shape, x.dtype)
    y, dadd = through or (x, dout)
    results, arrays = tuple(empty(int(sets[1]), x.dtype) for _ in range(4)), tuple(map(flat, (dout, x, y)))
    flags = weighted, relu, through is not None, aligned(dout, x, y, dadd, out)
    _backward_sets[teams(int(sets[1]), team)](
        *arrays, *numbers, place, sets, np.int32(team), share, *flags, flat(dadd), flat(out), *results
    )
    return out, *results[:2]


def _statistics(x, sets, eps):
    """Mean, biased variance and 1 / sqrt(var + eps) of each set."""
    parts, team, width = _new_parts(x, sets, 3)
    if team:
        grid = teams(int(sets[1]), team), parts.shape[1]
        _set_moments[grid](flat(x), sets, np.int32(team), aligned(x), parts)
    else:
        _column_moments.for_each(parts.size // 3, flat(x), sets[0], parts)
    mean, var, inverse = (empty(int(sets[1]), x.dtype) for _ in range(3))
    team = team_of(parts.shape[1] * width)
    _fold_moments[teams(int(sets[1]), team)](parts, np.int32(width), eps, np.int32(team), mean, var, inverse)
    return mean, var, inverse


def _sums(dout, x, through, numbers, sets, place, weighted, relu, share):
    """The sums over each set of the gradients of y = gamma xhat + beta and of their products with xhat.

    With `weighted`, of gamma times them. `through`, an output and a gradient: of those of dout, only what passes the
    ReLU of this output counts, and is written to the gradient. Returns both sums, and `share` of both times gamma.
    """
    parts, team, width = _new_parts(x, sets, 2)
    y, dadd = through or (x, dout)
    arrays = *map(flat, (dout, x, y)), *numbers, place
    flags = weighted, relu, through is not None
    if team:
        grid, wide = (teams(int(sets[1]), team), parts.shape[1]), aligned(dout, x, y, dadd)
        _set_sums[grid](*arrays, sets, np.int32(team), *flags, wide, flat(dadd), parts)
    else:
        _column_sums.for_each(parts.size // 2, *arrays, sets[0], *flags[1:], flat(dadd), parts)
    results = tuple(empty(int(sets[1]), x.dtype) for _ in range(4))
    team = team_of(parts.shape[1] * width)
    fold = _fold_sums[teams(int(sets[1]), team)]
    fold(parts, np.int32(width), numbers[2], weighted, share, np.int32(team), *results)
    return results


def _new_parts(x, sets, values):
    """Memory for the parts of each set, (values, parts, columns); the team of `_cut`; the columns of a set."""
    parts, team = _cut(x, sets)
    width = 1 if team else int(sets[2])
    return empty((values, parts, int(sets[1]) * width), np.float64), team, width


def _normalise(x, add, mean, inverse, gamma, beta, place, relu, out):
    out, x = output(out, x.shape, x.dtype), contiguous(x)
    more = x if add is None else contiguous(add)
    numbers, flags = (mean, inverse, contiguous(gamma), contiguous(beta)), (add is not None, relu)
    threads = -(-x.size // lanes_of(x.dtype))
    _affine.for_each(threads, flat(x), flat(more), *numbers, place, *flags, aligned(x, more, out), flat(out))
    return out


def _gradient(dout, x, numbers, averages, place, relu, out):
    out = output(out, x.shape, x.dtype)
    threads = -(-x.size // lanes_of(x.dtype))
    arrays = flat(dout), flat(x), *numbers, *averages
    _affine_gradient.for_each(threads, *arrays, place, relu, aligned(dout, x, out), flat(out))
    return out


@device
def average(old, new, momentum, rest):
    """momentum old + rest new."""
    return momentum * old + rest * new


_moving_average = binary(average, 2)


@device
def numbers_of(plane, place, mean, inverse, gamma, beta):
    """The set of a plane; its mean and 1 / std, and the plane's gamma and beta."""
    channel = divide(plane, place[1])[1]
    s = channel if place[2] == 0 else divide(plane, place[2])[0]
    return s, mean[s], inverse[s], gamma[channel], beta[channel]


@device
def slots_of(x, row, sets):
    """Vectors that a set has at most, of one that there is."""
    return np.int32(sets[0] * (sets[2] // np.int32(lanes(x)) + 2) if row < sets[1] else 0)


@device
def stretch(x, slot, row, sets):
    """Where vector `slot` of a set begins; the first element of the segment that it is cut to, and that after it."""
    length, size = sets[2], np.int32(lanes(x))
    segment, vector = divide(slot, np.int32(length // size + 2))
    first = np.int32((segment * sets[1] + row) * length)
    return np.int32(first - first % size + vector * size), first, np.int32(first + length)


@device
def moments(x, row, sets, first_slot, step, wide):
    """Count, mean and sum of squared deviations of every `step`-th vector of a set."""
    values = cuda.local.array(LANES, x.dtype)
    total, squares = np.float64(0), np.float64(0)
    count, origin = np.float64(0), x.dtype.type(0)
    for slot in range(first_slot, slots_of(x, row, sets), step):
        i, first, last = stretch(x, np.int32(slot), row, sets)
        if i < last:
            load_part(x, i, wide, values)
            part, part2 = x.dtype.type(0), x.dtype.type(0)
            for k in range(lanes(x)):
                if (i + k >= first) & (i + k < last):
                    origin = values[k] if count == 0 else origin
                    deviation = values[k] - origin
                    part += deviation
                    part2 += deviation * deviation
                    count += 1
            total += part
            squares += part2
    mean = total / max(count, 1.0)
    return count, origin + mean, squares - total * mean


@device
def sums(
    dout, x, y, mean, inverse, gamma, beta, place, row, sets, first_slot, step, weighted, rectified, summed, wide, dadd
):
    """Sums of gradients, and of their products with xhat, over every `step`-th vector of a set."""
    gradients, values = cuda.local.array(LANES, x.dtype), cuda.local.array(LANES, x.dtype)
    outputs = cuda.local.array(LANES, x.dtype)
    total, product = np.float64(0), np.float64(0)
    for slot in range(first_slot, slots_of(x, row, sets), step):
        i, first, last = stretch(x, np.int32(slot), row, sets)
        if i < last:
            load_part(dout, i, wide, gradients)
            load_part(x, i, wide, values)
            if summed:
                load_part(y, i, wide, outputs)
            plane, pixel = divide(i, place[0])
            _, middle, factor, weight, shift = numbers_of(plane, place, mean, inverse, gamma, beta)
            part, part2 = x.dtype.type(0), x.dtype.type(0)
            for k in range(lanes(x)):
                if (pixel == place[0]) & (i + k < last):
                    plane, pixel = np.int32(plane + 1), np.int32(0)
                    _, middle, factor, weight, shift = numbers_of(plane, place, mean, inverse, gamma, beta)
                if (i + k >= first) & (i + k < last):
                    xhat = (values[k] - middle) * factor
                    if rectified:
                        gradients[k] *= relu_derivative(outputs[k] if summed else weight * xhat + shift)
                    term = weight * gradients[k] if weighted else gradients[k]
                    part += term
                    part2 += term * xhat
                pixel += np.int32(1)
            total += part
            product += part2
            if summed:
                store_part(gradients, dadd, i, first, last, wide)
    return total, product


@device
def affine(x, add, mean, inverse, gamma, beta, place, i, first, last, summed, rectified, wide, out):
    """The vector that begins at element i, cut to those from `first` to `last`: see `_affine`."""
    values, more = cuda.local.array(LANES, x.dtype), cuda.local.array(LANES, x.dtype)
    load_part(x, i, wide, values)
    if summed:
        load_part(add, i, wide, more)
    plane, pixel = divide(i, place[0])
    _, middle, factor, weight, shift = numbers_of(plane, place, mean, inverse, gamma, beta)
    for k in range(lanes(x)):
        if (pixel == place[0]) & (i + k < last):
            plane, pixel = np.int32(plane + 1), np.int32(0)
            _, middle, factor, weight, shift = numbers_of(plane, place, mean, inverse, gamma, beta)
        if i + k < last:
            value = weight * ((values[k] - middle) * factor) + shift
            if summed:
                value += more[k]
            values[k] = relu(value) if rectified else value
        pixel += np.int32(1)
    store_part(values, out, i, first, last, wide)


@device
def affine_gradient(
    dout, x, mean, inverse, gamma, beta, average, average_product, place, i, first, last, rectified, wide, dx
):
    """The vector that begins at element i, cut to those from `first` to `last`: see `_affine_gradient`."""
    gradients, values = cuda.local.array(LANES, x.dtype), cuda.local.array(LANES, x.dtype)
    load_part(dout, i, wide, gradients)
    load_part(x, i, wide, values)
    plane, pixel = divide(i, place[0])
    s, middle, factor, weight, shift = numbers_of(plane, place, mean, inverse, gamma, beta)
    offset, slope = average[s], average_product[s]
    for k in range(lanes(x)):
        if (pixel == place[0]) & (i + k < last):
            plane, pixel = np.int32(plane + 1), np.int32(0)
            s, middle, factor, weight, shift = numbers_of(plane, place, mean, inverse, gamma, beta)
            offset, slope = average[s], average_product[s]
        if i + k < last:
            xhat, gradient = (values[k] - middle) * factor, weight * gradients[k]
            if rectified:
                gradient *= relu_derivative(weight * xhat + shift)
            values[k] = factor * (gradient - offset - xhat * slope)
        pixel += np.int32(1)
    store_part(values, dx, i, first, last, wide)


@kernel(
    "T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], UniTuple(int32, 3), UniTuple(int32, 3), int32, float64, "
    "boolean, boolean, boolean, T[::1], T[::1]",
    opcodes=("LDG.E.128", "STG.E.128"),
)
def _forward_sets(
    x, add, means, inverses, gamma, beta, place, sets, team, eps, summed, rectified, wide, out, variances
):
    """A team for each set: its statistics, then `_affine` of its elements."""
    row, member = divide(np.int32(cuda.grid(1)), team)
    count, mean, squares = moments(x, row, sets, member, team, wide)
    count, mean, squares = team_moments(count, mean, squares, team)
    if member == 0 and row < sets[1]:
        var = squares / max(count, 1.0)
        means[row], variances[row], inverses[row] = mean, var, 1 / math.sqrt(var + eps)
    cuda.syncthreads()
    for slot in range(member, slots_of(x, row, sets), team):
        i, first, last = stretch(x, np.int32(slot), row, sets)
        if i < last:
            affine(x, add, means, inverses, gamma, beta, place, i, first, last, summed, rectified, wide, out)


@kernel(
    "T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], UniTuple(int32, 3), UniTuple(int32, 3), int32, float64, "
    "boolean, boolean, boolean, boolean, T[::1], T[::1], T[::1], T[::1], T[::1], T[::1]",
    registers=80,
    opcodes=("LDG.E.128", "STG.E.128"),
)
def _backward_sets(
    dout, x, y, mean, inverse, gamma, beta, place, sets, team, share, weighted, rectified, summed, wide,
    dadd, dx, totals, products, average, average_product,
):  # fmt: skip
    """A team for each set: its sums, then `_affine_gradient` of its elements."""
    row, member = divide(np.int32(cuda.grid(1)), team)
    total, product = sums(
        dout, x, y, mean, inverse, gamma, beta, place, row, sets, member, team, weighted, rectified, summed, wide, dadd
    )
    total, product = team_sums(total, product, team)
    if member == 0 and row < sets[1]:
        factor = share if weighted else share * gamma[row]
        totals[row], products[row] = total, product
        average[row], average_product[row] = total * factor, product * factor
    cuda.syncthreads()
    numbers, masked = (mean, inverse, gamma, beta, average, average_product, place), rectified and not summed
    for slot in range(member, slots_of(x, row, sets), team):
        i, first, last = stretch(x, np.int32(slot), row, sets)
        if i < last:
            affine_gradient(dadd, x, *numbers, i, first, last, masked, wide, dx)


@kernel("T[::1], float64, T[::1]")
def _inverse_std(var, eps, out):
    i = np.int32(cuda.grid(1))
    if i < out.size:
        out[i] = 1 / math.sqrt(np.float64(var[i]) + eps)


@kernel("T[::1], UniTuple(int32, 3), int32, boolean, float64[:, :, ::1]", opcodes=("LDG.E.128",))
def _set_moments(x, sets, team, wide, parts):
    """Count, mean and sum of squared deviations of each part of each set; blocks (teams, part)."""
    row, member = divide(np.int32(cuda.grid(1)), team)
    first_slot, step = np.int32(cuda.blockIdx.y * team + member), np.int32(cuda.gridDim.y * team)
    count, mean, squares = moments(x, row, sets, first_slot, step, wide)
    count, mean, squares = team_moments(count, mean, squares, team)
    if member == 0 and row < sets[1]:
        parts[0, cuda.blockIdx.y, row] = count
        parts[1, cuda.blockIdx.y, row] = mean
        parts[2, cuda.blockIdx.y, row] = squares


@kernel("T[::1], int32, float64[:, :, ::1]")
def _column_moments(x, rows, parts):
    """`_set_moments` of columns, cut into parts of SPAN rows."""
    columns = np.int32(parts.shape[2])
    part, column = divide(np.int32(cuda.grid(1)), columns)
    if part < parts.shape[1]:
        first, last = np.int32(part * SPAN), np.int32(min(rows, (part + 1) * SPAN))
        origin = x[np.int32(first * columns + column)]
        total, squares = x.dtype.type(0), x.dtype.type(0)
        for n in range(first, last):
            deviation = x[np.int32(n * columns + column)] - origin
            total += deviation
            squares += deviation * deviation
        mean = total / np.float64(last - first)
        parts[0, part, column] = last - first
        parts[1, part, column] = origin + mean
        parts[2, part, column] = squares - total * mean


@kernel("float64[:, :, ::1], int32, float64, int32, T[::1], T[::1], T[::1]")
def _fold_moments(parts, width, eps, team, means, variances, inverses):
    """A team for each set, which has the parts of `width` columns."""
    row, member = divide(np.int32(cuda.grid(1)), team)
    entries = np.int32(parts.shape[1] * width if row < means.size else 0)
    count, total, squares = np.float64(0), np.float64(0), np.float64(0)
    for i in range(member, entries, team):
        part, column = divide(np.int32(i), width)
        column = np.int32(column + row * width)
        count += parts[0, part, column]
        total += parts[0, part, column] * parts[1, part, column]
    mean = total / max(count, 1.0)
    for i in range(member, entries, team):
        part, column = divide(np.int32(i), width)
        column = np.int32(column + row * width)
        deviation = parts[1, part, column] - mean
        squares += parts[2, part, column] + parts[0, part, column] * deviation * deviation
    count, mean, squares = team_moments(count, mean, squares, team)
    if member == 0 and row < means.size:
        var = squares / max(count, 1.0)
        means[row], variances[row] = mean, var
        inverses[row] = 1 / math.sqrt(var + eps)


@kernel(
    "T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], UniTuple(int32, 3), UniTuple(int32, 3), int32, "
    "boolean, boolean, boolean, boolean, T[::1], float64[:, :, ::1]",
    registers=80,
    opcodes=("LDG.E.128", "STG.E.128"),
)
def _set_sums(
    dout, x, y, mean, inverse, gamma, beta, place, sets, team, weighted, rectified, summed, wide, dadd, parts
):
    """Sums of gradients, and of their products with xhat, over each part of each set; blocks (teams, part)."""
    row, member = divide(np.int32(cuda.grid(1)), team)
    first_slot, step = np.int32(cuda.blockIdx.y * team + member), np.int32(cuda.gridDim.y * team)
    numbers, flags = (mean, inverse, gamma, beta, place), (weighted, rectified, summed, wide)
    total, product = sums(dout, x, y, *numbers, row, sets, first_slot, step, *flags, dadd)
    total, product = team_sums(total, product, team)
    if member == 0 and row < sets[1]:
        parts[0, cuda.blockIdx.y, row] = total
        parts[1, cuda.blockIdx.y, row] = product


@kernel(
    "T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], UniTuple(int32, 3), int32, boolean, boolean, T[::1], "
    "float64[:, :, ::1]"
)
def _column_sums(dout, x, y, mean, inverse, gamma, beta, place, rows, rectified, summed, dadd, parts):
    """`_set_sums` of columns, cut into parts of SPAN rows."""
    columns = np.int32(parts.shape[2])
    part, column = divide(np.int32(cuda.grid(1)), columns)
    if part < parts.shape[1]:
        channel = divide(column, place[0])[0]
        total, product = x.dtype.type(0), x.dtype.type(0)
        for n in range(part * SPAN, min(rows, (part + 1) * SPAN)):
            i = np.int32(n * columns + column)
            plane = np.int32(n * place[1] + channel)
            _, middle, factor, weight, shift = numbers_of(plane, place, mean, inverse, gamma, beta)
            xhat, gradient = (x[i] - middle) * factor, dout[i]
            if rectified:
                gradient *= relu_derivative(y[i] if summed else weight * xhat + shift)
            if summed:
                dadd[i] = gradient
            total += gradient
            product += gradient * xhat
        parts[0, part, column] = total
        parts[1, part, column] = product


@kernel("float64[:, :, ::1], int32, T[::1], boolean, float64, int32, T[::1], T[::1], T[::1], T[::1]")
def _fold_sums(parts, width, gamma, weighted, share, team, totals, products, average, average_product):
    """A team for each set, which has the parts of `width` columns."""
    row, member = divide(np.int32(cuda.grid(1)), team)
    entries = np.int32(parts.shape[1] * width if row < totals.size else 0)
    total, product = np.float64(0), np.float64(0)
    for i in range(member, entries, team):
        part, column = divide(np.int32(i), width)
        total += parts[0, part, row * width + column]
        product += parts[1, part, row * width + column]
    total, product = team_sums(total, product, team)
    if member == 0 and row < totals.size:
        factor = share if weighted else share * gamma[row]
        totals[row], products[row] = total, product
        average[row], average_product[row] = total * factor, product * factor


@kernel(
    "T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], UniTuple(int32, 3), boolean, boolean, boolean, T[::1]",
    opcodes=("LDG.E.128", "STG.E.128"),
)
def _affine(x, add, mean, inverse, gamma, beta, place, summed, rectified, wide, out):
    """out = gamma (x - mean) inverse + beta, if `summed` plus add, if `rectified` no less than 0."""
    i = np.int32(np.int32(cuda.grid(1)) * lanes(x))
    if i < x.size:
        last = np.int32(x.size)
        affine(x, add, mean, inverse, gamma, beta, place, i, np.int32(0), last, summed, rectified, wide, out)


@kernel(
    "T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], UniTuple(int32, 3), boolean, boolean, T[::1]",
    opcodes=("LDG.E.128", "STG.E.128"),
)
def _affine_gradient(dout, x, mean, inverse, gamma, beta, average, average_product, place, rectified, wide, dx):
    """dx = inverse (gamma dout - average - xhat average_product); if `rectified`, dout where gamma xhat + beta > 0."""
    i = np.int32(np.int32(cuda.grid(1)) * lanes(x))
    if i < x.size:
        numbers, last = (mean, inverse, gamma, beta, average, average_product, place), np.int32(x.size)
        affine_gradient(dout, x, *numbers, i, np.int32(0), last, rectified, wide, dx)
