"""Batch and group normalisation; layer norm is one group, instance norm is as many groups as channels.

Sources: Ioffe & Szegedy, "Batch normalization" (2015), algorithm 1 and section 3; Wu & He, "Group normalization"
(2018), section 3; layer norm: Ba, Kiros, Hinton 2016; instance norm: Ulyanov, Vedaldi, Lempitsky 2016.

Shapes: x, out, dout (N, C, ...), rank 2 or more; gamma, beta (C,); variances are biased. Everything is computed in
float64 and rounded once.
"""

import math

import numpy as np

from fastcnn.reference._arrays import deliver
from fastcnn.reference.activation import relu_backward


def batchnorm_forward(x, gamma, beta, eps=1e-5, relu=False, out=None):
    """out = gamma xhat + beta, xhat = (x - mean) / sqrt(var + eps), with the mean and variance of each channel.

    Returns out, mean (C,), var (C,); of an empty batch both statistics are 0. With `relu`, max(0, out).
    """
    mean, var = _moments(x, _channel_axes(x))
    out = batchnorm_inference(x, gamma, beta, mean, var, eps, relu, out)
    return out, mean.astype(x.dtype), var.astype(x.dtype)


def batchnorm_add_forward(x, add, gamma, beta, eps=1e-5, relu=False, out=None):
    """out = gamma xhat + beta + add as in `batchnorm_forward`; with `relu`, max(0, out). add is of x's shape."""
    mean, var = _moments(x, _channel_axes(x))
    out = batchnorm_add_inference(x, add, gamma, beta, mean, var, eps, relu, out)
    return out, mean.astype(x.dtype), var.astype(x.dtype)


def batchnorm_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx = gamma / sigma (dout - dbeta / m - xhat dgamma / m), sigma = sqrt(var + eps), m values per channel.

    Returns dx, dgamma = sum dout xhat, dbeta = sum dout; with `relu`, dout counts where gamma xhat + beta > 0.
    """
    dout, xhat, scale, dgamma, dbeta = _through_affine(dout, x, gamma, beta, mean, var, eps, relu)
    m = max(math.prod(x.shape[axis] for axis in _channel_axes(x)), 1)
    dx = scale * (dout - (_per_channel(dbeta, x) + xhat * _per_channel(dgamma, x)) / m)
    return deliver(dx, out, x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def batchnorm_add_backward(dout, x, y, gamma, mean, var, eps=1e-5, relu=False, out=(None, None)):
    """dx, dadd = dout, dgamma, dbeta of `batchnorm_add_forward`; with `relu`, dout counts where the output y > 0."""
    return _through_sum(batchnorm_backward, dout, x, y, gamma, mean, var, eps, relu, out)


def batchnorm_inference(x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta with given mean and var (C,); with `relu`, max(0, out)."""
    gamma, beta, mean, var = (_per_channel(a, x) for a in (gamma, beta, mean, var))
    y = gamma * ((x - mean) / np.sqrt(var + eps)) + beta
    return deliver(np.maximum(y, 0) if relu else y, out, x.dtype)


def batchnorm_add_inference(x, add, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """out = gamma (x - mean) / sqrt(var + eps) + beta + add with given mean and var (C,); with `relu`, max(0, out)."""
    y = batchnorm_inference(x.astype(np.float64), gamma, beta, mean, var, eps) + add
    return deliver(np.maximum(y, 0) if relu else y, out, x.dtype)


def batchnorm_inference_backward(dout, x, gamma, beta, mean, var, eps=1e-5, relu=False, out=None):
    """dx = gamma / sigma dout, dgamma, dbeta: `batchnorm_backward` where mean and var do not depend on x."""
    dout, _, scale, dgamma, dbeta = _through_affine(dout, x, gamma, beta, mean, var, eps, relu)
    return deliver(scale * dout, out, x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def batchnorm_add_inference_backward(dout, x, y, gamma, mean, var, eps=1e-5, relu=False, out=(None, None)):
    """dx, dadd, dgamma, dbeta: `batchnorm_add_backward` where mean and var do not depend on x."""
    return _through_sum(batchnorm_inference_backward, dout, x, y, gamma, mean, var, eps, relu, out)


def moving_average(old, new, momentum, out=None):
    """momentum old + (1 - momentum) new, the running statistics of batch normalisation."""
    return deliver(momentum * old + (1 - momentum) * new, out, old.dtype)


def groupnorm_forward(x, gamma, beta, groups, eps=1e-5, out=None):
    """out = gamma xhat + beta, xhat = (x - mean) / sqrt(var + eps) over each image's groups of C/groups channels.

    Returns out, mean (N, groups), var (N, groups).
    """
    mean, var = _moments(_by_group(x, groups), 2)
    y = _per_channel(gamma, x) * _group_xhat(x, mean, var, groups, eps).reshape(x.shape) + _per_channel(beta, x)
    return deliver(y, out, x.dtype), mean.astype(x.dtype), var.astype(x.dtype)


def groupnorm_backward(dout, x, gamma, mean, var, groups, eps=1e-5, out=None):
    """dx = (g - avg(g) - xhat avg(g xhat)) / sqrt(var + eps), g = gamma dout, averages over each image's groups.

    Returns dx, dgamma = sum dout xhat, dbeta = sum dout.
    """
    xhat = _group_xhat(x, mean, var, groups, eps)
    g = _by_group(_per_channel(gamma, x) * dout, groups)
    sigma = np.sqrt(var.astype(np.float64) + eps)[:, :, None]
    dx = (g - g.mean(axis=2, keepdims=True) - xhat * (g * xhat).mean(axis=2, keepdims=True)) / sigma
    dgamma = (dout * xhat.reshape(x.shape)).sum(axis=_channel_axes(x))
    dbeta = dout.sum(axis=_channel_axes(x), dtype=np.float64)
    return deliver(dx.reshape(x.shape), out, x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


def _channel_axes(x):
    """All axes of x (N, C, ...) but the channels'."""
    return (0, *range(2, x.ndim))


def _per_channel(a, x):
    """a (C,) in float64, shaped to broadcast along axis 1 of x (N, C, ...)."""
    return a.astype(np.float64).reshape(1, -1, *(1,) * (x.ndim - 2))


def _moments(x, axes):
    """Mean and biased variance over `axes`, in float64; zeros where there is nothing to average."""
    if x.size == 0:
        empty = np.zeros(x.shape).sum(axis=axes)
        return empty, empty
    return x.mean(axis=axes, dtype=np.float64), x.var(axis=axes, dtype=np.float64)


def _through_affine(dout, x, gamma, beta, mean, var, eps, relu):
    """Back through y = gamma xhat + beta and the ReLU: dout, xhat, gamma / sigma, dgamma, dbeta."""
    gamma, beta, mean, var = (_per_channel(a, x) for a in (gamma, beta, mean, var))
    sigma = np.sqrt(var + eps)
    xhat = (x - mean) / sigma
    if relu:
        dout = relu_backward(dout, gamma * xhat + beta)
    dgamma = (dout * xhat).sum(axis=_channel_axes(x))
    dbeta = dout.sum(axis=_channel_axes(x), dtype=np.float64)
    return dout, xhat, gamma / sigma, dgamma, dbeta


def _through_sum(backward, dout, x, y, gamma, mean, var, eps, relu, out):
    """Back through max(0, normalised + add): dx, dadd, dgamma, dbeta; `backward` is that of the normalisation."""
    dadd = relu_backward(dout, y) if relu else dout
    dx, dgamma, dbeta = backward(dadd, x, gamma, np.zeros_like(gamma), mean, var, eps, False, out[0])
    return dx, deliver(dadd, out[1], x.dtype), dgamma, dbeta


def _by_group(x, groups):
    """x (N, C, ...) as (N, groups, values per group)."""
    return x.reshape(x.shape[0], groups, math.prod(x.shape[1:]) // groups)


def _group_xhat(x, mean, var, groups, eps):
    """(x - mean) / sqrt(var + eps) in float64, shaped (N, groups, values per group)."""
    mean, var = (a.astype(np.float64)[:, :, None] for a in (mean, var))
    return (_by_group(x, groups) - mean) / np.sqrt(var + eps)
