"""Convolution on the CPU floor: each algorithm against the reference, with geometries on either side of its blocks."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastcnn.common.convolution import ALGORITHMS
from fastcnn.common.geometry import output_shape
from fastcnn.cpu import conv
from fastcnn.reference import conv as reference
from fastcnn.validate import relative_error

WHOLE = {"direct", "im2col"}  # the algorithms that multiply and add the given numbers and no others

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
    conv.conv_forward(x, w, b, *geometry, relu=relu, algo=algo, out=out)
    assert_agrees(algo, out, reference.conv_forward(x, w, b, *geometry, relu=relu))

    dout = whole(rng, *out.shape, dtype=dtype)
    dx = conv.conv_backward_input(dout, w, x.shape, *geometry, algo=algo, out=np.full_like(x, np.nan))
    assert_agrees(algo, dx, reference.conv_backward_input(dout, w, x.shape, *geometry))
    dw = conv.conv_backward_filter(dout, x, w.shape, *geometry, algo=algo, out=np.full_like(w, np.nan))
    assert_agrees(algo, dw, reference.conv_backward_filter(dout, x, w.shape, *geometry))

    windows = (kernel, stride, pad, dilation)
    cols = conv.im2col(x, *windows)
    assert_array_equal(cols, reference.im2col(x, *windows))
    assert_array_equal(conv.col2im(cols, x.shape, *windows), reference.col2im(cols, x.shape, *windows))


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
def test_stays_within_its_buffers(run_python):
    """Random geometries, every array flush against a guard page."""
    run_python("""
        import numpy as np
        from guarded import SIDES, guarded
        from fastcnn.common.convolution import ALGORITHMS
        from fastcnn.common.geometry import output_shape
        from fastcnn.cpu import conv

        rng = np.random.default_rng(0)
        for turn in range(150):
            algo = ALGORITHMS[turn % len(ALGORITHMS)]
            kernel, stride, pad, dilation = (tuple(map(int, rng.integers(low, 4, 2))) for low in (1, 1, 0, 1))
            images, groups, channels, filters = map(int, rng.integers(1, (4, 3, 12, 12)))
            if algo.startswith("winograd"):
                kernel, stride, dilation, groups, pad = (3, 3), (1, 1), (1, 1), 1, tuple(min(p, 2) for p in pad)
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
                    conv.conv_backward_input(dout_, w_, x.shape, *geometry, algo=algo, out=new(x_)),
                    conv.conv_backward_filter(dout_, x_, w.shape, *geometry, algo=algo, out=new(w_)),
                    conv.conv_backward_bias(dout_, out=new(b_)),
                    conv.im2col(x_, *windows, out=new(cols_)),
                    conv.col2im(cols_, x.shape, *windows, out=new(x_)),
                ):
                    assert not np.isnan(result).any()
    """)
