"""Batch, layer, instance and group normalisation, with ReLU fused into batch normalisation.

Sources: Ioffe and Szegedy, "Batch Normalization" (2015), algorithm 1; Wu and He, "Group Normalization" (2018), of which
layer norm (Ba et al. 2016, one group) and instance norm (Ulyanov et al. 2016, a group per channel) are special cases.

Memory is what costs here. A task owns a channel (or a group) and finishes it: what the first sweep over it reads from
memory, the second finds in cache. Moments are gathered in float64, plane by plane, and merged by the rule of Chan,
Golub and LeVeque (1979), so that a large mean does not cancel a small variance. x is (N, C, S), S = 1 for (N, C) input;
with S = 1 channels lie side by side, so a task takes a strip of STRIP of them.
"""

import numpy as np

from fastcnn.cpu.activation import relu as rectify
from fastcnn.cpu.activation import relu_derivative
from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.elementwise import begin_with
from fastcnn.cpu.jit import jit, parallel

STRIP = 64  # channels of (N, C) input per task: whole cache lines


def batchnorm_forward(x, gamma, beta, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta, with the mean and biased variance of each channel of the batch.

    x (N, C, ...), gamma, beta (C,). Returns out, mean (C,), var (C,).
    """
    out = output(out, x.shape, x.dtype)
    mean, var = np.empty_like(gamma), np.empty_like(gamma)
    kernel = _batchnorm_forward_rows if _is_rows(x) else _batchnorm_forward_planes
    kernel(_channel_tasks(x), _merged(x), contiguous(gamma), contiguous(beta), eps, relu, _merged(out), mean, var)
    return out, mean, var


def batchnorm_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx, dgamma, dbeta of `batchnorm_forward`; with `relu` its mask is found again from x."""
    return _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, False, out)


def batchnorm_inference(x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta with given statistics."""
    out = output(out, x.shape, x.dtype)
    if _is_rows(x):
        kernel, tasks = _batchnorm_inference_rows, -(-len(x) // STRIP)
    else:
        kernel, tasks = _batchnorm_inference_planes, x.shape[0] * x.shape[1]
    kernel(tasks, _merged(x), *map(contiguous, (gamma, beta, mean, var)), eps, relu, _merged(out))
    return out


def batchnorm_inference_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx, dgamma, dbeta of `batchnorm_inference`: the statistics are constants."""
    return _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, True, out)


def _batchnorm_backward(dout, x, gamma, beta, mean, var, eps, relu, constant, out):
    out = output(out, x.shape, x.dtype)
    dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
    kernel = _batchnorm_backward_rows if _is_rows(x) else _batchnorm_backward_planes
    parameters = map(contiguous, (gamma, beta, mean, var))
    kernel(_channel_tasks(x), _merged(dout), _merged(x), *parameters, eps, relu, constant, _merged(out), dgamma, dbeta)
    return out, dgamma, dbeta


def groupnorm_forward(x, gamma, beta, groups, eps=1e-5, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta, with statistics of each image's groups of C/groups channels.

    x (N, C, ...), gamma, beta (C,). Returns out, mean (N, groups), var (N, groups).
    """
    out = output(out, x.shape, x.dtype)
    mean, var = np.empty((x.shape[0], groups), x.dtype), np.empty((x.shape[0], groups), x.dtype)
    x3 = contiguous(x).reshape(x.shape[0], x.shape[1], int(np.prod(x.shape[2:])))
    _groupnorm_forward(mean.size, x3, contiguous(gamma), contiguous(beta), eps, out.reshape(x3.shape), mean, var)
    return out, mean, var


def groupnorm_backward(dout, x, gamma, mean, var, groups, eps=1e-5, out=None):
    """dx, dgamma, dbeta of `groupnorm_forward`."""
    out = output(out, x.shape, x.dtype)
    dgamma, dbeta = np.empty_like(gamma), np.empty_like(gamma)
    x3 = contiguous(x).reshape(x.shape[0], x.shape[1], int(np.prod(x.shape[2:])))
    sums = np.empty((2, *x3.shape[:2]))
    dout3, out3 = contiguous(dout).reshape(x3.shape), out.reshape(x3.shape)
    _groupnorm_backward(mean.size, dout3, x3, contiguous(gamma), contiguous(mean), contiguous(var), eps, out3, sums)
    dbeta[:], dgamma[:] = sums.sum(axis=1)
    return out, dgamma, dbeta


def _is_rows(x):
    return x.ndim == 2


def _channel_tasks(x):
    return -(-x.shape[1] // STRIP) if _is_rows(x) else x.shape[1]


def _merged(x):
    """x as (N, C, S), or (N, C) where it has two axes."""
    x = contiguous(x)
    return x if _is_rows(x) else x.reshape(x.shape[0], x.shape[1], int(np.prod(x.shape[2:])))


@jit
def moments(x):
    """Mean and sum of squared deviations of a one-dimensional array, in float64."""
    total, squares = np.float64(0), np.float64(0)
    for i in range(x.size):
        total += x[i]
    mean = total / x.size if x.size else np.float64(0)
    for i in range(x.size):
        deviation = x[i] - mean
        squares += deviation * deviation
    return mean, squares


@jit
def inverse_std(var, eps):
    """1 / sqrt(var + eps)."""
    return 1 / np.sqrt(var + eps)


# ---- batch normalisation of planes (N, C, S)


@parallel
def _batchnorm_forward_planes(c, x, gamma, beta, eps, relu, out, means, variances):
    images, channels, size = x.shape
    mean, squares = np.float64(0), np.float64(0)
    for n in range(images):
        here, more = moments(x[n, c])
        step = here - mean
        mean += step / (n + 1)
        squares += more + step * step * size * n / (n + 1)
    var = squares / (images * size) if images * size else np.float64(0)
    means[c], variances[c] = mean, var
    for n in range(images):
        normalise(x[n, c], gamma[c], beta[c], means[c], inverse_std(var, eps), relu, out[n, c])


@parallel
def _batchnorm_inference_planes(plane, x, gamma, beta, mean, var, eps, relu, out):
    images, channels = x.shape[:2]
    n, c = plane // channels, plane % channels
    normalise(x[n, c], gamma[c], beta[c], mean[c], inverse_std(np.float64(var[c]), eps), relu, out[n, c])


@jit
def normalise(x, gamma, beta, mean, inv_std, relu, out):
    """out = gamma (x - mean) inv_std + beta for one plane of a channel."""
    scale = type(gamma)(gamma * inv_std)
    y = begin_with(x, out)
    for i in range(y.size):
        value = (y[i] - mean) * scale + beta
        y[i] = rectify(value) if relu else value


@parallel
def _batchnorm_backward_planes(c, dout, x, gamma, beta, mean, var, eps, relu, constant, dx, dgamma, dbeta):
    images, channels, size = x.shape
    inv_std = inverse_std(np.float64(var[c]), eps)
    scale, shift, middle = type(gamma[c])(gamma[c] * inv_std), beta[c], mean[c]
    total, product = np.float64(0), np.float64(0)
    for n in range(images):
        g, here = dout[n, c], x[n, c]
        plane_total, plane_product = np.float64(0), np.float64(0)
        for i in range(size):
            deviation = here[i] - middle
            gradient = g[i] * relu_derivative(deviation * scale + shift) if relu else g[i]
            plane_total += gradient
            plane_product += np.float64(gradient) * deviation
        total += plane_total
        product += plane_product
    dgamma[c], dbeta[c] = product * inv_std, total
    # dx = scale (g - mean of g - xhat mean of (g xhat)); the two means are 0 where the statistics are constants
    count = max(images * size, 1)
    offset = type(scale)(0 if constant else total / count)
    slope = type(scale)(0 if constant else product * inv_std * inv_std / count)
    for n in range(images):
        result, here = begin_with(dout[n, c], dx[n, c]), x[n, c]
        for i in range(size):
            deviation = here[i] - middle
            gradient = result[i] * relu_derivative(deviation * scale + shift) if relu else result[i]
            result[i] = scale * (gradient - offset - deviation * slope)


# ---- batch normalisation of rows (N, C)


@parallel
def _batchnorm_forward_rows(strip, x, gamma, beta, eps, relu, out, means, variances):
    images, channels = x.shape
    first, last = strip * STRIP, min(channels, (strip + 1) * STRIP)
    mean, squares = np.zeros(last - first), np.zeros(last - first)
    for n in range(images):
        row = x[n, first:last]
        for i in range(last - first):
            mean[i] += row[i]
    for i in range(last - first):
        mean[i] /= max(images, 1)
    for n in range(images):
        row = x[n, first:last]
        for i in range(last - first):
            deviation = row[i] - mean[i]
            squares[i] += deviation * deviation
    for i in range(last - first):
        means[first + i], variances[first + i] = mean[i], squares[i] / max(images, 1)
    normalise_rows(x, gamma, beta, means, variances, eps, relu, out, first, last, 0, images)


@parallel
def _batchnorm_inference_rows(block, x, gamma, beta, mean, var, eps, relu, out):
    last = min(x.shape[0], (block + 1) * STRIP)
    normalise_rows(x, gamma, beta, mean, var, eps, relu, out, 0, x.shape[1], block * STRIP, last)


@jit
def normalise_rows(x, gamma, beta, mean, var, eps, relu, out, first, last, top, bottom):
    """The channels first ... last of the rows top ... bottom."""
    scale = np.empty(last - first, x.dtype)
    for i in range(last - first):
        scale[i] = gamma[first + i] * inverse_std(np.float64(var[first + i]), eps)
    middle, shift = mean[first:last], beta[first:last]
    for n in range(top, bottom):
        y = begin_with(x[n, first:last], out[n, first:last])
        for i in range(y.size):
            value = (y[i] - middle[i]) * scale[i] + shift[i]
            y[i] = rectify(value) if relu else value


@parallel
def _batchnorm_backward_rows(strip, dout, x, gamma, beta, mean, var, eps, relu, constant, dx, dgamma, dbeta):
    images, channels = x.shape
    first, last = strip * STRIP, min(channels, (strip + 1) * STRIP)
    width = last - first
    scale, offset, slope = np.empty(width, x.dtype), np.empty(width, x.dtype), np.empty(width, x.dtype)
    total, product = np.zeros(width), np.zeros(width)
    middle, shift = mean[first:last], beta[first:last]
    for i in range(width):
        scale[i] = gamma[first + i] * inverse_std(np.float64(var[first + i]), eps)
    for n in range(images):
        g, row = dout[n, first:last], x[n, first:last]
        for i in range(width):
            deviation = row[i] - middle[i]
            gradient = g[i] * relu_derivative(deviation * scale[i] + shift[i]) if relu else g[i]
            total[i] += gradient
            product[i] += np.float64(gradient) * deviation
    for i in range(width):
        inv_std = inverse_std(np.float64(var[first + i]), eps)
        dgamma[first + i], dbeta[first + i] = product[i] * inv_std, total[i]
        offset[i] = 0 if constant else total[i] / max(images, 1)
        slope[i] = 0 if constant else product[i] * inv_std * inv_std / max(images, 1)
    for n in range(images):
        result, row = begin_with(dout[n, first:last], dx[n, first:last]), x[n, first:last]
        for i in range(width):
            deviation = row[i] - middle[i]
            gradient = result[i] * relu_derivative(deviation * scale[i] + shift[i]) if relu else result[i]
            result[i] = scale[i] * (gradient - offset[i] - deviation * slope[i])


# ---- group normalisation (N, C, S)


@parallel
def _groupnorm_forward(task, x, gamma, beta, eps, out, means, variances):
    images, channels, size = x.shape
    groups = means.shape[1]
    width = channels // groups
    n, group = task // groups, task % groups
    first = group * width
    mean, squares = moments(x[n, first : first + width].reshape(-1))
    var = squares / max(width * size, 1)
    means[n, group], variances[n, group] = mean, var
    inv_std, middle = inverse_std(var, eps), means[n, group]
    if size == 1:
        y = begin_with(x[n, first : first + width].reshape(-1), out[n, first : first + width].reshape(-1))
        scale, shift, factor = gamma[first : first + width], beta[first : first + width], x.dtype.type(inv_std)
        for i in range(width):
            y[i] = (y[i] - middle) * factor * scale[i] + shift[i]
    else:
        for c in range(first, first + width):
            normalise(x[n, c], gamma[c], beta[c], middle, inv_std, False, out[n, c])


@parallel
def _groupnorm_backward(task, dout, x, gamma, mean, var, eps, dx, sums):
    """dx; and the sums over S of dout (sums[0]) and of dout xhat (sums[1]), (N, C) each."""
    images, channels, size = x.shape
    groups = mean.shape[1]
    width = channels // groups
    n, group = task // groups, task % groups
    inv_std, middle = inverse_std(np.float64(var[n, group]), eps), mean[n, group]
    total, product = np.float64(0), np.float64(0)
    for c in range(group * width, (group + 1) * width):
        g, here = dout[n, c], x[n, c]
        plane_total, plane_product = np.float64(0), np.float64(0)
        for i in range(size):
            plane_total += g[i]
            plane_product += np.float64(g[i]) * (here[i] - middle)
        sums[0, n, c], sums[1, n, c] = plane_total, plane_product * inv_std
        total += gamma[c] * plane_total
        product += gamma[c] * plane_product * inv_std
    count = max(width * size, 1)
    offset = x.dtype.type(inv_std * total / count)
    slope = x.dtype.type(inv_std * inv_std * product / count)
    for c in range(group * width, (group + 1) * width):
        result, here = begin_with(dout[n, c], dx[n, c]), x[n, c]
        scale = x.dtype.type(gamma[c] * inv_std)
        for i in range(size):
            result[i] = scale * result[i] - offset - (here[i] - middle) * slope
