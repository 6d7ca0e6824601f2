"""Activations and the residual add."""

import math

import numpy as np
import pytest
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import layers as L

ELEMENTWISE = {
    "relu": (L.relu_forward, lambda v: max(v, 0)),
    "leaky_relu": (L.leaky_relu_forward, lambda v: v if v > 0 else 0.1 * v),
    "elu": (L.elu_forward, lambda v: v if v > 0 else math.expm1(v)),
    "gelu": (L.gelu_forward, lambda v: v * (1 + math.erf(v / math.sqrt(2))) / 2),
    "sigmoid": (L.sigmoid_forward, lambda v: 1 / (1 + math.exp(-v))),
    "tanh": (L.tanh_forward, math.tanh),
}
each_function = pytest.mark.parametrize("forward, formula", ELEMENTWISE.values(), ids=ELEMENTWISE)


@each_function
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 4, 5, 2)])
def test_formula(forward, formula, shape):
    x = spread(*shape)
    out, _ = forward(x)
    assert np.shape(out) == shape
    assert_allclose(out, np.vectorize(formula, otypes=[float])(x), rtol=1e-12)


@each_function
def test_nan_in_nan_out(forward, formula):
    x = np.array([np.nan, 1.0])
    backward = getattr(L, forward.__name__.replace("forward", "backward"))
    out, cache = forward(x)
    assert_array_equal(np.isnan(out), [True, False])
    assert_array_equal(np.isnan(backward(np.ones(2), cache)), [True, False])
    assert_array_equal(np.isnan(backward(np.array([1.0, np.nan]), forward(np.ones(2))[1])), [False, True])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_does_not_overflow(dtype):
    with np.errstate(over="raise", invalid="raise"):
        out, cache = L.sigmoid_forward(np.array([-1000, 1000, -np.inf, np.inf], dtype))
        assert_array_equal(out, [0, 1, 0, 1])
        assert_array_equal(L.sigmoid_backward(np.ones(4, dtype), cache), np.zeros(4))


def test_caches():
    x, slope = spread(3, 4), spread(4, seed=1)
    assert L.relu_forward(x)[1] is x
    for forward in (L.sigmoid_forward, L.tanh_forward):
        out, cache = forward(x)
        assert cache is out
    assert L.leaky_relu_forward(x)[1] == (x, 0.1) and L.elu_forward(x)[1] == (x, 1.0)
    assert L.gelu_forward(x)[1] == (x, "none") and L.maxout_forward(x, 2)[1] == (x, 2)
    cache = L.prelu_forward(x, slope)[1]
    assert cache[0] is x and cache[1] is slope
    memory = x.copy()
    assert L.relu_forward(memory, out=memory)[1] is memory


def test_channels():
    x, slope = spread(2, 4, 3), spread(4, seed=1)
    assert_allclose(L.prelu_forward(x, slope)[0], np.where(x > 0, x, slope[:, None] * x))
    assert_allclose(L.prelu_forward(x, slope[:1])[0], np.where(x > 0, x, slope[0] * x))
    assert_array_equal(L.maxout_forward(x, 2)[0], np.maximum(x[:, ::2], x[:, 1::2]))


def test_add():
    a, b = spread(3, 4), spread(3, 4, seed=1)
    out, cache = L.add_forward(a, b)
    assert_array_equal(out, a + b)
    da, db = L.add_backward(out, cache)
    assert da is db is out
    assert_array_equal(L.add_relu_forward(a, b)[0], np.maximum(a + b, 0))


@pytest.mark.parametrize(
    "error, call, message",
    [
        (TypeError, lambda x: L.leaky_relu_forward(x, "0.1"), "slope: expected a number, got '0.1'"),
        (TypeError, lambda x: L.elu_forward(x, None), "alpha: expected a number, got None"),
        (ValueError, lambda x: L.gelu_forward(x, "exact"), "approximate: expected one of 'none', 'tanh', got 'exact'"),
        (ValueError, lambda x: L.prelu_forward(x, x[0, :2]), r"slope: expected shape \(4,\) or \(1,\), got \(2,\)"),
        (ValueError, lambda x: L.prelu_forward(x[0], x[0]), r"x: expected shape \(N, C, ...\), got \(4,\)"),
        (ValueError, lambda x: L.maxout_forward(x, 3), "pieces: expected a divisor of C = 4, got 3"),
        (ValueError, lambda x: L.maxout_forward(x, 0), "pieces: expected an int of at least 1, got 0"),
        (ValueError, lambda x: L.maxout_forward(x[0], 2), r"x: expected shape \(N, C, ...\), got \(4,\)"),
        (ValueError, lambda x: L.add_forward(x, x[:1]), r"b: expected shape \(3, 4\), got \(1, 4\)"),
    ],
)
def test_bad_arguments(error, call, message):
    with pytest.raises(error, match=f"^{message}"):
        call(spread(3, 4))
