"""Activations and the residual add.

Unless said, x has any shape, float32 or float64; a forward returns out, of x's shape, and the cache for its backward,
which returns dx. `out`, where given, receives the result and may be x itself (in a backward: dx, and dout). All raise
TypeError for arrays that are not floating-point and ValueError for shapes and parameters that do not fit.
"""

from fastcnn.layers import checks
from fastcnn.layers.backend import floor


def relu_forward(x, *, out=None):
    """max(0, x). The cache is x, or `out` where that lies over x: both say where x > 0."""
    (x,) = checks.floats(x=x)
    result = _apply("relu_forward", x, (), out)
    return result, result if checks.overlap(out, x) else x


def relu_backward(dout, cache, *, out=None):
    """dx = dout where x > 0, else 0."""
    return _backward("relu_backward", dout, cache, (), out)


def leaky_relu_forward(x, slope=0.1, *, out=None):
    """x where x > 0, slope x elsewhere (Maas et al. 2013). The cache is (x, slope)."""
    return _forward("leaky_relu_forward", x, (checks.number("slope", slope),), out)


def leaky_relu_backward(dout, cache, *, out=None):
    """dx = dout where x > 0, slope dout elsewhere."""
    x, slope = cache
    return _backward("leaky_relu_backward", dout, x, (slope,), out)


def prelu_forward(x, slope, *, out=None):
    """Leaky ReLU with learned slopes (He et al. 2015): x (N, C, ...), slope (C,) or (1,). The cache is (x, slope)."""
    x, slope = checks.floats(x=x, slope=slope)
    checks.at_least_2d("x", x)
    checks.shape("slope", slope, (x.shape[1],), (1,))
    direct = checks.buffer(out, x.shape, x.dtype, (x, slope), in_place=True)
    cache = checks.keep(out, x, slope)
    return checks.deliver(floor("activation", x).prelu_forward(x, slope, out=direct), direct, out), cache


def prelu_backward(dout, cache, *, out=None):
    """dx and dslope, of the shape of slope."""
    dout, x, slope = checks.floats(dout=dout, x=cache[0], slope=cache[1])
    checks.shape("dout", dout, x.shape)
    direct = checks.buffer(out, x.shape, x.dtype, (dout, x, slope), in_place=True)
    dx, dslope = floor("activation", x).prelu_backward(dout, x, slope, out=direct)
    return checks.deliver(dx, direct, out), dslope


def elu_forward(x, alpha=1.0, *, out=None):
    """x where x > 0, alpha (exp(x) - 1) elsewhere (Clevert et al. 2015). The cache is (x, alpha)."""
    return _forward("elu_forward", x, (checks.number("alpha", alpha),), out)


def elu_backward(dout, cache, *, out=None):
    """dx = dout where x > 0, alpha exp(x) dout elsewhere."""
    x, alpha = cache
    return _backward("elu_backward", dout, x, (alpha,), out)


def gelu_forward(x, approximate="none", *, out=None):
    """x Phi(x), Phi the normal distribution, or its "tanh" form (Hendrycks & Gimpel 2016).

    The cache is (x, approximate).
    """
    return _forward("gelu_forward", x, (checks.choice("approximate", approximate, ("none", "tanh")),), out)


def gelu_backward(dout, cache, *, out=None):
    """dx = dout (Phi(x) + x Phi'(x))."""
    x, approximate = cache
    return _backward("gelu_backward", dout, x, (approximate,), out)


def sigmoid_forward(x, *, out=None):
    """1 / (1 + exp(-x)), without overflow. The cache is out."""
    (x,) = checks.floats(x=x)
    result = _apply("sigmoid_forward", x, (), out)
    return result, result


def sigmoid_backward(dout, cache, *, out=None):
    """dx = dout y (1 - y), y the cached output."""
    return _backward("sigmoid_backward", dout, cache, (), out)


def tanh_forward(x, *, out=None):
    """tanh(x). The cache is out."""
    (x,) = checks.floats(x=x)
    result = _apply("tanh_forward", x, (), out)
    return result, result


def tanh_backward(dout, cache, *, out=None):
    """dx = dout (1 - y^2), y the cached output."""
    return _backward("tanh_backward", dout, cache, (), out)


def maxout_forward(x, pieces, *, out=None):
    """The maximum of each `pieces` neighbouring channels (Goodfellow et al. 2013). The cache is (x, pieces).

    x (N, C, ...), C divisible by `pieces`; out (N, C/pieces, ...): channel j is the maximum of channels j pieces ....
    """
    pieces = checks.integer("pieces", pieces, 1)
    (x,) = checks.floats(x=x)
    dims = _maxout_shape(x, pieces)
    direct = checks.buffer(out, dims, x.dtype, (x,))
    cache = (*checks.keep(out, x), pieces)
    return checks.deliver(floor("activation", x).maxout_forward(x, pieces, out=direct), direct, out), cache


def maxout_backward(dout, cache, *, out=None):
    """dx: dout goes to the first maximum among its pieces."""
    x, pieces = cache
    dout, x = checks.floats(dout=dout, x=x)
    checks.shape("dout", dout, _maxout_shape(x, pieces))
    direct = checks.buffer(out, x.shape, x.dtype, (dout, x))
    return checks.deliver(floor("activation", x).maxout_backward(dout, x, pieces, out=direct), direct, out)


def add_forward(a, b, *, out=None):
    """a + b, of one shape (no broadcasting). The cache is that shape."""
    result = _add(a, b, False, out)
    return result, result.shape


def add_backward(dout, cache, *, out=None):
    """da, db: both are the same array, which is dout itself unless `out` is given."""
    (dout,) = checks.floats(dout=dout)
    checks.shape("dout", dout, cache)
    checks.buffer(out, cache, dout.dtype, (dout,))
    dx = checks.deliver(dout, None, out)
    return dx, dx


def add_relu_forward(a, b, *, out=None):
    """max(0, a + b) in one pass. The cache is out."""
    result = _add(a, b, True, out)
    return result, result


def add_relu_backward(dout, cache, *, out=None):
    """da, db: both are the same array."""
    dx = relu_backward(dout, cache, out=out)
    return dx, dx


def _forward(op, x, parameters, out):
    """An element-wise op whose cache is (x, *parameters)."""
    (x,) = checks.floats(x=x)
    cache = (*checks.keep(out, x), *parameters)
    return _apply(op, x, parameters, out), cache


def _apply(op, x, parameters, out):
    direct = checks.buffer(out, x.shape, x.dtype, (x,), in_place=True)
    return checks.deliver(getattr(floor("activation", x), op)(x, *parameters, out=direct), direct, out)


def _backward(op, dout, saved, parameters, out):
    """Its gradient; `saved` is x or the output, as the op wants it."""
    dout, saved = checks.floats(dout=dout, cache=saved)
    checks.shape("dout", dout, saved.shape)
    direct = checks.buffer(out, dout.shape, dout.dtype, (dout, saved), in_place=True)
    return checks.deliver(getattr(floor("activation", dout), op)(dout, saved, *parameters, out=direct), direct, out)


def _add(a, b, relu, out):
    a, b = checks.floats(a=a, b=b)
    checks.shape("b", b, a.shape)
    if out is b:  # a sum does not mind, and floors may write over their first argument
        a, b = b, a
    direct = checks.buffer(out, a.shape, a.dtype, (a, b), in_place=True)
    return checks.deliver(floor("activation", a).add_forward(a, b, relu=relu, out=direct), direct, out)


def _maxout_shape(x, pieces):
    checks.at_least_2d("x", x)
    N, C, *rest = x.shape
    return N, C // checks.divisor("pieces", pieces, C), *rest
