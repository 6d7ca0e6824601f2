"""Pooling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import reference
from fastcnn.layers import (
    avg_pool_backward,
    avg_pool_forward,
    global_avg_pool_backward,
    global_avg_pool_forward,
    max_pool_backward,
    max_pool_forward,
)

PARAM = {"pool_height": 2, "pool_width": 2, "stride": 2}


@settings(max_examples=40, deadline=None, database=None)
@given(
    window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    more=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    padded=st.booleans(),
)
def test_geometry(window, stride, more, padded):
    pad = (window[0] // 2, window[1] // 2) if padded else (0, 0)
    x = spread(2, 3, window[0] + more[0], window[1] + more[1])
    keywords = {"pool_height": window[0], "pool_width": window[1], "stride": stride, "pad": pad}
    width = [(0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])]

    def windows(value):
        padded = np.pad(x, width, constant_values=value)
        return np.lib.stride_tricks.sliding_window_view(padded, window, (2, 3))[:, :, :: stride[0], :: stride[1]]

    out, cache = max_pool_forward(x, **keywords)
    assert_array_equal(out, windows(-np.inf).max(axis=(-1, -2)))
    dout = spread(*out.shape, seed=1)
    dx = max_pool_backward(dout, cache)
    assert_allclose((dx * x).sum(), (dout * out).sum(), atol=1e-12)  # pooling picks: <dout, out> = <dx, x>

    out, cache = avg_pool_forward(x, **keywords)
    assert_allclose(out, windows(0).mean(axis=(-1, -2)), atol=1e-12)
    assert_allclose((avg_pool_backward(dout, cache) * x).sum(), (dout * out).sum(), atol=1e-12)


@pytest.mark.parametrize("planes", [7, 8, 17])
@pytest.mark.parametrize(
    "image, size, stride, pad",
    [
        ((33, 40), 2, 2, 0),  # several bands of rows
        ((40, 33), 3, 2, 1),  # bands that share rows
        ((21, 65), (5, 3), (1, 2), (2, 1)),
        ((50, 31), 2, 5, 0),  # rows between the windows
        ((3, 700), 3, 3, 0),  # rows longer than a band
        ((2, 2), 2, 2, 0),
        ((5, 1), (2, 1), 1, 0),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_planes_and_rows(planes, image, size, stride, pad, dtype):
    """Against the reference, with ties, NaN and infinities among the numbers."""
    size, stride, pad = (v if isinstance(v, tuple) else (v, v) for v in (size, stride, pad))
    rng = np.random.default_rng()
    x = rng.integers(-4, 4, (1, planes, *image)).astype(dtype)
    x[rng.random(x.shape) < 0.02] = np.nan
    x[rng.random(x.shape) < 0.02] = -np.inf
    keywords = {"pool_height": size[0], "pool_width": size[1], "stride": stride, "pad": pad}
    out, cache = max_pool_forward(x, **keywords)
    assert_array_equal(out, reference.pool.max_pool_forward(x, size, stride, pad))
    dout = rng.standard_normal(out.shape).astype(dtype)
    dx = max_pool_backward(dout, cache, out=np.full_like(x, np.nan))
    assert_allclose(dx, reference.pool.max_pool_backward(dout, x, size, stride, pad), atol=1e-5)
    out, cache = avg_pool_forward(x, **keywords)
    assert_allclose(out, reference.pool.avg_pool_forward(x, size, stride, pad), atol=1e-5)
    dx = avg_pool_backward(dout, cache, out=np.full_like(x, np.nan))
    assert_allclose(dx, reference.pool.avg_pool_backward(dout, x.shape, size, stride, pad), atol=1e-5)


def test_dictionary_and_keywords_say_the_same():
    x = spread(2, 3, 6, 6)
    expected = max_pool_forward(x, PARAM)[0]
    assert_array_equal(max_pool_forward(x, pool_height=2, pool_width=2)[0], expected)
    assert_array_equal(max_pool_forward(x, {**PARAM, "name": "pool1"}, stride=(2, 2), pad=0)[0], expected)
    assert_array_equal(max_pool_forward(x, {"stride": 3}, pool_height=2, pool_width=2, stride=2)[0], expected)


def test_cache_is_the_course_s():
    x = spread(2, 3, 6, 6)
    _, cache = max_pool_forward(x, PARAM)
    assert cache[0] is x and cache[1] is PARAM and len(cache) == 2


def test_a_tie_goes_to_the_first_and_padding_never_wins():
    x = np.full((1, 1, 2, 2), -3.0)
    dx = max_pool_backward(np.full((1, 1, 1, 1), 5.0), (x, PARAM))
    assert_array_equal(dx[0, 0], [[5, 0], [0, 0]])
    assert (max_pool_forward(x, {**PARAM, "pad": 1})[0] == -3).all()


def test_global_avg_pool():
    x = spread(2, 3, 4, 5)
    out, cache = global_avg_pool_forward(x)
    assert_allclose(out, x.mean(axis=(2, 3)), atol=1e-12)
    assert_allclose(global_avg_pool_backward(out, cache), np.broadcast_to(out[:, :, None, None] / 20, x.shape))
    with pytest.raises(ValueError, match="^window: expected images"):
        global_avg_pool_forward(np.zeros((2, 3, 0, 5)))
    with pytest.raises(ValueError, match=r"^x: expected shape \(N, C, H, W\), got"):
        global_avg_pool_forward(spread(2, 3, 4))


@pytest.mark.parametrize("forward", [max_pool_forward, avg_pool_forward])
@pytest.mark.parametrize(
    "error, x, param, message",
    [
        (ValueError, spread(3, 4, 4), PARAM, r"x: expected shape \(N, C, H, W\), got"),
        (ValueError, spread(1, 1, 1, 4), PARAM, r"kernel \(2, 2\) .*: expected to fit into the padded image"),
        (ValueError, np.zeros((1, 1, 0, 4)), {**PARAM, "pad": 1}, "window: expected images"),
        (ValueError, spread(1, 1, 4, 4), {**PARAM, "pad": 2}, r"pad: expected at most half the window \(2, 2\), got"),
        (ValueError, spread(1, 1, 4, 4), {**PARAM, "pad": -1}, "pad: expected ints of at least 0, got -1"),
        (ValueError, spread(1, 1, 4, 4), {**PARAM, "stride": 0}, "stride: expected ints of at least 1, got 0"),
        (ValueError, spread(1, 1, 4, 4), {**PARAM, "pool_height": 0}, "pool_height: expected an int of at least 1"),
        (TypeError, spread(1, 1, 4, 4), {**PARAM, "pool_width": 2.0}, "pool_width: expected an int, got 2.0"),
        (ValueError, spread(1, 1, 4, 4), {}, r"pool_param\['pool_height'\] is missing"),
        (ValueError, spread(1, 1, 4, 4), None, r"pool_param\['pool_height'\] is missing"),
        (ValueError, spread(1, 1, 4, 4), {"pool_height": 2}, r"pool_param\['pool_width'\] is missing"),
        (ValueError, spread(1, 1, 4, 4), {"pool_height": 2, "pool_width": 2}, r"pool_param\['stride'\] is missing"),
    ],
)
def test_bad_arguments(forward, error, x, param, message):
    with pytest.raises(error, match=f"^{message}"):
        forward(x, param)
