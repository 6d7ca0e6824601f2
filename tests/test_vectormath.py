"""Exponentials as straight code, against those of NumPy and libm in higher precision."""

import math

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fastcnn.cpu import vectormath

erfc = np.vectorize(math.erfc, otypes=[np.float64])

# Function: (what it approximates, the range it is for, the largest error in units in the last place)
FUNCTIONS = {
    "exp": (np.exp, (-87, 0), 2),
    "expm1": (np.expm1, (-100, 0), 2),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), (-80, 80), 4),
    "tanh": (np.tanh, (-30, 30), 4),
    "log1p": (np.log1p, (0, 1), 4),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def applied(function, x):
    """function(x) for each element, in a compiled loop."""

    @numba.njit
    def loop(x, y):
        for i in range(x.size):
            y[i] = function(x[i])
        return y

    return loop(x, np.empty_like(x))


def units(y, exact):
    """The largest distance of y from the exact values, in units in the last place of y's dtype."""
    unit = np.spacing(np.abs(exact).astype(y.dtype))
    return (np.abs(y.astype(np.longdouble) - exact) / unit).max()


@each_function
@each_dtype
def test_error(name, dtype):
    exact, (low, high), limit = FUNCTIONS[name]
    low, high = (8 * low, high) if (name, dtype) == ("exp", np.float64) else (low, high)
    rng = np.random.default_rng()
    for scale in (1, 0.1, 1e-2, 1e-6):
        x = rng.uniform(scale * low, scale * high, 20_000).astype(dtype)
        y = applied(getattr(vectormath, name), x)
        assert y.dtype == dtype
        # where long doubles are no longer than doubles, the reference has errors of its own
        assert units(y, exact(x.astype(np.longdouble))) < limit + (dtype == np.float64), scale


@each_dtype
def test_normal(dtype):
    """To the right of 0, and in the far left where Phi is nearly 0."""

    @numba.njit
    def loop(x, y, z):
        for i in range(x.size):
            y[i], z[i] = vectormath.normal(x[i])

    rng = np.random.default_rng()
    for low, high in ((-3, 8), (-12, -3), (-1e-3, 1e-3)):
        x = rng.uniform(low, high, 5000).astype(dtype)
        y, z = np.empty_like(x), np.empty_like(x)
        loop(x, y, z)
        wide = x.astype(np.longdouble)
        # libm's argument, -x / sqrt 2, is rounded, which in the far left costs up to x^2 units
        limit = 8 if dtype == np.float32 else 8 + 2 * low * low
        assert units(y, erfc(-wide / np.sqrt(np.longdouble(2))) / 2) < limit
        assert units(z, np.exp(-wide * wide / 2) / np.sqrt(2 * np.longdouble(math.pi))) < 8


@each_dtype
def test_ends_of_the_range(dtype):
    end = np.array([-np.inf, np.finfo(dtype).min, 0.0, np.nan], dtype)
    assert_array_equal(applied(vectormath.exp, end), np.array([0, 0, 1, np.nan]))
    assert_array_equal(applied(vectormath.expm1, end), np.array([-1, -1, 0, np.nan]))
    both = np.concatenate([end, -end])
    assert_array_equal(applied(vectormath.sigmoid, both), np.array([0, 0, 0.5, np.nan, 1, 1, 0.5, np.nan]))
    assert_array_equal(applied(vectormath.tanh, both), np.array([-1, -1, 0, np.nan, 1, 1, 0, np.nan]))

    @numba.njit
    def distribution(x):
        return vectormath.normal(x)[0]

    assert_array_equal(applied(distribution, both), np.array([0, 0, 0.5, np.nan, 1, 1, 0.5, np.nan]))


@each_dtype
def test_order(dtype):
    """Whole numbers in the order of the floats, and back."""
    x = np.array([-np.inf, np.finfo(dtype).min, -1.5, -1, -1e-30, 0, 1e-40, 1e-30, 1, 1.5, np.inf, np.nan], dtype)

    @numba.njit
    def loop(x, order, y):
        for i in range(x.size):
            order[i] = vectormath.order_of(x[i])
            y[i] = vectormath.float_of_order(vectormath.order_of(x[i]))

    order, y = np.empty(x.size, np.int64), np.empty_like(x)
    loop(x, order, y)
    assert (np.diff(order) > 0).all()
    assert_array_equal(y, x)
    for value in x:  # the stand-ins
        whole = vectormath._order_of_python(value)
        assert whole == order[np.flatnonzero((x == value) | (np.isnan(x) & np.isnan(value)))[0]]
        assert_array_equal(vectormath._float_of_order_python(whole), value)


@each_dtype
def test_stand_ins(dtype):
    """Scaling and rounding as Python does them."""
    x = dtype(1.3)
    assert vectormath._scale_python(x, dtype(-5)) == x * dtype(2.0**-5)
    for value in (-2.5, -0.5, 0.49, 0.5, 1.5, 7.0):
        assert vectormath._nearest_python(dtype(value)) == np.rint(dtype(value))
    assert type(vectormath._muladd_of_python(x, x, x)) is dtype
