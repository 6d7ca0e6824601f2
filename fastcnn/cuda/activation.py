"""Activations and the residual sum: elementwise, one pass over memory; `out` may be the first argument.

The formulas without exponentials stand in `common.activation`.
"""

import math

import numpy as np
from numba import cuda

from fastcnn.common import activation as formula
from fastcnn.cuda.arrays import contiguous, empty, filled, flat, output
from fastcnn.cuda.elementwise import binary, gradient, run, unary
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.reduce import block_sum, fold

PART, PARTS = 4096, 32  # the elements that share a slope are cut into parts of at least so many, and at most so many

relu, leaky_relu, leaky_relu_derivative = map(device, (formula.relu, formula.leaky_relu, formula.leaky_relu_derivative))
leaky_relu_slope_derivative, replaces = map(device, (formula.leaky_relu_slope_derivative, formula.replaces))


def relu_forward(x, out=None):
    """max(x, 0)."""
    return run(_relu, (x,), out=out)


def relu_backward(dout, x, out=None):
    """dout where x > 0, else 0."""
    return run(_relu_gradient, (dout, x), out=out)


def leaky_relu_forward(x, slope=0.1, out=None):
    """x where x > 0, else slope x."""
    return run(_leaky_relu, (x,), (slope,), out)


def leaky_relu_backward(dout, x, slope=0.1, out=None):
    """dout where x > 0, else slope dout."""
    return run(_leaky_relu_gradient, (dout, x), (slope,), out)


def elu_forward(x, alpha=1.0, out=None):
    """x where x > 0, else alpha (e^x - 1)."""
    return run(_elu, (x,), (alpha,), out)


def elu_backward(dout, x, alpha=1.0, out=None):
    """dout where x > 0, else alpha e^x dout."""
    return run(_elu_gradient, (dout, x), (alpha,), out)


def gelu_forward(x, approximate="none", out=None):
    """x Phi(x), or its tanh approximation (`approximate="tanh"`)."""
    return run(_gelu if approximate == "none" else _gelu_tanh, (x,), out=out)


def gelu_backward(dout, x, approximate="none", out=None):
    """dout times the derivative of the same form at x."""
    return run(_gelu_gradient if approximate == "none" else _gelu_tanh_gradient, (dout, x), out=out)


def sigmoid_forward(x, out=None):
    """y = 1 / (1 + e^-x)."""
    return run(_sigmoid, (x,), out=out)


def sigmoid_backward(dout, y, out=None):
    """dout y (1 - y)."""
    return run(_sigmoid_gradient, (dout, y), out=out)


def tanh_forward(x, out=None):
    """y = tanh x."""
    return run(_tanh, (x,), out=out)


def tanh_backward(dout, y, out=None):
    """dout (1 - y^2)."""
    return run(_tanh_gradient, (dout, y), out=out)


def add_forward(a, b, relu=False, out=None):
    """a + b, the sum at the end of a residual block; optionally max(a + b, 0)."""
    return run(_add_relu if relu else _add, (a, b), out=out)


def prelu_forward(x, slope, out=None):
    """x where x > 0, else slope x; slope (C,) for the channels of x (N, C, ...), or (1,) for all."""
    out = output(out, x.shape, x.dtype)
    _prelu_forward.for_each(x.size, flat(x), contiguous(slope), _plane(x, slope), flat(out))
    return out


def prelu_backward(dout, x, slope, out=None):
    """dx, and dslope = sum of dout x over the places where x <= 0."""
    out, dslope = output(out, x.shape, x.dtype), filled(slope.shape, 0, slope.dtype)
    if x.size:
        parts = empty((slope.size, min(PARTS, -(-x.size // (slope.size * PART)))), np.float64)
        _prelu_backward[tuple(parts.shape)](flat(dout), flat(x), contiguous(slope), _plane(x, slope), flat(out), parts)
        fold(parts, dslope)
    return out, dslope


def maxout_forward(x, pieces, out=None):
    """out (N, C/pieces, ...): channel j is the maximum of x's channels j pieces ... (j + 1) pieces - 1."""
    out = output(out, (x.shape[0], x.shape[1] // pieces, *x.shape[2:]), x.dtype)
    _maxout_forward.for_each(out.size, flat(x), np.int32(pieces), np.int32(math.prod(x.shape[2:])), flat(out))
    return out


def maxout_backward(dout, x, pieces, out=None):
    """dx: the gradient goes to the first maximum."""
    out = output(out, x.shape, x.dtype)
    _maxout_backward.for_each(
        dout.size, flat(dout), flat(x), np.int32(pieces), np.int32(math.prod(x.shape[2:])), flat(out)
    )
    return out


def _plane(x, slope):
    """How many neighbouring elements share a slope."""
    return np.int32(x.size if slope.size == 1 else math.prod(x.shape[2:]))


@device
def elu(x, alpha):
    """x for x > 0, else alpha (e^x - 1)."""
    return x if x > 0 else alpha * math.expm1(x)


@device
def exponential_sigmoid(x):
    """1 / (1 + e^-x), without overflow."""
    power = math.exp(-abs(x))
    return (type(x)(1) if x >= 0 else power) / (type(x)(1) + power)


@device
def gelu(x):
    """x Phi(x), Phi the normal distribution function."""
    return x * type(x)(0.5) * math.erfc(-x * type(x)(math.sqrt(0.5)))


@device
def gelu_tanh(x):
    """x (1 + tanh u) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3); (1 + tanh u) / 2 is sigmoid(2 u)."""
    root, cubic = type(x)(2 * math.sqrt(2 / math.pi)), type(x)(0.044715)
    return x * exponential_sigmoid(root * (x + cubic * x * x * x))


@device
def add(a, b):
    """a + b."""
    return a + b


@device
def add_relu(a, b):
    """max(a + b, 0)."""
    return relu(a + b)


@device
def tanh(x):
    """tanh x."""
    return math.tanh(x)


def _elu_derivative(x, alpha):
    """1 for x > 0, else alpha e^x."""
    return type(x)(1) if x > 0 else alpha * math.exp(x)


def _gelu_derivative(x):
    """Phi(x) + x phi(x)."""
    distribution = type(x)(0.5) * math.erfc(-x * type(x)(math.sqrt(0.5)))
    return distribution + x * type(x)(1 / math.sqrt(2 * math.pi)) * math.exp(type(x)(-0.5) * x * x)


def _gelu_tanh_derivative(x):
    """The derivative of `gelu_tanh`."""
    root, cubic = type(x)(2 * math.sqrt(2 / math.pi)), type(x)(0.044715)
    s = exponential_sigmoid(root * (x + cubic * x * x * x))
    return s + x * s * (type(x)(1) - s) * root * (type(x)(1) + type(x)(3) * cubic * x * x)


_relu, _relu_gradient = unary(relu), gradient(formula.relu_derivative)
_leaky_relu, _leaky_relu_gradient = unary(leaky_relu, 1), gradient(formula.leaky_relu_derivative, 1)
_elu, _elu_gradient = unary(elu, 1), gradient(_elu_derivative, 1)
_gelu, _gelu_gradient = unary(gelu), gradient(_gelu_derivative)
_gelu_tanh, _gelu_tanh_gradient = unary(gelu_tanh), gradient(_gelu_tanh_derivative)
_sigmoid, _sigmoid_gradient = unary(exponential_sigmoid), gradient(formula.sigmoid_derivative)
_tanh, _tanh_gradient = unary(tanh), gradient(formula.tanh_derivative)
_add, _add_relu = binary(add), binary(add_relu)


@kernel("T[::1], T[::1], int32, T[::1]")
def _prelu_forward(x, slope, plane, out):
    i = np.int32(cuda.grid(1))
    if i < x.size:
        out[i] = leaky_relu(x[i], slope[i // plane % slope.size])


@kernel("T[::1], T[::1], T[::1], int32, T[::1], float64[:, ::1]")
def _prelu_backward(dout, x, slope, plane, out, parts):
    """Blocks (slope, part): each sums a part of the elements that share a slope."""
    c, piece, factor = cuda.blockIdx.x, cuda.blockIdx.y, slope[cuda.blockIdx.x]
    slopes, total = np.int32(slope.size), np.float64(0)
    step = np.int32(cuda.gridDim.y * cuda.blockDim.x)
    for k in range(np.int32(piece * cuda.blockDim.x + cuda.threadIdx.x), np.int32(x.size) // slopes, step):
        i = (k // plane * slopes + c) * plane + k % plane
        total += dout[i] * leaky_relu_slope_derivative(x[i])
        out[i] = dout[i] * leaky_relu_derivative(x[i], factor)
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        parts[c, piece] = total


@kernel("T[::1], int32, int32, T[::1]")
def _maxout_forward(x, pieces, plane, out):
    i = np.int32(cuda.grid(1))
    if i < out.size:
        first = i // plane * pieces * plane + i % plane
        best = x[first]
        for piece in range(1, pieces):
            value = x[first + piece * plane]
            best = value if replaces(value, best) else best
        out[i] = best


@kernel("T[::1], T[::1], int32, int32, T[::1]")
def _maxout_backward(dout, x, pieces, plane, dx):
    i = np.int32(cuda.grid(1))
    if i < dout.size:
        first, winner = i // plane * pieces * plane + i % plane, 0
        best = x[first]
        for piece in range(1, pieces):
            value = x[first + piece * plane]
            if replaces(value, best):
                best, winner = value, piece
        for piece in range(pieces):
            dx[first + piece * plane] = dout[i] if piece == winner else dout.dtype.type(0)
