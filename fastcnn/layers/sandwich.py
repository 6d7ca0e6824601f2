"""Layers that often stand together, in one call and, where a kernel exists for it, in one pass over memory.

Arguments, errors and keyword `out` are those of the single layers. Each cache is a tuple of the parts' caches; the
ReLU's cache is its output.
"""

from fastcnn.layers import checks
from fastcnn.layers.activation import relu_backward
from fastcnn.layers.backend import floor
from fastcnn.layers.conv import conv_backward, convolve
from fastcnn.layers.linear import affine, affine_backward, affine_forward
from fastcnn.layers.norm import batchnorm_backward, normalise_batch
from fastcnn.layers.pool import max_pool_backward, max_pool_forward


def affine_relu_forward(x, w, b, *, out=None):
    """max(0, x w + b); returns out, cache."""
    out, fc_cache = affine(x, w, b, relu=True, out=out)
    return out, (fc_cache, out)


def affine_relu_backward(dout, cache, *, need_dx=True, out=None):
    """dx, dw, db."""
    fc_cache, relu_cache = cache
    return affine_backward(relu_backward(dout, relu_cache), fc_cache, need_dx=need_dx, out=out)


def affine_bn_relu_forward(x, w, b, gamma, beta, bn_param=None, *, out=None):
    """max(0, batchnorm(x w + b)); returns out, cache. b may, and should, be None: batchnorm cancels it."""
    a, fc_cache = affine_forward(x, w, b)
    fc_cache = checks.keep(out, *fc_cache)
    out, bn_cache = batchnorm_relu_forward(a, gamma, beta, bn_param, out=out)
    return out, (fc_cache, bn_cache)


def affine_bn_relu_backward(dout, cache, *, need_dx=True, out=None):
    """dx, dw, db, dgamma, dbeta."""
    fc_cache, bn_cache = cache
    da, dgamma, dbeta = batchnorm_backward(dout, bn_cache)
    return *affine_backward(da, fc_cache, need_dx=need_dx, out=out), dgamma, dbeta


def batchnorm_relu_forward(x, gamma, beta, bn_param=None, *, out=None):
    """max(0, batchnorm(x)), x (N, D); returns out, cache."""
    return normalise_batch("(N, D)", x, gamma, beta, bn_param, {}, True, out)


def spatial_batchnorm_relu_forward(x, gamma, beta, bn_param=None, *, out=None):
    """max(0, spatial_batchnorm(x)), x (N, C, H, W); returns out, cache."""
    return normalise_batch("(N, C, H, W)", x, gamma, beta, bn_param, {}, True, out)


batchnorm_relu_backward = spatial_batchnorm_relu_backward = batchnorm_backward


def batchnorm_add_relu_forward(x, add, gamma, beta, bn_param=None, *, out=None):
    """max(0, batchnorm(x) + add), x and add (N, D); returns out, cache. The cache holds out itself."""
    return normalise_batch("(N, D)", x, gamma, beta, bn_param, {}, True, out, add)


def spatial_batchnorm_add_relu_forward(x, add, gamma, beta, bn_param=None, *, out=None):
    """max(0, spatial_batchnorm(x) + add), the end of a residual block, x and add (N, C, H, W); returns out, cache."""
    return normalise_batch("(N, C, H, W)", x, gamma, beta, bn_param, {}, True, out, add)


def batchnorm_add_relu_backward(dout, cache, *, out=None):
    """dx, dadd, dgamma, dbeta; `out` receives dx."""
    names = ("x", "out", "gamma", "mean", "var")
    arrays = checks.floats(dout=dout, **{name: getattr(cache, name) for name in names})
    dout, x = arrays[:2]
    checks.shape("dout", dout, x.shape)
    direct, norm = checks.buffer(out, x.shape, x.dtype, arrays), floor("norm", x)
    backward = norm.batchnorm_add_backward if cache.training else norm.batchnorm_add_inference_backward
    dx, *others = backward(*arrays, eps=cache.eps, relu=True, out=(direct, None))
    return checks.deliver(dx, direct, out), *others


spatial_batchnorm_add_relu_backward = batchnorm_add_relu_backward


def conv_relu_forward(
    x, w, b, conv_param=None, *, stride=None, pad=None, dilation=None, groups=None, algo=None, out=None
):
    """max(0, conv(x)); returns out, cache."""
    keywords = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups, "algo": algo}
    out, conv_cache = convolve(x, w, b, conv_param, True, out, **keywords)
    return out, (conv_cache, out)


def conv_relu_backward(dout, cache, *, need_dx=True, out=None):
    """dx, dw, db."""
    conv_cache, relu_cache = cache
    return conv_backward(relu_backward(dout, relu_cache), conv_cache, need_dx=need_dx, out=out)


def conv_bn_relu_forward(x, w, b, gamma, beta, conv_param, bn_param, *, out=None):
    """max(0, spatial_batchnorm(conv(x))); returns out, cache. b may, and should, be None: batchnorm cancels it."""
    a, (*arrays, param) = convolve(x, w, b, conv_param, False, None)
    conv_cache = (*checks.keep(out, *arrays), param)
    out, bn_cache = spatial_batchnorm_relu_forward(a, gamma, beta, bn_param, out=out)
    return out, (conv_cache, bn_cache)


def conv_bn_relu_backward(dout, cache, *, need_dx=True, out=None):
    """dx, dw, db, dgamma, dbeta."""
    conv_cache, bn_cache = cache
    da, dgamma, dbeta = batchnorm_backward(dout, bn_cache)
    return *conv_backward(da, conv_cache, need_dx=need_dx, out=out), dgamma, dbeta


def conv_relu_pool_forward(x, w, b, conv_param, pool_param, *, out=None):
    """max_pool(max(0, conv(x))); returns out, cache."""
    a, (*arrays, param) = convolve(x, w, b, conv_param, True, None)
    conv_cache = (*checks.keep(out, *arrays), param)
    out, pool_cache = max_pool_forward(a, pool_param, out=out)
    return out, (conv_cache, a, pool_cache)


def conv_relu_pool_backward(dout, cache, *, need_dx=True, out=None):
    """dx, dw, db."""
    conv_cache, relu_cache, pool_cache = cache
    da = max_pool_backward(dout, pool_cache)
    da = relu_backward(da, relu_cache, out=da)
    return conv_backward(da, conv_cache, need_dx=need_dx, out=out)
