"""Convolution, im2col and col2im."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn.common.convolution import CHOICES
from fastcnn.layers import col2im, conv_backward, conv_forward, im2col

PARAM = {"stride": 1, "pad": 1}


def images(dtype=np.float64):
    return spread(2, 4, 5, 6, dtype=dtype), spread(6, 4, 3, 3, seed=1, dtype=dtype), spread(6, seed=2, dtype=dtype)


def convolution_by_loops(x, w, b, stride, pad, dilation, groups):
    """Every output pixel by itself."""
    x = np.pad(x, [(0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    H_out, W_out = ((n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, stride, strict=True))
    out = np.zeros((len(x), len(w), H_out, W_out))
    C, F = w.shape[1], len(w) // groups
    for n, f, p, q in np.ndindex(out.shape):
        window = x[n, f // F * C :][:C, p * stride[0] :, q * stride[1] :][
            :, : reach[0] : dilation[0], : reach[1] : dilation[1]
        ]
        out[n, f, p, q] = (window * w[f]).sum() + b[f]
    return out


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=40, deadline=None, database=None)
@given(kernel=pairs, stride=pairs, pad=pairs, dilation=pairs, groups=st.integers(1, 3), more=pairs, n=st.integers(1, 3))
def test_geometry(kernel, stride, pad, dilation, groups, more, n):
    pad = pad[0] - 1, pad[1] - 1
    size = [max(1, d * (k - 1) + 1 - 2 * a) + m for d, k, a, m in zip(dilation, kernel, pad, more, strict=True)]
    x, w, b = spread(n, 2 * groups, *size), spread(groups * n, 2, *kernel, seed=1), spread(groups * n, seed=2)
    out, cache = conv_forward(x, w, b, stride=stride, pad=pad, dilation=dilation, groups=groups)
    assert_allclose(out, convolution_by_loops(x, w, b, stride, pad, dilation, groups), rtol=1e-10, atol=1e-12)

    # The operator is linear in x and in w: <dout, conv(x)> = <dx, x> = <dw, w>.
    dout = spread(*out.shape, seed=3)
    dx, dw, db = conv_backward(dout, cache)
    product = ((out - b[:, None, None]) * dout).sum()
    assert_allclose([(dx * x).sum(), (dw * w).sum()], product, rtol=1e-9, atol=1e-10)
    assert_allclose(db, dout.sum(axis=(0, 2, 3)), rtol=1e-10, atol=1e-12)


def test_dictionary_and_keywords_say_the_same():
    x, w, b = images()
    w = w[:, :2]
    expected = conv_forward(x, w, b, {"stride": 2, "pad": (1, 0), "dilation": 1, "groups": 2})[0]
    for param, keywords in [
        (None, {"stride": 2, "pad": (1, 0), "groups": 2}),
        ({"stride": (2, 2), "pad": [1, 0], "groups": np.int64(2), "filters": 64}, {}),
        ({"stride": 5, "pad": 0}, {"stride": 2, "pad": (1, 0), "groups": 2}),
        ({}, {"stride": 2, "pad": (1, 0), "groups": 2, "algo": "im2col"}),
    ]:
        given = None if param is None else dict(param)
        assert_array_equal(conv_forward(x, w, b, given, **keywords)[0], expected)
        assert given == param
    assert_array_equal(
        conv_forward(x, w, b, groups=2)[0], conv_forward(x, w, b, {"stride": 1, "pad": 0, "groups": 2})[0]
    )


def test_cache_is_the_course_s():
    x, w, b = images()
    _, cache = conv_forward(x, w, b, PARAM)
    assert all(cached is given for cached, given in zip(cache, (x, w, b, PARAM), strict=True))
    dx, dw, db = conv_backward(np.ones((2, 6, 5, 6)), (x, w, b, {"stride": 1, "pad": 1}))
    assert (dx.shape, dw.shape, db.shape) == (x.shape, w.shape, b.shape)


def test_without_bias_and_without_dx():
    x, w, _ = images()
    out, cache = conv_forward(x, w, None, PARAM)
    assert_allclose(out, conv_forward(x, w, np.zeros(6), PARAM)[0])
    _, dw, db = conv_backward(out, cache)
    assert db is None
    nothing, same, _ = conv_backward(out, cache, need_dx=False)
    assert nothing is None
    assert_array_equal(same, dw)


@pytest.mark.parametrize("algo", CHOICES)
def test_algorithms_agree(algo):
    x, w, b = images()
    if algo.endswith("x5"):
        w = spread(6, 4, 5, 5, seed=1)
    param = PARAM if algo != "depthwise" else {**PARAM, "groups": 4}
    if algo.endswith("s2"):
        param = {**PARAM, "stride": 2}
    if algo == "depthwise":
        w, b = spread(8, 1, 3, 3, seed=1), spread(8, seed=2)
    expected, expected_cache = conv_forward(x, w, b, param)
    out, cache = conv_forward(x, w, b, param, algo=algo)
    assert_allclose(out, expected, rtol=1e-10, atol=1e-12)
    assert cache[3]["algo"] == algo and "algo" not in param
    for one, other in zip(conv_backward(out, cache), conv_backward(expected, expected_cache, algo=algo), strict=True):
        assert_allclose(one, other, rtol=1e-10, atol=1e-11)


def test_weights_perturbed_in_place_count():
    x, w, b = images(np.float32)
    before, _ = conv_forward(x, w, b, PARAM)
    w[1, 2, 0, 1] += 1
    after, _ = conv_forward(x, w, b, PARAM)
    changed = np.abs(after - before).max(axis=(0, 2, 3)) > 0.1
    assert_array_equal(changed, np.arange(6) == 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": spread(4, 5, 6)}, r"x: expected shape \(N, C, H, W\), got \(4, 5, 6\)"),
        ({"w": spread(6, 4, 3)}, r"w: expected shape \(F, C/groups, HH, WW\), got \(6, 4, 3\)"),
        ({"w": spread(6, 3, 3, 3)}, r"w: expected shape \(F, 4, HH, WW\) for x \(2, 4, 5, 6\) and groups 1, got"),
        ({"b": spread(5)}, r"b: expected shape \(6,\), got \(5,\)"),
        ({"b": spread(1, 6)}, r"b: expected shape \(6,\), got \(1, 6\)"),
        (
            {"w": spread(6, 4, 8, 3)},
            r"kernel \(8, 3\) .*: expected to fit into the padded image, got .*\(5, 6\).* \(1, 1\)",
        ),
        ({"w": np.zeros((0, 4, 3, 3)), "b": np.zeros(0)}, "w: expected at least one filter .*, got shape .0, 4, 3, 3"),
        ({"x": np.zeros((2, 0, 5, 6)), "w": np.zeros((6, 0, 3, 3))}, "w: expected .* at least one channel, got shape"),
        ({"w": np.zeros((6, 4, 0, 3))}, "window: expected images and kernels of at least 1 x 1, got"),
        ({"x": np.zeros((2, 4, 0, 6))}, "window: expected images and kernels of at least 1 x 1, got"),
        ({"param": {"stride": 1, "pad": 1, "dilation": 4}}, r"kernel \(3, 3\) with dilation \(4, 4\): expected to fit"),
        ({"param": {"stride": 0, "pad": 1}}, "stride: expected ints of at least 1, got 0"),
        ({"param": {"stride": (1, 0), "pad": 1}}, r"stride: expected ints of at least 1, got \(1, 0\)"),
        ({"param": {"stride": 1, "pad": -1}}, "pad: expected ints of at least 0, got -1"),
        ({"param": {"stride": 1, "pad": 1, "dilation": 0}}, "dilation: expected ints of at least 1, got 0"),
        ({"param": {"stride": 1, "pad": 1, "groups": 0}}, "groups: expected an int of at least 1, got 0"),
        ({"param": {"stride": 1, "pad": 1, "groups": 4}}, "groups: expected a divisor of C = 4 and F = 6, got 4"),
        ({"param": {"pad": 1}}, r"conv_param\['stride'\] is missing"),
        ({"param": {"stride": 1}}, r"conv_param\['pad'\] is missing"),
        (
            {"w": spread(6, 4, 1, 1), "param": {**PARAM, "algo": "winograd_f4x3"}},
            r"algo: 'winograd_f4x3' computes filters of 3 x 3 pixels .*, got w \(6, 4, 1, 1\) and stride \(1, 1\)",
        ),
        ({"param": {**PARAM, "algo": "magic"}}, "algo: expected one of 'auto', .*'im2col'.*, got 'magic'"),
    ],
)
def test_bad_arguments(change, message):
    given = dict(zip("xwb", images(), strict=True), param=PARAM)
    with pytest.raises(ValueError, match=f"^{message}"):
        conv_forward(*{**given, **change}.values())


@pytest.mark.parametrize("param", [{"stride": 1.0, "pad": 1}, {"stride": 1, "pad": "same"}, {"stride": 1, "pad": None}])
def test_parameters_that_are_no_ints(param):
    with pytest.raises(TypeError, match="^(stride|pad): expected an int or a pair of ints, got"):
        conv_forward(*images(), param)


def test_bad_dout_leaves_out_alone():
    x, w, b = images()
    out, cache = conv_forward(x, w, b, PARAM)
    dx = np.full_like(x, 7)
    with pytest.raises(ValueError, match=r"^dout: expected shape \(2, 6, 5, 6\), got \(2, 6, 5, 5\)"):
        conv_backward(out[..., 1:], cache, out=dx)
    with pytest.raises(TypeError, match="^dout: expected float32 or float64"):
        conv_backward(out.astype(int), cache, out=dx)
    assert (dx == 7).all()


def test_im2col_and_col2im():
    x = spread(2, 3, 5, 4)
    cols = im2col(x, (3, 2), stride=(2, 1), pad=(1, 0), dilation=(1, 2))
    assert cols.shape == (2, 18, 3 * 2)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 0)])
    for n, c, i, j, p, q in np.ndindex(2, 3, 3, 2, 3, 2):
        assert cols[n, (c * 3 + i) * 2 + j, p * 2 + q] == padded[n, c, 2 * p + i, q + 2 * j]

    y = spread(*cols.shape, seed=1)
    back = col2im(y, x.shape, (3, 2), stride=(2, 1), pad=(1, 0), dilation=(1, 2))
    assert_allclose((back * x).sum(), (y * cols).sum())
    assert im2col(x, 3).shape == (2, 27, 6)

    room, image = np.zeros_like(cols), np.zeros_like(x)
    assert im2col(x, (3, 2), (2, 1), (1, 0), (1, 2), out=room) is room
    assert col2im(y, x.shape, (3, 2), (2, 1), (1, 0), (1, 2), out=image) is image
    assert_array_equal(room, cols)
    assert_array_equal(image, back)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, cols: im2col(x[0], 3), r"x: expected shape \(N, C, H, W\)"),
        (lambda x, cols: im2col(x, 6), r"kernel \(6, 6\)"),
        (lambda x, cols: im2col(x, 0), "kernel: expected ints of at least 1, got 0"),
        (lambda x, cols: im2col(x, 3, stride=0), "stride: expected ints of at least 1, got 0"),
        (lambda x, cols: im2col(x, 3, out=cols[:1]), "out: expected shape"),
        (lambda x, cols: col2im(cols, (3, 5, 4), 3), r"x_shape: expected \(N, C, H, W\), got"),
        (lambda x, cols: col2im(cols[:, 1:], x.shape, 3), r"cols: expected shape \(2, 27, 6\), got \(2, 26, 6\)"),
    ],
)
def test_bad_columns(call, message):
    x = spread(2, 3, 5, 4)
    with pytest.raises(ValueError, match=f"^{message}"):
        call(x, im2col(x, 3))
