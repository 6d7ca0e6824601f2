"""Normalisation: formulas, and what batchnorm does to its dictionary."""

import numpy as np
import pytest
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import layers as L

COLUMNS, CHANNELS = (spread(6, seed=1), spread(6, seed=2)), (spread(4, seed=1), spread(4, seed=2))


def standardised(x, axes, eps=1e-5):
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)


def per_channel(a):
    return a.reshape(1, -1, 1, 1)


def test_formulas():
    x, (gamma, beta) = spread(5, 6), COLUMNS
    assert_allclose(L.batchnorm_forward(x, gamma, beta)[0], gamma * standardised(x, 0) + beta, atol=1e-12)
    assert_allclose(L.layernorm_forward(x, gamma, beta, {})[0], gamma * standardised(x, 1) + beta, atol=1e-12)
    assert_allclose(L.layernorm_forward(x, gamma, beta, eps=0.1)[0], gamma * standardised(x, 1, 0.1) + beta, atol=1e-12)
    groups = standardised(x.reshape(5, 3, 2), 2).reshape(5, 6)
    assert_allclose(L.groupnorm_forward(x, gamma, beta, 3, {"eps": 1e-5})[0], gamma * groups + beta, atol=1e-12)
    assert_allclose(L.instancenorm_forward(x, gamma, beta)[0], np.broadcast_to(beta, x.shape), atol=1e-12)


def test_formulas_of_images():
    x, (gamma, beta) = spread(3, 4, 5, 2), CHANNELS

    def scaled(xhat):
        return per_channel(gamma) * xhat.reshape(x.shape) + per_channel(beta)

    groups = x.reshape(3, 2, 2, 5, 2)
    for out, expected in [
        (L.spatial_batchnorm_forward(x, gamma, beta)[0], standardised(x, (0, 2, 3))),
        (L.spatial_layernorm_forward(x, gamma, beta)[0], standardised(x, (1, 2, 3))),
        (L.spatial_instancenorm_forward(x, gamma, beta)[0], standardised(x, (2, 3))),
        (L.spatial_groupnorm_forward(x, gamma, beta, 2, {})[0], standardised(groups, (2, 3, 4))),
        (
            L.spatial_groupnorm_forward(x, per_channel(gamma), beta, 2, {"mode": "train"})[0],
            standardised(groups, (2, 3, 4)),
        ),
    ]:
        assert_allclose(out, scaled(expected), atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 3, 9, 9), (300, 5, 2, 2), (3, 2, 70, 41), (1000, 6), (64, 70, 4, 4)])
@pytest.mark.parametrize("mean", [0, 1e3, -3e5])
def test_a_large_mean_cancels_no_variance(shape, mean):
    x = (np.random.default_rng(1).standard_normal(shape) + mean).astype(np.float32)
    axes = (0, *range(2, x.ndim))
    exact = x.astype(np.float64)
    gamma, beta = np.ones(shape[1], np.float32), np.zeros(shape[1], np.float32)
    param = {"mode": "train", "momentum": 0.0}
    forward = L.batchnorm_forward if x.ndim == 2 else L.spatial_batchnorm_forward
    out, cache = forward(x, gamma, beta, param)
    assert_allclose(param["running_var"], exact.var(axis=axes), rtol=1e-6)
    assert_allclose(param["running_mean"], exact.mean(axis=axes), rtol=1e-6, atol=1e-7)
    # rounding the mean to float32 moves all of a channel's outputs by the same amount
    assert_allclose(out, standardised(exact, axes), atol=1e-5 + 1e-7 * abs(mean))
    forward = L.layernorm_forward if x.ndim == 2 else L.spatial_instancenorm_forward
    axes = 1 if x.ndim == 2 else (2, 3)
    _, cache = forward(x, gamma, beta)
    assert_allclose(np.squeeze(cache.var), np.squeeze(exact.var(axis=axes)), rtol=2e-6)


@pytest.mark.parametrize("mode", ["train", "test"])
def test_the_sum_of_a_residual_block(mode):
    for x, forward, forward_add in [
        (spread(3, 4, 5, 2), L.spatial_batchnorm_forward, L.spatial_batchnorm_add_relu_forward),
        (spread(6, 4), L.batchnorm_forward, L.batchnorm_add_relu_forward),
    ]:
        add = spread(*x.shape, seed=5)
        param, other = ({"mode": mode, "running_mean": CHANNELS[0], "running_var": CHANNELS[1] ** 2} for _ in range(2))
        normalised, bn_cache = forward(x, *CHANNELS, param)
        expected, add_cache = L.add_relu_forward(normalised, add)
        buffer = x.copy()
        out, cache = forward_add(buffer, add, *CHANNELS, other, out=buffer)
        assert out is buffer
        assert_allclose(out, expected, atol=1e-12)
        assert_allclose(other["running_mean"], param["running_mean"])
        dout = spread(*x.shape, seed=6)
        dnormalised, dadd = L.add_relu_backward(dout, add_cache)
        gradients = L.batchnorm_add_relu_backward(dout, cache)
        dx, *others = L.batchnorm_backward(dnormalised, bn_cache)
        for got, right in zip(gradients, (dx, dadd, *others), strict=True):
            assert_allclose(got, right, atol=1e-12)
    with pytest.raises(ValueError, match=r"^add: expected shape \(6, 4\), got \(4, 6\)"):
        L.batchnorm_add_relu_forward(x, add.T, *CHANNELS, {"mode": "train"})


# ---- running statistics


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_training_binds_new_statistics(dtype):
    x, (gamma, beta) = spread(5, 6, dtype=dtype), (a.astype(dtype) for a in COLUMNS)
    param = {"mode": "train", "name": "bn1"}
    L.batchnorm_forward(x, gamma, beta, param)
    assert set(param) == {"mode", "name", "running_mean", "running_var"}
    first = param["running_mean"], param["running_var"]
    for running, sample in zip(first, (x.mean(axis=0), x.var(axis=0)), strict=True):
        assert running.dtype == dtype
        assert_allclose(running, 0.1 * sample, rtol=1e-5, atol=1e-7)
    kept = [running.copy() for running in first]

    L.batchnorm_forward(2 * x, gamma, beta, param, momentum=0.25)
    assert_allclose(param["running_var"], 0.25 * kept[1] + 0.75 * 4 * x.var(axis=0), rtol=1e-5)
    for old, copy, name in zip(first, kept, ("running_mean", "running_var"), strict=True):
        assert param[name] is not old
        assert_array_equal(old, copy)


def test_dtypes_of_statistics():
    x, (gamma, beta) = spread(5, 6, dtype=np.float32), COLUMNS
    param = {"mode": "train"}
    assert L.batchnorm_forward(x, gamma, beta, param)[0].dtype == np.float64
    assert param["running_mean"].dtype == np.float32  # zeros of x's dtype
    gamma, beta = gamma.astype(np.float32), beta.astype(np.float32)
    param["running_var"] = np.ones(6)
    assert L.batchnorm_forward(x, gamma, beta, param)[0].dtype == np.float32
    assert param["running_mean"].dtype == np.float32 and param["running_var"].dtype == np.float64
    assert L.batchnorm_forward(x, gamma, beta, param, mode="test")[0].dtype == np.float64


def test_statistics_of_images():
    x, param = spread(3, 4, 5, 2), {"mode": "train", "momentum": 0.0}
    L.spatial_batchnorm_forward(x, *CHANNELS, param)
    assert_allclose(param["running_mean"], x.mean(axis=(0, 2, 3)), atol=1e-12)
    assert_allclose(param["running_var"], x.var(axis=(0, 2, 3)), atol=1e-12)


def test_test_mode_uses_statistics_and_leaves_them():
    x, (gamma, beta), mean, var = spread(5, 6), COLUMNS, spread(6, seed=3), spread(6, seed=4) ** 2
    param = {"mode": "test", "running_mean": mean, "running_var": var, "eps": 0.1}
    given = dict(param)
    out, _ = L.batchnorm_forward(x, gamma, beta, param)
    assert_allclose(out, gamma * (x - mean) / np.sqrt(var + 0.1) + beta)
    assert param.keys() == given.keys() and all(param[key] is given[key] for key in given)
    for relu, forward in [(False, L.batchnorm_forward), (True, L.batchnorm_relu_forward)]:
        by_keyword, _ = forward(x, gamma, beta, param)
        assert_allclose(by_keyword, np.maximum(out, 0) if relu else out)


def test_missing_statistics_are_zeros():
    x, (gamma, beta) = spread(5, 6), COLUMNS
    param = {"mode": "test"}
    out, _ = L.batchnorm_forward(x, gamma, beta, param)
    assert_allclose(out, gamma * x / np.sqrt(1e-5) + beta)
    assert_array_equal([param["running_mean"], param["running_var"]], np.zeros((2, 6)))


def test_empty_batch_leaves_statistics():
    gamma, beta = COLUMNS
    param = {"mode": "train", "running_mean": np.ones(6), "running_var": np.full(6, 2.0)}
    L.batchnorm_forward(np.zeros((0, 6)), gamma, beta, param)
    assert_array_equal(param["running_mean"], np.ones(6))
    assert_array_equal(param["running_var"], np.full(6, 2.0))
    L.spatial_batchnorm_forward(np.zeros((3, 6, 0, 2)), gamma, beta, param)
    assert_array_equal(param["running_mean"], np.ones(6))


def test_keywords_update_statistics_in_place():
    x, (gamma, beta) = spread(5, 6), COLUMNS
    mean, var = np.zeros(6), np.ones(6, np.float32)
    out, _ = L.batchnorm_forward(x, gamma, beta, running_mean=mean, running_var=var, momentum=0.5)
    assert_allclose(mean, 0.5 * x.mean(axis=0), atol=1e-12)
    assert_allclose(var, 0.5 + 0.5 * x.var(axis=0), rtol=1e-6)
    assert_array_equal(out, L.batchnorm_forward(x, gamma, beta)[0])
    out, _ = L.batchnorm_forward(x, gamma, beta, mode="test", running_mean=mean, running_var=var)
    assert_allclose(out, gamma * (x - mean) / np.sqrt(var + 1e-5) + beta, rtol=1e-6)

    given = mean.copy()
    param = {"mode": "train"}
    L.batchnorm_forward(x, gamma, beta, param, running_mean=mean)  # with a dictionary, that is where the new ones go
    assert_array_equal(mean, given)
    assert_allclose(param["running_mean"], 0.9 * mean + 0.1 * x.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize(
    "error, change, message",
    [
        (ValueError, {"x": spread(5, 6, 1)}, r"x: expected shape \(N, D\), got \(5, 6, 1\)"),
        (ValueError, {"gamma": spread(5)}, r"gamma: expected shape \(6,\), got \(5,\)"),
        (ValueError, {"beta": spread(1, 6)}, r"beta: expected shape \(6,\), got \(1, 6\)"),
        (ValueError, {"param": {}}, r"bn_param\['mode'\] is missing"),
        (ValueError, {"mode": "eval"}, "mode: expected one of 'train', 'test', got 'eval'"),
        (ValueError, {"eps": -1e-5}, r"eps: expected a number in \[0, inf\], got -1e-05"),
        (ValueError, {"momentum": 1.5}, r"momentum: expected a number in \[0, 1\], got 1.5"),
        (ValueError, {"momentum": np.nan}, r"momentum: expected a number in \[0, 1\], got nan"),
        (TypeError, {"eps": "1e-5"}, "eps: expected a number, got '1e-5'"),
        (ValueError, {"running_mean": np.zeros(5)}, r"running_mean: expected shape \(6,\), got \(5,\)"),
        (TypeError, {"running_var": np.zeros(6, int)}, "running_var: expected float32 or float64, got int64"),
        (ValueError, {"out": np.zeros((6, 5))}, "out: expected shape"),
        (TypeError, {"out": np.zeros((5, 6), np.float32)}, "out: expected an array of float64, got float32"),
    ],
)
@pytest.mark.parametrize("mode", ["train", "test"])
def test_bad_arguments_change_nothing(error, change, message, mode):
    mean, var = np.zeros(6), np.ones(6)
    param = {"mode": mode, "running_mean": mean, "running_var": var}
    given = {
        "x": spread(5, 6),
        "gamma": COLUMNS[0],
        "beta": COLUMNS[1],
        "param": param,
        "out": np.full((5, 6), 7.0),
        **change,
    }
    out = given["out"].copy()
    x, gamma, beta, given_param = (given.pop(name) for name in ("x", "gamma", "beta", "param"))
    with pytest.raises(error, match=f"^{message}"):
        L.batchnorm_forward(x, gamma, beta, given_param, **given)
    assert given_param == {} or (param["running_mean"] is mean and param["running_var"] is var and len(param) == 3)
    assert not mean.any() and (var == 1).all()
    assert_array_equal(given["out"], out)


def test_bad_statistics_as_keywords():
    x, (gamma, beta) = spread(5, 6), COLUMNS
    fixed = np.zeros(6)
    fixed.flags.writeable = False
    for wrong in (fixed, [0.0] * 6):
        with pytest.raises(ValueError, match="^running_mean: expected a writable array"):
            L.batchnorm_forward(x, gamma, beta, running_mean=wrong)
    with pytest.raises(ValueError, match="^running_var: expected an array in test mode, got None"):
        L.batchnorm_forward(x, gamma, beta, mode="test", running_mean=fixed)
    L.batchnorm_forward(x, gamma, beta, {"mode": "train", "running_mean": fixed})


@pytest.mark.parametrize(
    "error, change, message",
    [
        (ValueError, {"x": spread(3, 4)}, r"x: expected shape \(N, C, H, W\), got \(3, 4\)"),
        (ValueError, {"gamma": spread(3)}, r"gamma: expected shape \(4,\) or \(1, 4, 1, 1\), got \(3,\)"),
        (ValueError, {"beta": spread(4, 1, 1)}, r"beta: expected shape \(4,\) or \(1, 4, 1, 1\), got \(4, 1, 1\)"),
        (ValueError, {"G": 3}, "G: expected a divisor of C = 4, got 3"),
        (ValueError, {"G": 0}, "G: expected an int of at least 1, got 0"),
        (TypeError, {"G": 2.0}, "G: expected an int, got 2.0"),
        (ValueError, {"gn_param": {"eps": -1}}, r"eps: expected a number in \[0, inf\], got -1"),
        (TypeError, {"gn_param": 1e-5}, "gn_param: expected a dictionary, got float"),
    ],
)
def test_bad_arguments_of_groupnorm(error, change, message):
    given = {"x": spread(3, 4, 2, 2), "gamma": CHANNELS[0], "beta": CHANNELS[1], "G": 2, "gn_param": {}, **change}
    with pytest.raises(error, match=f"^{message}"):
        L.spatial_groupnorm_forward(**given)
