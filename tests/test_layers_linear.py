"""The affine layer and flattening."""

import numpy as np
import pytest
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn.layers import affine_backward, affine_forward, affine_relu_forward, flatten_backward, flatten_forward


def test_affine():
    x, w, b = spread(3, 2, 4), spread(8, 5, seed=1), spread(5, seed=2)
    out, cache = affine_forward(x, w, b)
    assert_allclose(out, x.reshape(3, 8) @ w + b)
    assert all(cached is given for cached, given in zip(cache, (x, w, b), strict=True))
    dout = spread(3, 5, seed=3)
    dx, dw, db = affine_backward(dout, (x, w, b))
    assert_allclose(dx, (dout @ w.T).reshape(3, 2, 4))
    assert_allclose(dw, x.reshape(3, 8).T @ dout)
    assert_allclose(db, dout.sum(axis=0))
    assert affine_backward(dout, cache, need_dx=False)[0] is None


def test_affine_without_bias():
    x, w = spread(3, 8), spread(8, 5, seed=1)
    out, cache = affine_forward(x, w, None)
    assert_allclose(out, x @ w)
    assert affine_backward(out, cache)[2] is None


@pytest.mark.parametrize(
    "x, w, b, message",
    [
        (spread(8), spread(8, 5), spread(5), r"x: expected shape \(N, C, ...\), got \(8,\)"),
        (spread(3, 7), spread(8, 5), spread(5), r"w: expected shape \(7, 5\), got \(8, 5\)"),
        (spread(3, 8), spread(8), spread(5), r"w: expected shape \(D, M\), got \(8,\)"),
        (spread(3, 8), spread(8, 5), spread(4), r"b: expected shape \(5,\), got \(4,\)"),
        (spread(3, 8), spread(8, 5), spread(1, 5), r"b: expected shape \(5,\), got \(1, 5\)"),
    ],
)
def test_bad_shapes(x, w, b, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        affine_forward(x, w, b)


def test_flatten():
    x = spread(3, 2, 4)
    out, cache = flatten_forward(x)
    assert_array_equal(out, x.reshape(3, 8))
    assert np.shares_memory(out, x) and cache == x.shape
    assert_array_equal(flatten_backward(out, cache), x)
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, C, ...\), got \(3,\)"):
        flatten_forward(spread(3))


@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize("d, m", [(0, 3), (1, 1), (257, 300), (1027, 1), (3, 1030)])
@pytest.mark.parametrize("dtype, limit", [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_few_rows_and_odd_sizes(n, d, m, dtype, limit):
    rng = np.random.default_rng()
    x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((n, d), (d, m), (m,)))
    expected = x.astype(np.float64) @ w.astype(np.float64) + b
    limit *= np.linalg.norm(np.abs(x) @ np.abs(w) + np.abs(b))  # a single sum may cancel
    out = np.full((n, m), np.nan, dtype)
    affine_forward(x, w, b, out=out)
    assert np.linalg.norm(out - expected) <= limit
    out = affine_relu_forward(x, w, b)[0]
    assert np.linalg.norm(out - np.maximum(expected, 0)) <= limit
