"""Losses: mean over the batch, summed in float64, and the gradient in the same pass.

Loops that both sum and write do so with `cpu.apart`: otherwise the compiler adds a scalar version for arrays that lie
close to each other, whose sum differs in its last bits.
"""

import numpy as np

from fastcnn.cpu.apart import get, put
from fastcnn.cpu.arrays import contiguous, flat, output
from fastcnn.cpu.elementwise import blocks, part
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.vectormath import exp, float_of_order, log1p, order_of

TASK = 8192  # elements per task, in whole rows
RUN = 512  # elements summed in the dtype before they go into a float64


def softmax_loss(x, y, label_smoothing=0.0, out=None):
    """Cross-entropy of softmax(x) (N, C) with labels y (N,) or target distributions y (N, C); loss and dx.

    loss = -mean_n sum_c t_nc log softmax(x_n)_c, where t = (1 - s) y + s / C for label smoothing s.
    """
    out = output(out, x.shape, x.dtype)
    losses = np.empty(x.shape[0])
    kernel = _softmax_loss_labels if y.ndim == 1 else _softmax_loss_targets
    kernel(*_rows(x), contiguous(x), contiguous(y), label_smoothing, out, losses)
    return _mean(losses), out


def svm_loss(x, y, margin=1.0, out=None):
    """Multi-class hinge loss: mean_n sum_{j != y_n} max(0, x_nj - x_ny + margin); loss and dx."""
    out = output(out, x.shape, x.dtype)
    losses = np.empty(x.shape[0])
    _svm_loss(*_rows(x), contiguous(x), contiguous(y), x.dtype.type(margin), out, losses)
    return _mean(losses), out


def binary_cross_entropy_loss(x, y, out=None):
    """Mean over elements of max(x, 0) - x y + log(1 + e^-|x|), for logits x and targets y in [0, 1]; loss and dx."""
    out = output(out, x.shape, x.dtype)
    losses = np.empty(blocks(x.size))
    _binary_cross_entropy_loss(losses.size, flat(x), flat(y), out.reshape(-1), losses)
    return float(losses.sum()) / max(x.size, 1), out


def _rows(x):
    """How many tasks, and how many rows to each."""
    rows = max(1, TASK // x.shape[1])
    return -(-len(x) // rows), rows


def _mean(losses):
    return float(losses.sum()) / max(losses.size, 1)


@jit
def largest(x):
    """The maximum of x; among numbers that vectorise, whose order is that of the floats."""
    most = order_of(x[0])
    for j in range(x.size):
        most = max(most, order_of(x[j]))
    return float_of_order(most)


@jit
def exponentials(x, y):
    """y = e^(x - most) for a row, most its maximum; gives most and, in float64, the sum of y."""
    most, total = largest(x), np.float64(0)
    for start in range(0, x.size, RUN):
        here, result, run = x[start : start + RUN], y[start : start + RUN], x.dtype.type(0)
        for j in range(here.size):
            power = exp(get(here, j) - most)
            put(result, j, power)
            run += power
        total += np.float64(run)
    return np.float64(most), total


@jit
def distances(x, most):
    """The sum of most - x, in float64."""
    total = np.float64(0)
    for j in range(x.size):
        total += most - np.float64(x[j])
    return total


@parallel
def _softmax_loss_labels(task, rows, x, y, smoothing, dx, losses):
    n, classes = x.shape
    even = smoothing / classes
    for i in range(task * rows, min(n, (task + 1) * rows)):
        row, gradient, right = x[i], dx[i], y[i]
        most, total = exponentials(row, gradient)
        target = 1 - smoothing + even
        # The label's own element, in float64: where the prediction is right the difference is small.
        exact = (np.float64(gradient[right]) / total - target) / n
        scale, shift = gradient.dtype.type(1 / (total * n)), gradient.dtype.type(even / n)
        for j in range(classes):
            put(gradient, j, get(gradient, j) * scale - shift)
        gradient[right] = exact
        loss = np.log(total) + (1 - smoothing) * (most - row[right])
        losses[i] = loss + even * distances(row, most) if even != 0 else loss


@parallel
def _softmax_loss_targets(task, rows, x, y, smoothing, dx, losses):
    n, classes = x.shape
    for i in range(task * rows, min(n, (task + 1) * rows)):
        row, targets, gradient = x[i], y[i], dx[i]
        most, total = exponentials(row, gradient)
        log_total = np.log(total)
        weight, loss = np.float64(0), np.float64(0)
        for j in range(classes):
            target = (1 - smoothing) * targets[j] + smoothing / classes
            weight += target
            loss += target * (log_total + (most - row[j])) if target != 0 else 0.0
        for j in range(classes):
            target = (1 - smoothing) * targets[j] + smoothing / classes
            gradient[j] = (weight / total * gradient[j] - target) / n
        losses[i] = loss


@parallel
def _svm_loss(task, rows, x, y, margin, dx, losses):
    n, classes = x.shape
    one, zero = dx.dtype.type(1 / n), dx.dtype.type(0)
    for i in range(task * rows, min(n, (task + 1) * rows)):
        row, gradient, right = x[i], dx[i], y[i]
        bar = row[right] - margin
        loss, count = np.float64(0), 0
        for j in range(classes):
            excess = get(row, j) - bar
            put(gradient, j, one if excess > 0 else (zero if excess <= 0 else excess))
            loss += np.float64(zero if excess <= 0 else excess)
            count += excess > 0
        # The label's own element was counted, too, with the margin as its excess.
        own = row[right] - bar
        loss, count = loss - (0 if own <= 0 else own), count - (own > 0)
        gradient[right] = -count / n if loss == loss else loss
        losses[i] = loss


@parallel
def _binary_cross_entropy_loss(block, x, y, dx, losses):
    row, target, gradient = part(x, block), part(y, block), part(dx, block)
    zero, one, share = row.dtype.type(0), row.dtype.type(1), row.dtype.type(1 / x.size)
    loss = np.float64(0)
    for i in range(row.size):
        value, wanted = get(row, i), get(target, i)
        power = exp(-abs(value))
        loss += np.float64((zero if value < 0 else value) - value * wanted + log1p(power))
        put(gradient, i, ((power if value < 0 else one) / (one + power) - wanted) * share)
    losses[block] = loss
