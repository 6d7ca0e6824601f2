"""Losses: mean over the batch, summed in float64, and the gradient in the same pass."""

import math

import numpy as np

from fastcnn.cpu.activation import sigmoid
from fastcnn.cpu.arrays import contiguous, flat, output
from fastcnn.cpu.elementwise import blocks, part
from fastcnn.cpu.jit import jit, parallel


def softmax_loss(x, y, label_smoothing=0.0, out=None):
    """Cross-entropy of softmax(x) (N, C) with labels y (N,) or target distributions y (N, C); loss and dx.

    loss = -mean_n sum_c t_nc log softmax(x_n)_c, where t = (1 - s) y + s / C for label smoothing s.
    """
    out = output(out, x.shape, x.dtype)
    losses = np.empty(x.shape[0])
    kernel = _softmax_loss_labels if y.ndim == 1 else _softmax_loss_targets
    kernel(len(x), contiguous(x), contiguous(y), label_smoothing, out, losses)
    return _mean(losses), out


def svm_loss(x, y, margin=1.0, out=None):
    """Multi-class hinge loss: mean_n sum_{j != y_n} max(0, x_nj - x_ny + margin); loss and dx."""
    out = output(out, x.shape, x.dtype)
    losses = np.empty(x.shape[0])
    _svm_loss(len(x), contiguous(x), contiguous(y), x.dtype.type(margin), out, losses)
    return _mean(losses), out


def binary_cross_entropy_loss(x, y, out=None):
    """Mean over elements of max(x, 0) - x y + log(1 + e^-|x|), for logits x and targets y in [0, 1]; loss and dx."""
    out = output(out, x.shape, x.dtype)
    losses = np.empty(blocks(x.size))
    _binary_cross_entropy_loss(losses.size, flat(x), flat(y), out.reshape(-1), losses)
    return float(losses.sum()) / max(x.size, 1), out


def _mean(losses):
    return float(losses.sum()) / max(losses.size, 1)


@jit
def log_sum_exp(x):
    """The maximum of x, and the sum of e^(x - maximum)."""
    most, total = np.float64(x[0]), np.float64(0)
    for j in range(x.size):
        most = max(most, np.float64(x[j]))
    for j in range(x.size):
        total += math.exp(x[j] - most)
    return most, total


@parallel
def _softmax_loss_labels(i, x, y, smoothing, dx, losses):
    n, classes = x.shape
    even = smoothing / classes
    row, gradient = x[i], dx[i]
    most, total = log_sum_exp(row)
    loss = np.float64(0)
    for j in range(classes):
        target = even + (1 - smoothing if j == y[i] else 0.0)
        gradient[j] = (math.exp(row[j] - most) / total - target) / n
        loss += target * (math.log(total) + most - row[j]) if target != 0 else 0.0
    losses[i] = loss


@parallel
def _softmax_loss_targets(i, x, y, smoothing, dx, losses):
    n, classes = x.shape
    row, targets, gradient = x[i], y[i], dx[i]
    most, total = log_sum_exp(row)
    weight, loss = np.float64(0), np.float64(0)
    for j in range(classes):
        target = (1 - smoothing) * targets[j] + smoothing / classes
        weight += target
        loss += target * (math.log(total) + most - row[j]) if target != 0 else 0.0
    for j in range(classes):
        target = (1 - smoothing) * targets[j] + smoothing / classes
        gradient[j] = (weight * math.exp(row[j] - most) / total - target) / n
    losses[i] = loss


@parallel
def _svm_loss(i, x, y, margin, dx, losses):
    n, classes = x.shape
    row, gradient, right = x[i], dx[i], y[i]
    loss, count = np.float64(0), 0
    for j in range(classes):
        excess = row[j] - row[right] + margin
        if j == right:
            continue
        gradient[j] = 1 / n if excess > 0 else (0 if excess <= 0 else excess)
        count += excess > 0
        loss += 0 if excess <= 0 else excess
    gradient[right] = -count / n if loss == loss else loss
    losses[i] = loss


@parallel
def _binary_cross_entropy_loss(block, x, y, dx, losses):
    row, target, gradient = part(x, block), part(y, block), part(dx, block)
    loss = np.float64(0)
    for i in range(row.size):
        value = np.float64(row[i])
        loss += max(value, 0.0) - value * target[i] + math.log1p(math.exp(-abs(value)))
        gradient[i] = (sigmoid(row[i]) - target[i]) / row.dtype.type(x.size)
    losses[block] = loss
