"""Batch, layer, group and instance normalisation, for x (N, D) and for images x (N, C, H, W).

Sources: Ioffe & Szegedy 2015 (batch), Ba, Kiros, Hinton 2016 (layer), Wu & He 2018 (group), Ulyanov et al. 2016
(instance). Layer norm is group norm with one group, instance norm has as many groups as channels.
"""

from typing import NamedTuple

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor


def batchnorm_forward(
    x, gamma, beta, bn_param=None, *, mode=None, eps=None, momentum=None, running_mean=None, running_var=None, out=None
):
    """Batch normalisation of each column: out = gamma (x - mean) / sqrt(var + eps) + beta.

    Parameters
    ----------
    x : (N, D) array
    gamma, beta : (D,) arrays
    bn_param : dict, optional
        ``{'mode': 'train' or 'test', 'eps': 1e-5, 'momentum': 0.9, 'running_mean', 'running_var'}``; only ``'mode'`` is
        required. In train mode ``'running_mean'`` and ``'running_var'`` are bound to new arrays,
        running = momentum running + (1 - momentum) sample, with the biased variance; missing ones start as zeros of x's
        dtype. An empty batch leaves them as they are.
    mode : {"train", "test"}, optional
        "train" by default. Keywords win over `bn_param`.
    eps, momentum : float, optional
    running_mean, running_var : (D,) arrays, optional
        Without `bn_param` they are updated in place in train mode, and needed in test mode.
    out : array of x's shape, optional

    Returns
    -------
    out : (N, D) array
    cache : tuple for `batchnorm_backward`
        In test mode it leads to the gradients for constant mean and var.

    Raises
    ------
    TypeError, ValueError
        For arrays that are not floating-point, shapes that do not fit, or parameters out of range or missing. Nothing
        has been written then.
    """
    keywords = {
        "mode": mode,
        "eps": eps,
        "momentum": momentum,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    return normalise_batch("(N, D)", x, gamma, beta, bn_param, keywords, False, out)


def spatial_batchnorm_forward(
    x, gamma, beta, bn_param=None, *, mode=None, eps=None, momentum=None, running_mean=None, running_var=None, out=None
):
    """`batchnorm_forward` of each channel of images: x (N, C, H, W), the other arrays (C,)."""
    keywords = {
        "mode": mode,
        "eps": eps,
        "momentum": momentum,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    return normalise_batch("(N, C, H, W)", x, gamma, beta, bn_param, keywords, False, out)


def batchnorm_backward(dout, cache, *, out=None):
    """Gradients of `batchnorm_forward` and `spatial_batchnorm_forward`.

    Parameters
    ----------
    dout : array of x's shape
    cache : tuple
    out : array of x's shape, optional
        Receives dx; may be dout itself.

    Returns
    -------
    dx, dgamma, dbeta : arrays

    Raises
    ------
    TypeError, ValueError
        For a dout that does not fit the cache.
    """
    dout, x, gamma, beta, mean, var = checks.floats(
        dout=dout, x=cache.x, gamma=cache.gamma, beta=cache.beta, mean=cache.mean, var=cache.var
    )
    checks.shape("dout", dout, x.shape)
    arrays = dout, x, gamma, beta, mean, var
    direct = checks.buffer(out, x.shape, x.dtype, arrays, in_place=cache.training)
    norm = floor("norm", x)
    backward = norm.batchnorm_backward if cache.training else norm.batchnorm_inference_backward
    dx, dgamma, dbeta = backward(*arrays, eps=cache.eps, relu=cache.relu, out=direct)
    return checks.deliver(dx, direct, out), dgamma, dbeta


batchnorm_backward_alt = spatial_batchnorm_backward = batchnorm_backward


def layernorm_forward(x, gamma, beta, ln_param=None, *, eps=None, out=None):
    """Layer normalisation: each row of x (N, D) by its own mean and variance; gamma, beta (D,).

    `ln_param` is ``{'eps': 1e-5}`` or empty; the keyword wins. Returns out and the cache for `layernorm_backward`,
    which returns dx, dgamma, dbeta. Errors are those of `groupnorm_forward`.
    """
    return _normalise_groups("(N, D)", x, gamma, beta, 1, "ln_param", ln_param, eps, out)


def spatial_layernorm_forward(x, gamma, beta, ln_param=None, *, eps=None, out=None):
    """Each image of x (N, C, H, W) by its own mean and variance; gamma, beta (C,) or (1, C, 1, 1)."""
    return _normalise_groups("(N, C, H, W)", x, gamma, beta, 1, "ln_param", ln_param, eps, out)


def instancenorm_forward(x, gamma, beta, in_param=None, *, eps=None, out=None):
    """Each element of x (N, D) by itself, so that out = beta: the limit of `groupnorm_forward` with D groups."""
    return _normalise_groups("(N, D)", x, gamma, beta, None, "in_param", in_param, eps, out)


def spatial_instancenorm_forward(x, gamma, beta, in_param=None, *, eps=None, out=None):
    """Each channel of each image of x (N, C, H, W) by its own mean and variance; gamma, beta (C,) or (1, C, 1, 1)."""
    return _normalise_groups("(N, C, H, W)", x, gamma, beta, None, "in_param", in_param, eps, out)


def groupnorm_forward(x, gamma, beta, G, gn_param=None, *, eps=None, out=None):
    """Group normalisation: each of G groups of neighbouring columns in each row by its own mean and variance.

    Parameters
    ----------
    x : (N, D) array
    gamma, beta : (D,) arrays
    G : int
        A divisor of D.
    gn_param : dict, optional
        ``{'eps': 1e-5}`` or empty; other keys are ignored.
    eps : float, optional
        Wins over `gn_param`.
    out : array of x's shape, optional

    Returns
    -------
    out : (N, D) array
    cache : tuple for `groupnorm_backward`

    Raises
    ------
    TypeError, ValueError
        For arrays that are not floating-point, shapes that do not fit, and parameters out of range.
    """
    return _normalise_groups("(N, D)", x, gamma, beta, checks.integer("G", G, 1), "gn_param", gn_param, eps, out)


def spatial_groupnorm_forward(x, gamma, beta, G, gn_param=None, *, eps=None, out=None):
    """`groupnorm_forward` of images: x (N, C, H, W); gamma, beta (1, C, 1, 1) or (C,), and so are their gradients."""
    return _normalise_groups("(N, C, H, W)", x, gamma, beta, checks.integer("G", G, 1), "gn_param", gn_param, eps, out)


def groupnorm_backward(dout, cache, *, out=None):
    """Gradients of group, layer and instance normalisation; arguments, results and errors as `batchnorm_backward`."""
    dout, x, gamma, mean, var = checks.floats(
        dout=dout, x=cache.x, gamma=device.reshape(cache.gamma, (cache.gamma.size,)), mean=cache.mean, var=cache.var
    )
    checks.shape("dout", dout, x.shape)
    arrays = dout, x, gamma, mean, var
    direct = checks.buffer(out, x.shape, x.dtype, arrays, in_place=True)
    dx, dgamma, dbeta = floor("norm", x).groupnorm_backward(*arrays, cache.groups, eps=cache.eps, out=direct)
    dx = checks.deliver(dx, direct, out)
    return dx, dgamma.reshape(cache.gamma.shape), dbeta.reshape(cache.beta_shape)


layernorm_backward = spatial_layernorm_backward = spatial_groupnorm_backward = groupnorm_backward
instancenorm_backward = spatial_instancenorm_backward = groupnorm_backward


class BatchNormCache(NamedTuple):
    """What `batchnorm_backward` needs; `training` says whether mean and var came from x."""

    x: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    eps: float
    relu: bool
    training: bool


class BatchNormAddCache(NamedTuple):
    """What `batchnorm_add_relu_backward` needs; out, the output, says where the ReLU let pass."""

    x: np.ndarray
    out: np.ndarray
    gamma: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    eps: float
    training: bool


class GroupNormCache(NamedTuple):
    """What `groupnorm_backward` needs; gamma in the shape it was given."""

    x: np.ndarray
    gamma: np.ndarray
    beta_shape: tuple
    mean: np.ndarray
    var: np.ndarray
    groups: int
    eps: float


def normalise_batch(layout, x, gamma, beta, bn_param, keywords, relu, out, add=None):
    """`batchnorm_forward` of x in `layout`; with `relu` max(0, out), or max(0, out + add), in the same pass."""
    param = checks.parameters("bn_param", bn_param, {"mode": "train"}, **keywords)
    training = checks.choice("mode", checks.required("bn_param", param, "mode"), ("train", "test")) == "train"
    eps = checks.number("eps", param.get("eps", 1e-5), 0)
    momentum = checks.number("momentum", param.get("momentum", 0.9), 0, 1)
    (x,) = checks.floats(x=x)
    checks.rank("x", x, layout)
    running = _running(param, x, training, bn_param is None)
    given = {} if training else running
    x, add, *others = checks.floats(x=x, add=add, gamma=gamma, beta=beta, **given)
    checks.shape("add", add, x.shape)
    checks.shape("gamma", others[0], x.shape[1:2])
    checks.shape("beta", others[1], x.shape[1:2])
    arrays = (x, *others) if add is None else (x, add, *others)
    direct = checks.buffer(out, x.shape, x.dtype, arrays, in_place=True)
    saved = checks.keep(out, x, *others)
    norm = floor("norm", x)
    if add is None:
        forward, inference = norm.batchnorm_forward, norm.batchnorm_inference
    else:
        forward, inference = norm.batchnorm_add_forward, norm.batchnorm_add_inference

    if training:
        result, mean, var = forward(*arrays, eps=eps, relu=relu, out=direct)
        saved = *saved, mean, var
        if x.size:
            new = zip(running.items(), (mean, var), strict=True)
            running = {name: _moved(norm, old, sample, momentum) for (name, old), sample in new}
        _store(running, param, bn_param)
    else:
        result = inference(*arrays, eps=eps, relu=relu, out=direct)
        if bn_param is not None:  # as CS231n: after the first call they are there
            bn_param.update({name: array for name, array in running.items() if name not in param})
    result = checks.deliver(result, direct, out)
    if add is None:
        return result, BatchNormCache(*saved, eps, relu, training)
    x, gamma, _, mean, var = saved
    return result, BatchNormAddCache(x, result, gamma, mean, var, eps, training)


def _running(param, x, training, keywords_only):
    """Running mean and variance by name: those given, or zeros."""
    running = {}
    for name in ("running_mean", "running_var"):
        given = param.get(name)
        if given is None:
            if keywords_only and not training:
                raise ValueError(f"{name}: expected an array in test mode, got None")
            running[name] = device.zeros(x.shape[1], x)
            continue
        (running[name],) = checks.floats(**{name: given})
        checks.shape(name, running[name], x.shape[1:2])
        if keywords_only and training and not _updatable(running[name], given):
            raise ValueError(f"{name}: expected a writable array of native byte order, to be updated in place")
    return running


def _updatable(array, given):
    """Whether `array`, what the checks made of `given`, is that array itself and may be written to."""
    return device.is_device(given) or array is given and given.flags.writeable


def _moved(norm, old, sample, momentum):
    """The running statistic after a batch, of its own dtype."""
    return norm.moving_average(old, sample if sample.dtype == old.dtype else device.copy(sample, old.dtype), momentum)


def _store(running, param, bn_param):
    """Bind the new arrays in bn_param or, without one, write them over the arrays given as keywords."""
    if bn_param is not None:
        bn_param.update(running)
        return
    for name, array in running.items():
        if param.get(name) is not None:
            device.assign(param[name], array)


def _normalise_groups(layout, x, gamma, beta, groups, name, given, eps, out):
    """Group normalisation of x in `layout`; groups None: one for each channel."""
    param = checks.parameters(name, given, {}, eps=eps)
    eps = checks.number("eps", param.get("eps", 1e-5), 0)
    x, gamma, beta = checks.floats(x=x, gamma=gamma, beta=beta)
    checks.rank("x", x, layout)
    C = x.shape[1]
    groups = checks.divisor("G", groups or max(C, 1), C)
    allowed = [(C,)] if x.ndim == 2 else [(C,), (1, C, 1, 1)]
    checks.shape("gamma", gamma, *allowed)
    checks.shape("beta", beta, *allowed)
    arrays = x, device.reshape(gamma, (C,)), device.reshape(beta, (C,))
    direct = checks.buffer(out, x.shape, x.dtype, arrays, in_place=True)
    saved_x, saved_gamma = checks.keep(out, x, gamma)
    result, mean, var = floor("norm", x).groupnorm_forward(*arrays, groups, eps=eps, out=direct)
    return checks.deliver(result, direct, out), GroupNormCache(saved_x, saved_gamma, beta.shape, mean, var, groups, eps)
