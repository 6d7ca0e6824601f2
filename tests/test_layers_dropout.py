"""Dropout."""

import numpy as np
import pytest
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn.layers import dropout_backward, dropout_forward


def global_stream():
    return np.random.get_state()[1:3]


def same_stream(one, other):
    return one[1] == other[1] and (one[0] == other[0]).all()


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-6), (np.float64, 0)])
def test_seed_gives_the_course_s_mask(dtype, rtol):
    x = np.asfortranarray(spread(20, 7, 3, dtype=dtype))
    param = {"p": 0.7, "mode": "train", "seed": 123}
    out, (cached_param, mask) = dropout_forward(x, param)
    after = global_stream()
    np.random.seed(123)
    expected = (np.random.rand(20, 7, 3) < 0.7) / 0.7
    assert same_stream(after, global_stream())
    assert cached_param is param and out.dtype == dtype
    assert_array_equal(mask, expected)
    assert_allclose(out, x * expected, rtol=rtol)
    dout = spread(20, 7, 3, seed=1, dtype=dtype)
    dx = dropout_backward(dout, (cached_param, mask))
    assert dx.dtype == dtype
    assert_allclose(dx, dout * expected, rtol=rtol)


def test_without_seed_the_global_stream_runs_on():
    x, param = spread(20, 7), {"p": 0.5, "mode": "train"}
    np.random.seed(5)
    masks = [dropout_forward(x, param)[1][1] for _ in range(2)]
    np.random.seed(5)
    for mask in masks:
        assert_array_equal(mask, (np.random.rand(20, 7) < 0.5) / 0.5)


@pytest.mark.parametrize("keyword", [{"save_mask": True}, {"save_mask": False}, {"inverted": False}, {"mode": "test"}])
def test_key_touches_no_global_stream(keyword):
    x = spread(20, 7)
    before = global_stream()
    out, cache = dropout_forward(x, p=0.4, key=2**64 - 1, seed=3, **keyword)
    dropout_backward(out, cache)
    assert same_stream(before, global_stream())


def test_key_decides():
    x = spread(40, 50)
    out, (_, mask) = dropout_forward(x, {"p": 0.25, "mode": "train", "key": 7})
    assert_array_equal(np.unique(mask), [0, 4])
    assert 0.2 < np.mean(mask > 0) < 0.3
    assert_array_equal(out, x * mask)
    assert_array_equal(dropout_forward(x, p=0.25, key=np.uint64(7))[0], out)
    assert (dropout_forward(x, p=0.25, key=8)[0] != out).any()
    alone, cache = dropout_forward(x, p=0.25, key=7, save_mask=False)
    assert_array_equal(alone, out)
    assert_array_equal(dropout_backward(x, cache), x * mask)
    assert not isinstance(cache[1], np.ndarray)


def test_mode_test_is_the_identity():
    x = spread(4, 5)
    param = {"p": 0.5, "mode": "test", "seed": 11}
    out, cache = dropout_forward(x, param)
    assert out is x and cache == (param, None)
    assert dropout_backward(x, cache) is x
    after = global_stream()
    np.random.seed(11)
    assert same_stream(after, global_stream())


def test_vanilla():
    x = spread(40, 50)
    param = {"p": 0.25, "mode": "train", "seed": 1, "inverted": False}
    out, (_, mask) = dropout_forward(x, param)
    assert_array_equal(np.unique(mask), [0, 1])
    assert_array_equal(out, x * mask)
    out, cache = dropout_forward(x.astype(np.float32), {**param, "mode": "test"})
    assert out.dtype == np.float32
    assert_allclose(out, x * 0.25, rtol=1e-6)
    assert_allclose(dropout_backward(x, cache), x * 0.25)


def test_keeping_everything():
    x = spread(4, 5)
    assert_array_equal(dropout_forward(x, p=1)[0], x)
    assert_array_equal(dropout_forward(x, p=1.0, key=0)[0], x)
    assert dropout_forward(np.float64(0.5), p=1.0)[0] == 0.5


@pytest.mark.parametrize(
    "error, param, message",
    [
        (ValueError, {"mode": "train"}, r"dropout_param\['p'\] is missing"),
        (ValueError, {"p": 0.5}, r"dropout_param\['mode'\] is missing"),
        (ValueError, None, r"dropout_param\['p'\] is missing"),
        (ValueError, {"p": 0, "mode": "train"}, r"p: expected a number in \(0, 1\], got 0.0"),
        (ValueError, {"p": 1.01, "mode": "train"}, r"p: expected a number in \(0, 1\], got 1.01"),
        (ValueError, {"p": np.nan, "mode": "train"}, r"p: expected a number in \(0, 1\], got nan"),
        (TypeError, {"p": "half", "mode": "train"}, "p: expected a number, got 'half'"),
        (ValueError, {"p": 0.5, "mode": "valid"}, "mode: expected one of 'train', 'test', got 'valid'"),
        (ValueError, {"p": 0.5, "mode": "train", "key": -1}, r"key: expected an int in \[0, 18446744073709551615\]"),
        (ValueError, {"p": 0.5, "mode": "train", "key": 2**64}, r"key: expected an int in \[0, 18446744073709551615\]"),
        (TypeError, {"p": 0.5, "mode": "train", "key": 1.5}, "key: expected an int, got 1.5"),
        (ValueError, {"p": 0.5, "mode": "train", "seed": -1}, "Seed must be between"),
    ],
)
def test_bad_arguments_do_not_touch_the_stream(error, param, message):
    before = global_stream()
    with pytest.raises(error, match=f"^{message}"):
        dropout_forward(spread(3, 4), param)
    with pytest.raises(TypeError, match="^x: expected float32 or float64, got int64"):
        dropout_forward(np.arange(3), p=0.5, seed=1)
    assert same_stream(before, global_stream())
