"""Activations and the residual sum: elementwise, one pass over memory; `out` may be the first argument.

The formulas, and their sources, stand in `common.activation`.
"""

import numpy as np

from fastcnn.common import activation as formula
from fastcnn.cpu.arrays import contiguous, flat, output
from fastcnn.cpu.elementwise import begin, begin_with, blocks, part
from fastcnn.cpu.jit import jit, parallel, prange

relu, relu_derivative = jit(formula.relu), jit(formula.relu_derivative)
leaky_relu, leaky_relu_derivative = jit(formula.leaky_relu), jit(formula.leaky_relu_derivative)
leaky_relu_slope_derivative = jit(formula.leaky_relu_slope_derivative)
elu, elu_derivative = jit(formula.elu), jit(formula.elu_derivative)
sigmoid, sigmoid_derivative = jit(formula.sigmoid), jit(formula.sigmoid_derivative)
tanh, tanh_derivative = jit(formula.tanh), jit(formula.tanh_derivative)
gelu, gelu_derivative = jit(formula.gelu), jit(formula.gelu_derivative)
gelu_tanh, gelu_tanh_derivative = jit(formula.gelu_tanh), jit(formula.gelu_tanh_derivative)
replaces = jit(formula.replaces)


def _run(kernel, x, *arguments, out):
    """Call kernel(x, ..., out) on flat arrays; numbers among the arguments take x's dtype."""
    out = output(out, x.shape, x.dtype)
    kernel(flat(x), *(flat(a) if isinstance(a, np.ndarray) else x.dtype.type(a) for a in arguments), out.reshape(-1))
    return out


def relu_forward(x, out=None):
    """max(x, 0)."""
    return _run(_relu_forward, x, out=out)


def relu_backward(dout, x, out=None):
    """dout where x > 0, else 0."""
    return _run(_relu_backward, dout, x, out=out)


def leaky_relu_forward(x, slope=0.1, out=None):
    """x where x > 0, else slope x."""
    return _run(_leaky_relu_forward, x, slope, out=out)


def leaky_relu_backward(dout, x, slope=0.1, out=None):
    """dout where x > 0, else slope dout."""
    return _run(_leaky_relu_backward, dout, x, slope, out=out)


def elu_forward(x, alpha=1.0, out=None):
    """x where x > 0, else alpha (e^x - 1)."""
    return _run(_elu_forward, x, alpha, out=out)


def elu_backward(dout, x, alpha=1.0, out=None):
    """dout where x > 0, else alpha e^x dout."""
    return _run(_elu_backward, dout, x, alpha, out=out)


def gelu_forward(x, approximate="none", out=None):
    """x Phi(x), or its tanh approximation (`approximate="tanh"`)."""
    return _run(_gelu_forward if approximate == "none" else _gelu_tanh_forward, x, out=out)


def gelu_backward(dout, x, approximate="none", out=None):
    """dout times the derivative of the same form at x."""
    return _run(_gelu_backward if approximate == "none" else _gelu_tanh_backward, dout, x, out=out)


def sigmoid_forward(x, out=None):
    """y = 1 / (1 + e^-x)."""
    return _run(_sigmoid_forward, x, out=out)


def sigmoid_backward(dout, y, out=None):
    """dout y (1 - y)."""
    return _run(_sigmoid_backward, dout, y, out=out)


def tanh_forward(x, out=None):
    """y = tanh x."""
    return _run(_tanh_forward, x, out=out)


def tanh_backward(dout, y, out=None):
    """dout (1 - y^2)."""
    return _run(_tanh_backward, dout, y, out=out)


def add_forward(a, b, relu=False, out=None):
    """a + b, the sum at the end of a residual block; optionally max(a + b, 0)."""
    out = output(out, a.shape, a.dtype)
    _add_forward(flat(a), flat(b), relu, out.reshape(-1))
    return out


def prelu_forward(x, slope, out=None):
    """x where x > 0, else slope x; slope (C,) for the channels of x (N, C, ...), or (1,) for all."""
    out = output(out, x.shape, x.dtype)
    _prelu_forward(_planes(contiguous(x), slope), contiguous(slope), _planes(out, slope))
    return out


def prelu_backward(dout, x, slope, out=None):
    """dx, and dslope = sum of dout x over the places where x <= 0."""
    out = output(out, x.shape, x.dtype)
    dslope = np.empty_like(slope)
    x = _planes(contiguous(x), slope)
    _prelu_backward(_planes(contiguous(dout), slope), x, contiguous(slope), _planes(out, slope), dslope)
    return out, dslope


def maxout_forward(x, pieces, out=None):
    """out (N, C/pieces, ...): channel j is the maximum of x's channels j pieces ... (j + 1) pieces - 1."""
    shape = (x.shape[0], x.shape[1] // pieces, *x.shape[2:])
    out = output(out, shape, x.dtype)
    size = int(np.prod(x.shape[2:]))
    _maxout_forward(contiguous(x).reshape(shape[0] * shape[1], pieces, size), out.reshape(shape[0] * shape[1], size))
    return out


def maxout_backward(dout, x, pieces, out=None):
    """dx: the gradient goes to the first maximum."""
    out = output(out, x.shape, x.dtype)
    size, rows = int(np.prod(x.shape[2:])), dout.shape[0] * dout.shape[1]
    x3 = contiguous(x).reshape(rows, pieces, size)
    _maxout_backward(contiguous(dout).reshape(rows, size), x3, out.reshape(rows, pieces, size))
    return out


def _planes(x, slope):
    """x as (N, C, S), or as (1, 1, S) where one slope serves all."""
    return x.reshape(1, 1, x.size) if slope.size == 1 else x.reshape(*x.shape[:2], int(np.prod(x.shape[2:])))


@parallel
def _relu_forward(x, out):
    for block in prange(blocks(x.size)):
        y = begin(x, out, block)
        for i in range(y.size):
            y[i] = relu(y[i])


@parallel
def _relu_backward(dout, x, out):
    for block in prange(blocks(x.size)):
        dx, here = begin(dout, out, block), part(x, block)
        for i in range(dx.size):
            dx[i] *= relu_derivative(here[i])


@parallel
def _leaky_relu_forward(x, slope, out):
    for block in prange(blocks(x.size)):
        y = begin(x, out, block)
        for i in range(y.size):
            y[i] = leaky_relu(y[i], slope)


@parallel
def _leaky_relu_backward(dout, x, slope, out):
    for block in prange(blocks(x.size)):
        dx, here = begin(dout, out, block), part(x, block)
        for i in range(dx.size):
            dx[i] *= leaky_relu_derivative(here[i], slope)


@parallel
def _elu_forward(x, alpha, out):
    for block in prange(blocks(x.size)):
        y = begin(x, out, block)
        for i in range(y.size):
            y[i] = elu(y[i], alpha)


@parallel
def _elu_backward(dout, x, alpha, out):
    for block in prange(blocks(x.size)):
        dx, here = begin(dout, out, block), part(x, block)
        for i in range(dx.size):
            dx[i] *= elu_derivative(here[i], alpha)


@parallel
def _gelu_forward(x, out):
    for block in prange(blocks(x.size)):
        y = begin(x, out, block)
        for i in range(y.size):
            y[i] = gelu(y[i])


@parallel
def _gelu_backward(dout, x, out):
    for block in prange(blocks(x.size)):
        dx, here = begin(dout, out, block), part(x, block)
        for i in range(dx.size):
            dx[i] *= gelu_derivative(here[i])


@parallel
def _gelu_tanh_forward(x, out):
    for block in prange(blocks(x.size)):
        y = begin(x, out, block)
        for i in range(y.size):
            y[i] = gelu_tanh(y[i])


@parallel
def _gelu_tanh_backward(dout, x, out):
    for block in prange(blocks(x.size)):
        dx, here = begin(dout, out, block), part(x, block)
        for i in range(dx.size):
            dx[i] *= gelu_tanh_derivative(here[i])


@parallel
def _sigmoid_forward(x, out):
    for block in prange(blocks(x.size)):
        y = begin(x, out, block)
        for i in range(y.size):
            y[i] = sigmoid(y[i])


@parallel
def _sigmoid_backward(dout, y, out):
    for block in prange(blocks(y.size)):
        dx, here = begin(dout, out, block), part(y, block)
        for i in range(dx.size):
            dx[i] *= sigmoid_derivative(here[i])


@parallel
def _tanh_forward(x, out):
    for block in prange(blocks(x.size)):
        y = begin(x, out, block)
        for i in range(y.size):
            y[i] = tanh(y[i])


@parallel
def _tanh_backward(dout, y, out):
    for block in prange(blocks(y.size)):
        dx, here = begin(dout, out, block), part(y, block)
        for i in range(dx.size):
            dx[i] *= tanh_derivative(here[i])


@parallel
def _add_forward(a, b, rectified, out):
    for block in prange(blocks(a.size)):
        y, more = begin(a, out, block), part(b, block)
        for i in range(y.size):
            total = y[i] + more[i]
            y[i] = relu(total) if rectified else total


@parallel
def _prelu_forward(x, slope, out):
    n, channels = x.shape[:2]
    for plane in prange(n * channels):
        i, c = plane // channels, plane % channels
        y, factor = begin_with(x[i, c], out[i, c]), slope[c]
        for j in range(y.size):
            y[j] = leaky_relu(y[j], factor)


@parallel
def _prelu_backward(dout, x, slope, out, dslope):
    n, channels = x.shape[:2]
    for c in prange(channels):
        total, factor = np.float64(0), slope[c]
        for i in range(n):
            dx, here = begin_with(dout[i, c], out[i, c]), x[i, c]
            part_total = np.float64(0)
            for j in range(dx.size):
                part_total += dx[j] * leaky_relu_slope_derivative(here[j])
                dx[j] *= leaky_relu_derivative(here[j], factor)
            total += part_total
        dslope[c] = total


@parallel
def _maxout_forward(x, out):
    for row in prange(x.shape[0]):
        best = begin_with(x[row, 0], out[row])
        for piece in range(1, x.shape[1]):
            other = x[row, piece]
            for i in range(best.size):
                best[i] = other[i] if replaces(other[i], best[i]) else best[i]


@parallel
def _maxout_backward(dout, x, dx):
    for row in prange(x.shape[0]):
        pieces = x[row]
        gradient, result = dout[row], dx[row]
        for i in range(gradient.size):
            winner = 0
            for piece in range(1, pieces.shape[0]):
                if replaces(pieces[piece, i], pieces[winner, i]):
                    winner = piece
            for piece in range(pieces.shape[0]):
                result[piece, i] = gradient[i] if piece == winner else 0
