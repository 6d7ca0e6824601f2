"""Activations and the residual sum: elementwise, one pass over memory; `out` may be the first argument.

The formulas without exponentials stand in `common.activation`; those with them are made of `cpu.vectormath`.
"""

import math

import numpy as np

from fastcnn.common import activation as formula
from fastcnn.cpu.apart import get, put
from fastcnn.cpu.arrays import contiguous, flat, output
from fastcnn.cpu.elementwise import blocks, part
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.vectormath import exp, expm1, normal, sigmoid, tanh

relu, leaky_relu, leaky_relu_derivative = map(jit, (formula.relu, formula.leaky_relu, formula.leaky_relu_derivative))
relu_derivative, leaky_relu_slope_derivative = map(jit, (formula.relu_derivative, formula.leaky_relu_slope_derivative))
replaces = jit(formula.replaces)


def _kernel_of(function):
    """The kernel y = function(x, *numbers) for each element."""

    def task(block, x, numbers, out):
        here, y = part(x, block), part(out, block)
        for i in range(y.size):
            put(y, i, function(get(here, i), *numbers))

    return parallel(task, name=f"{__name__}.{function.__name__}")


def _kernel_of_gradient(derivative):
    """The kernel dx = dout derivative(saved, *numbers) for each element."""

    def task(block, dout, saved, numbers, out):
        gradient, here, dx = part(dout, block), part(saved, block), part(out, block)
        for i in range(dx.size):
            put(dx, i, get(gradient, i) * derivative(get(here, i), *numbers))

    return parallel(task, name=f"{__name__}.{derivative.__name__}")


def _run(kernel, *arrays, numbers=(), out=None):
    """Call an elementwise kernel on flat arrays; numbers take their dtype."""
    first = arrays[0]
    out = output(out, first.shape, first.dtype)
    kernel(blocks(first.size), *map(flat, arrays), tuple(map(first.dtype.type, numbers)), out.reshape(-1))
    return out


def relu_forward(x, out=None):
    """max(x, 0)."""
    return _run(_relu, x, out=out)


def relu_backward(dout, x, out=None):
    """dout where x > 0, else 0."""
    return _run(_relu_gradient, dout, x, out=out)


def leaky_relu_forward(x, slope=0.1, out=None):
    """x where x > 0, else slope x."""
    return _run(_leaky_relu, x, numbers=(slope,), out=out)


def leaky_relu_backward(dout, x, slope=0.1, out=None):
    """dout where x > 0, else slope dout."""
    return _run(_leaky_relu_gradient, dout, x, numbers=(slope,), out=out)


def elu_forward(x, alpha=1.0, out=None):
    """x where x > 0, else alpha (e^x - 1)."""
    return _run(_elu, x, numbers=(alpha,), out=out)


def elu_backward(dout, x, alpha=1.0, out=None):
    """dout where x > 0, else alpha e^x dout."""
    return _run(_elu_gradient, dout, x, numbers=(alpha,), out=out)


def gelu_forward(x, approximate="none", out=None):
    """x Phi(x), or its tanh approximation (`approximate="tanh"`)."""
    return _run(_gelu if approximate == "none" else _gelu_tanh, x, out=out)


def gelu_backward(dout, x, approximate="none", out=None):
    """dout times the derivative of the same form at x."""
    return _run(_gelu_gradient if approximate == "none" else _gelu_tanh_gradient, dout, x, out=out)


def sigmoid_forward(x, out=None):
    """y = 1 / (1 + e^-x)."""
    return _run(_sigmoid, x, out=out)


def sigmoid_backward(dout, y, out=None):
    """dout y (1 - y)."""
    return _run(_sigmoid_gradient, dout, y, out=out)


def tanh_forward(x, out=None):
    """y = tanh x."""
    return _run(_tanh, x, out=out)


def tanh_backward(dout, y, out=None):
    """dout (1 - y^2)."""
    return _run(_tanh_gradient, dout, y, out=out)


def add_forward(a, b, relu=False, out=None):
    """a + b, the sum at the end of a residual block; optionally max(a + b, 0)."""
    out = output(out, a.shape, a.dtype)
    _add_forward(blocks(a.size), flat(a), flat(b), relu, out.reshape(-1))
    return out


def prelu_forward(x, slope, out=None):
    """x where x > 0, else slope x; slope (C,) for the channels of x (N, C, ...), or (1,) for all."""
    out = output(out, x.shape, x.dtype)
    planes = _planes(contiguous(x), slope)
    _prelu_forward(planes.shape[0] * planes.shape[1], planes, contiguous(slope), _planes(out, slope))
    return out


def prelu_backward(dout, x, slope, out=None):
    """dx, and dslope = sum of dout x over the places where x <= 0."""
    out = output(out, x.shape, x.dtype)
    dslope = np.empty_like(slope)
    x = _planes(contiguous(x), slope)
    _prelu_backward(slope.size, _planes(contiguous(dout), slope), x, contiguous(slope), _planes(out, slope), dslope)
    return out, dslope


def maxout_forward(x, pieces, out=None):
    """out (N, C/pieces, ...): channel j is the maximum of x's channels j pieces ... (j + 1) pieces - 1."""
    shape = (x.shape[0], x.shape[1] // pieces, *x.shape[2:])
    out = output(out, shape, x.dtype)
    size, rows = int(np.prod(x.shape[2:])), shape[0] * shape[1]
    _maxout_forward(rows, contiguous(x).reshape(rows, pieces, size), out.reshape(rows, size))
    return out


def maxout_backward(dout, x, pieces, out=None):
    """dx: the gradient goes to the first maximum."""
    out = output(out, x.shape, x.dtype)
    size, rows = int(np.prod(x.shape[2:])), dout.shape[0] * dout.shape[1]
    x3 = contiguous(x).reshape(rows, pieces, size)
    _maxout_backward(rows, contiguous(dout).reshape(rows, size), x3, out.reshape(rows, pieces, size))
    return out


def _planes(x, slope):
    """x as (N, C, S), or as (1, 1, S) where one slope serves all."""
    return x.reshape(1, 1, x.size) if slope.size == 1 else x.reshape(*x.shape[:2], int(np.prod(x.shape[2:])))


@jit(inline=True)
def elu(x, alpha):
    """x for x > 0, else alpha (e^x - 1)."""
    return x if x > 0 else alpha * expm1(x)


@jit(inline=True)
def elu_derivative(x, alpha):
    """1 for x > 0, else alpha e^x."""
    return type(x)(1) if x > 0 else alpha * exp(x)


@jit(inline=True)
def gelu(x):
    """x Phi(x), Phi the normal distribution function."""
    return x * normal(x)[0]


@jit(inline=True)
def gelu_derivative(x):
    """Phi(x) + x phi(x)."""
    distribution, density = normal(x)
    return distribution + x * density


@jit(inline=True)
def gelu_tanh(x):
    """x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3); (1 + tanh u) / 2 is sigmoid(2 u)."""
    root, cubic = type(x)(2 * math.sqrt(2 / math.pi)), type(x)(0.044715)
    return x * sigmoid(root * (x + cubic * x * x * x))


@jit(inline=True)
def gelu_tanh_derivative(x):
    """The derivative of `gelu_tanh`."""
    root, cubic = type(x)(2 * math.sqrt(2 / math.pi)), type(x)(0.044715)
    s = sigmoid(root * (x + cubic * x * x * x))
    return s + x * s * (type(x)(1) - s) * root * (type(x)(1) + type(x)(3) * cubic * x * x)


_relu, _relu_gradient = _kernel_of(relu), _kernel_of_gradient(relu_derivative)
_leaky_relu, _leaky_relu_gradient = _kernel_of(leaky_relu), _kernel_of_gradient(leaky_relu_derivative)
_elu, _elu_gradient = _kernel_of(elu), _kernel_of_gradient(elu_derivative)
_gelu, _gelu_gradient = _kernel_of(gelu), _kernel_of_gradient(gelu_derivative)
_gelu_tanh, _gelu_tanh_gradient = _kernel_of(gelu_tanh), _kernel_of_gradient(gelu_tanh_derivative)
_sigmoid, _sigmoid_gradient = _kernel_of(sigmoid), _kernel_of_gradient(jit(formula.sigmoid_derivative))
_tanh, _tanh_gradient = _kernel_of(tanh), _kernel_of_gradient(jit(formula.tanh_derivative))


@parallel
def _add_forward(block, a, b, rectified, out):
    here, more, y = part(a, block), part(b, block), part(out, block)
    for i in range(y.size):
        total = get(here, i) + get(more, i)
        put(y, i, relu(total) if rectified else total)


@parallel
def _prelu_forward(plane, x, slope, out):
    n, channels = x.shape[:2]
    i, c = plane // channels, plane % channels
    here, y, factor = x[i, c], out[i, c], slope[c]
    for j in range(y.size):
        put(y, j, leaky_relu(get(here, j), factor))


@parallel
def _prelu_backward(c, dout, x, slope, out, dslope):
    n, channels = x.shape[:2]
    total, factor = np.float64(0), slope[c]
    for i in range(n):
        gradient, here, dx = dout[i, c], x[i, c], out[i, c]
        part_total = np.float64(0)
        for j in range(dx.size):
            g, value = get(gradient, j), get(here, j)
            part_total += g * leaky_relu_slope_derivative(value)
            put(dx, j, g * leaky_relu_derivative(value, factor))
        total += part_total
    dslope[c] = total


@parallel
def _maxout_forward(row, x, out):
    best = out[row]
    best[:] = x[row, 0]
    for piece in range(1, x.shape[1]):
        other = x[row, piece]
        for i in range(best.size):
            value, most = get(other, i), get(best, i)
            put(best, i, value if replaces(value, most) else most)


@parallel
def _maxout_backward(row, dout, x, dx):
    pieces, gradient, result = x[row], dout[row], dx[row]
    best, winner = np.empty_like(gradient), np.zeros(gradient.size, np.int32)
    best[:] = pieces[0]
    for piece in range(1, pieces.shape[0]):
        here, number = pieces[piece], np.int32(piece)
        for i in range(best.size):
            value, most = get(here, i), get(best, i)
            better = replaces(value, most)
            put(best, i, value if better else most)
            put(winner, i, number if better else get(winner, i))
    for piece in range(pieces.shape[0]):
        target, zero = result[piece], result.dtype.type(0)
        for i in range(gradient.size):
            put(target, i, get(gradient, i) if get(winner, i) == piece else zero)
