"""Convolution on the CPU floor: each algorithm against the reference, with geometries on either side of its blocks."""

import sys

import numpy as np
import pytest
from conv_support import around, check_passes, limit
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastcnn import shapes
from fastcnn.common.convolution import ALGORITHMS, WINOGRAD, applies
from fastcnn.common.geometry import output_shape
from fastcnn.cpu import conv
from fastcnn.cpu.conv import choose
from fastcnn.cpu.conv.direct import AT_ONCE, LINE
from fastcnn.cpu.gemm import DEPTH
from fastcnn.cpu.microkernel import ROWS, columns, lanes
from fastcnn.reference import conv as reference
from fastcnn.validate import relative_error

WHOLE = {"direct", "im2col", "depthwise"}  # the algorithms that multiply and add the given numbers and no others

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


def whole(rng, *shape, dtype):
    """Small whole numbers: their products and sums are exact in float32, so any order of summation gives the same."""
    return rng.integers(-4, 5, shape).astype(dtype)


def assert_agrees(algo, got, expected):
    """Exactly, where the algorithm computes with whole numbers only."""
    if algo in WHOLE:
        assert_array_equal(got, expected)
    assert relative_error(got, expected) <= (1e-5 if got.dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("algo", ["auto", *ALGORITHMS])
@given(
    images=st.integers(0, 3),
    groups=st.sampled_from([1, 1, 2, 5]),
    channels=st.sampled_from([1, 2, 7, 33]),
    filters=st.sampled_from([1, 3, 8, 17]),
    kernel=pairs,
    stride=pairs,
    pad=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    dilation=pairs,
    more=st.tuples(st.integers(0, 20), st.integers(0, 40)),
    dtype=st.sampled_from([np.float32, np.float64]),
    relu=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_geometry(algo, images, groups, channels, filters, kernel, stride, pad, dilation, more, dtype, relu):
    rng = np.random.default_rng([images, groups, channels, filters])
    size = [max(1, d * (k - 1) + 1 - 2 * p) + m for d, k, p, m in zip(dilation, kernel, pad, more, strict=True)]
    x = whole(rng, images, groups * channels, *size, dtype=dtype)
    w = whole(rng, groups * filters, channels, *kernel, dtype=dtype)
    b, geometry = whole(rng, groups * filters, dtype=dtype), (stride, pad, dilation, groups)
    out = np.full((images, groups * filters, *output_shape(size, kernel, *geometry[:3])), np.nan, dtype)
    add = whole(rng, *out.shape, dtype=dtype)
    for addend in (None, add):
        conv.conv_forward(x, w, b, *geometry, relu=relu, algo=algo, add=addend, out=out)
        assert_agrees(algo, out, reference.conv_forward(x, w, b, *geometry, relu=relu, add=addend))
    out, mean, var = conv.conv_moments_forward(x, w, None, *geometry, algo=algo, out=np.full_like(out, np.nan))
    exact = reference.conv_moments_forward(*(a.astype(np.float64) for a in (x, w)), None, *geometry)
    assert_agrees(algo, out, exact[0])
    for got, expected, scale in ((mean, exact[1], np.sqrt(exact[2]) + abs(exact[1])), (var, exact[2], exact[2] + 1)):
        assert (abs(got - expected) <= (1e-5 if dtype == np.float32 else 1e-12) * scale).all()

    dout = whole(rng, *out.shape, dtype=dtype)
    dx = conv.conv_backward_input(dout, w, x.shape, *geometry, algo=algo, out=np.full_like(x, np.nan))
    assert_agrees(algo, dx, reference.conv_backward_input(dout, w, x.shape, *geometry))
    dw = conv.conv_backward_filter(dout, x, w.shape, *geometry, algo=algo, out=np.full_like(w, np.nan))
    assert_agrees(algo, dw, reference.conv_backward_filter(dout, x, w.shape, *geometry))

    windows = (kernel, stride, pad, dilation)
    cols = conv.im2col(x, *windows)
    assert_array_equal(cols, reference.im2col(x, *windows))
    assert_array_equal(conv.col2im(cols, x.shape, *windows), reference.col2im(cols, x.shape, *windows))


# Channels or filters, and pixels of a batch, on either side of every block.
COUNTS = around(1, ROWS, lanes("float32"), columns("float32"), AT_ONCE, DEPTH)
PLACES = [*around(1, columns("float32"), 4 * columns("float32")), *around(LINE, 2 * LINE)]


@pytest.mark.parametrize("algo", ["direct", "im2col"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
@given(channels=st.sampled_from(COUNTS), filters=st.sampled_from(COUNTS), places=st.sampled_from(PLACES), one=pairs)
@settings(max_examples=20, deadline=None, database=None)
def test_sizes_around_blocks(algo, kernel, channels, filters, places, one):
    """Blocks that are full, and one channel, filter or pixel more or less."""
    if one[0] == 1:
        channels = min(channels, 9)  # else most examples are large
    stride = 1 + one[1] // 4
    x_shape = 1, channels, kernel[0] + one[0] - 1, (places - 1) * stride + kernel[1]
    check_passes(algo, x_shape, (filters, channels, *kernel), stride=(1, stride))


@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
@pytest.mark.parametrize("w_shape", [(3, 0, 3, 3), (3, 0, 1, 1), (0, 4, 3, 3), (0, 4, 1, 1)])
def test_direct_without_channels_or_filters(w_shape, stride):
    check_passes("direct", (2, w_shape[1], 7, 6), w_shape, stride)


@given(
    channels=st.integers(1, 5),
    several=st.integers(1, 3),
    kernel=pairs,
    stride=pairs,
    pad=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    dilation=pairs,
    more=st.tuples(st.integers(0, 20), st.integers(0, 150)),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=60, deadline=None, database=None)
def test_depthwise(channels, several, kernel, stride, pad, dilation, more, dtype):
    size = [max(1, d * (k - 1) + 1 - 2 * p) + m for d, k, p, m in zip(dilation, kernel, pad, more, strict=True)]
    w_shape = channels * several, 1, *kernel
    check_passes("depthwise", (2, channels, *size), w_shape, stride, pad, dilation, channels, dtype)


# ---- real networks

MOST = 1.2e8  # multiply-adds of a layer here; `fastcnn validate --thorough` has them all


@pytest.mark.parametrize("network", shapes.networks())
def test_layers_of_real_networks(network):
    """One image, every pass by every algorithm that takes the layer, within its own limit, in both dtypes."""
    rng, met = np.random.default_rng(0), set()
    for s in shapes.load(network):
        stride, pad = (s.stride, s.stride), (s.pad, s.pad)
        x = rng.standard_normal((1, s.channels, s.height, s.width)).astype(np.float32).astype(np.float64)
        w = rng.standard_normal((s.filters, s.channels, s.kernel, s.kernel)).astype(np.float32).astype(np.float64)
        windows = output_shape(x.shape[2:], w.shape[2:], stride, pad, (1, 1))
        if w.size * windows[0] * windows[1] > MOST:
            continue
        dout = rng.standard_normal((1, s.filters, *windows)).astype(np.float32).astype(np.float64)
        passes = [
            ("conv_forward", lambda x, w, dout: (x, w, None)),
            ("conv_backward_input", lambda x, w, dout: (dout, w, x.shape)),
            ("conv_backward_filter", lambda x, w, dout: (dout, x, w.shape)),
        ]
        for name, arguments in passes:
            exact = getattr(reference, name)(*arguments(x, w, dout), stride, pad)
            for algo in (algo for algo in ALGORITHMS if applies(algo, w.shape, stride, pad, (1, 1), 1)):
                met.add(algo)
                for dtype in (np.float32, np.float64):
                    given = arguments(*(a.astype(dtype) for a in (x, w, dout)))
                    got = getattr(conv, name)(*given, stride, pad, algo=algo)
                    assert relative_error(got, exact) <= limit(algo, dtype), (s.layer, name, algo, dtype)
    kinds = {(s.kernel, s.stride) for s in shapes.load(network)}
    fitting = {name for name, (_, taps, stride) in WINOGRAD.items() if (taps, stride) in kinds}
    assert fitting and met - {"depthwise"} == {"direct", "im2col"} | fitting


# ---- what is promised of every algorithm


def test_every_algorithm_has_a_module():
    assert tuple(choose.MODULES) == ALGORITHMS
    assert len(set(choose.MODULES.values())) == len(ALGORITHMS)
    for module in choose.MODULES.values():
        assert all(callable(getattr(module, name)) for name in ("forward", "backward_input", "backward_filter"))


def geometry_for(algo):
    """w_shape and geometry of a small convolution of 8 channels that the algorithm takes, with pad 1."""
    if algo == "depthwise":
        return (16, 1, 3, 3), ((1, 1), (1, 1), (1, 1), 8)
    _, taps, stride = WINOGRAD.get(algo, (None, 3, 1))
    return (11, 8, taps, taps), ((stride, stride), (1, 1), (1, 1), 1)


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_shows(algo, value):
    """In one element of any input: not finite wherever the reference is not. Winograd may spread it, within tiles."""
    rng, (w_shape, geometry) = np.random.default_rng(0), geometry_for(algo)
    x, w = rng.standard_normal((2, 8, 13, 14), np.float32), rng.standard_normal(w_shape, np.float32)
    shape = reference.conv_forward(x, w, None, *geometry).shape
    dout, b = rng.standard_normal(shape, np.float32), rng.standard_normal(len(w), np.float32)
    calls = [
        ("conv_forward", (x, w, b), {}),
        ("conv_forward", (x, w, b), {"relu": True}),
        ("conv_forward", (x, w, None), {"add": dout, "relu": True}),
        ("conv_moments_forward", (x, w, b), {}),
        ("conv_backward_input", (dout, w, x.shape), {}),
        ("conv_backward_filter", (dout, x, w.shape), {}),
    ]
    for name, arguments, options in calls:
        for array in (a for a in (*arguments, *options.values()) if isinstance(a, np.ndarray)):
            place = tuple(rng.integers(0, array.shape))
            before, array[place] = array[place], value
            with np.errstate(invalid="ignore"):
                exact = getattr(reference, name)(*arguments, *geometry, **options)
            got = getattr(conv, name)(*arguments, *geometry, algo=algo, **options)
            for g, e in zip(got, exact, strict=True) if isinstance(got, tuple) else [(got, exact)]:
                assert not np.isfinite(g[~np.isfinite(e)]).any(), (name, place)
                if algo in ("direct", "im2col") and array is not w:  # that times the zeros of the padding is NaN, too
                    assert_array_equal(np.isfinite(g), np.isfinite(e), (name, place))
            array[place] = before


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("dtype, most", [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_moments_of_large_means(algo, dtype, most):
    """Mean 1e3 and deviation 1: squares that cancel would leave nothing of the variance in float32."""
    rng, (w_shape, geometry) = np.random.default_rng(0), geometry_for(algo)
    x, w = rng.standard_normal((5, 8, 27, 30)).astype(dtype), rng.standard_normal(w_shape).astype(dtype)
    w /= np.sqrt(w[0].size)
    b = np.full(len(w), 1e3, dtype)
    out, mean, var = conv.conv_moments_forward(x, w, b, *geometry, algo=algo)
    exact = out.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 2, 3)), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(var, exact.var((0, 2, 3)), rtol=most)
    assert (0.3 < var).all() and (var < 3).all()


# ---- memory


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
def test_stays_within_its_buffers(run_python):
    """Random geometries, every array flush against a guard page."""
    run_python(
        """
        import numpy as np
        from guarded import SIDES, guarded
        from fastcnn.common.convolution import ALGORITHMS, WINOGRAD
        from fastcnn.common.geometry import output_shape
        from fastcnn.cpu import conv

        rng = np.random.default_rng(0)
        for turn in range(150):
            algo = ALGORITHMS[turn % len(ALGORITHMS)]
            kernel, stride, pad, dilation = (tuple(map(int, rng.integers(low, 4, 2))) for low in (1, 1, 0, 1))
            images, groups, channels, filters = map(int, rng.integers(1, (4, 3, 12, 12)))
            if algo in WINOGRAD:
                _, taps, step = WINOGRAD[algo]
                stride, dilation, groups = (step, step), (1, 1), 1
                kernel, pad = (taps, taps), tuple(min(p, taps - 1) for p in pad)
            if algo == "depthwise":
                groups, channels = channels, 1
            more = rng.integers(0, 30, 2)
            size = [max(1, d * (k - 1) + 1 - 2 * p) + m for d, k, p, m in zip(dilation, kernel, pad, more)]
            x, w = np.ones((images, groups * channels, *size)), np.ones((groups * filters, channels, *kernel))
            b, windows = np.zeros(groups * filters), (kernel, stride, pad, dilation)
            dout = np.ones((images, groups * filters, *output_shape(size, *windows)))
            cols = np.ones((images, groups * channels * kernel[0] * kernel[1], dout[0, 0].size))
            for side in SIDES:
                x_, w_, b_, dout_, cols_ = (guarded(a.astype(np.float32), side) for a in (x, w, b, dout, cols))
                geometry = (stride, pad, dilation, groups)

                def new(like):
                    return guarded(np.full_like(like, np.nan), side)

                for result in (
                    conv.conv_forward(x_, w_, b_, *geometry, algo=algo, out=new(dout_)),
                    conv.conv_forward(x_, w_, b_, *geometry, algo=algo, relu=True, add=dout_, out=new(dout_)),
                    *conv.conv_moments_forward(x_, w_, None, *geometry, algo=algo, out=new(dout_)),
                    conv.conv_backward_input(dout_, w_, x.shape, *geometry, algo=algo, out=new(x_)),
                    conv.conv_backward_filter(dout_, x_, w.shape, *geometry, algo=algo, out=new(w_)),
                    conv.conv_backward_bias(dout_, out=new(b_)),
                    conv.im2col(x_, *windows, out=new(cols_)),
                    conv.col2im(cols_, x.shape, *windows, out=new(x_)),
                ):
                    assert not np.isnan(result).any()
        """,
        timeout=500,
    )
