"""Activations and the residual add.

Sources: ReLU: Nair & Hinton 2010; leaky ReLU: Maas, Hannun, Ng 2013; PReLU: He et al., "Delving deep into rectifiers"
2015; ELU: Clevert, Unterthiner, Hochreiter 2015; GELU: Hendrycks & Gimpel 2016; maxout: Goodfellow et al. 2013; sigmoid
and tanh: Goodfellow, Bengio, Courville, "Deep Learning" (2016), section 6.3; residual add: He et al. 2016.

Arrays have any shape unless said. A backward returns dx = dout f'(x), where y is the saved output f(x) and the
derivative at a NaN is NaN, so that a NaN in either shows.
"""

import math

import numpy as np

from fastcnn.reference._arrays import deliver

_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def relu_forward(x, out=None):
    """max(0, x)."""
    return deliver(np.maximum(x, 0), out, x.dtype)


def relu_backward(dout, x, out=None):
    """dx = dout where x > 0, 0 where x <= 0."""
    return deliver(dout * _derivative(x, 0), out, dout.dtype)


def leaky_relu_forward(x, slope=0.1, out=None):
    """x where x > 0, slope x elsewhere."""
    return deliver(np.where(x > 0, x, slope * x), out, x.dtype)


def leaky_relu_backward(dout, x, slope=0.1, out=None):
    """dx = dout where x > 0, slope dout where x <= 0."""
    return deliver(dout * _derivative(x, slope), out, dout.dtype)


def prelu_forward(x, slope, out=None):
    """Leaky ReLU with learned slopes: x (N, C, ...), slope (C,), one per channel, or (1,)."""
    return leaky_relu_forward(x, _per_channel(slope, x), out)


def prelu_backward(dout, x, slope, out=None):
    """dx as for leaky ReLU, and dslope = the sum of dout min(0, x) over all axes that share a slope."""
    shared = (0, *range(2, x.ndim)) if slope.size > 1 else None
    dslope = (dout * np.minimum(x, 0)).sum(axis=shared, dtype=np.float64).reshape(slope.shape)
    return leaky_relu_backward(dout, x, _per_channel(slope, x), out), deliver(dslope, None, dout.dtype)


def elu_forward(x, alpha=1.0, out=None):
    """x where x > 0, alpha (exp(x) - 1) elsewhere."""
    return deliver(np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))), out, x.dtype)


def elu_backward(dout, x, alpha=1.0, out=None):
    """dx = dout where x > 0, alpha exp(x) dout where x <= 0."""
    return deliver(dout * _derivative(x, alpha * np.exp(np.minimum(x, 0))), out, dout.dtype)


def gelu_forward(x, approximate="none", out=None):
    """x Phi(x), Phi the standard normal distribution; "tanh": Phi = (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2."""
    Phi, _ = _normal_distribution(x, approximate)
    return deliver(x * Phi, out, x.dtype)


def gelu_backward(dout, x, approximate="none", out=None):
    """dx = dout (Phi(x) + x Phi'(x))."""
    Phi, dPhi = _normal_distribution(x, approximate)
    return deliver(dout * (Phi + x * dPhi), out, dout.dtype)


def sigmoid_forward(x, out=None):
    """1 / (1 + exp(-x)), written as exp(x) / (1 + exp(x)) for x < 0: no exponent is positive, nothing overflows."""
    e = np.exp(-np.abs(x))
    return deliver(np.where(x < 0, e, 1) / (1 + e), out, x.dtype)


def sigmoid_backward(dout, y, out=None):
    """dx = dout y (1 - y), y = sigmoid(x)."""
    return deliver(dout * y * (1 - y), out, dout.dtype)


def tanh_forward(x, out=None):
    """tanh(x)."""
    return deliver(np.tanh(x), out, x.dtype)


def tanh_backward(dout, y, out=None):
    """dx = dout (1 - y^2), y = tanh(x)."""
    return deliver(dout * (1 - y * y), out, dout.dtype)


def maxout_forward(x, pieces, out=None):
    """out[:, j] = max of x[:, j pieces], ..., x[:, j pieces + pieces - 1]; x (N, C, ...), out (N, C/pieces, ...)."""
    return deliver(_pieces(x, pieces).max(axis=2), out, x.dtype)


def maxout_backward(dout, x, pieces, out=None):
    """dx: dout goes to the first maximum among its pieces (the first NaN, if there is one), 0 to the others."""
    x_pieces = _pieces(x, pieces)
    dx = np.zeros(x_pieces.shape, dout.dtype)
    np.put_along_axis(dx, x_pieces.argmax(axis=2, keepdims=True), dout[:, :, None], axis=2)
    return deliver(dx.reshape(x.shape), out, dout.dtype)


def add_forward(a, b, relu=False, out=None):
    """a + b; with `relu`, max(0, a + b)."""
    y = a + b
    return deliver(np.maximum(y, 0) if relu else y, out, a.dtype)


def _derivative(x, low):
    """1 where x > 0, `low` where x <= 0, NaN where x is NaN."""
    return np.where(x <= 0, low, np.sign(x))


def _per_channel(a, x):
    """a, (C,) or (1,), shaped to broadcast along axis 1 of x (N, C, ...)."""
    return a.reshape(1, -1, *(1,) * (x.ndim - 2))


def _normal_distribution(x, approximate):
    """Phi(x) and Phi'(x) in float64, exact ("none") or GELU's approximation ("tanh")."""
    x = x.astype(np.float64)
    if approximate == "none":  # erfc and not erf: Phi stays accurate far to the left, where it is nearly 0
        return _erfc(-x / math.sqrt(2)) / 2, np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return (1 + t) / 2, (1 - t * t) / 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)


def _pieces(x, pieces):
    """(N, C, ...) as (N, C/pieces, pieces, ...)."""
    N, C, *rest = x.shape
    return x.reshape(N, C // pieces, pieces, *rest)
