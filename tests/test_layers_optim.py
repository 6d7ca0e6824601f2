"""Functional update rules."""

import numpy as np
import pytest
from layers_support import floor_in_use, layouts, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn.layers import adagrad, adam, adamw, nesterov, rmsprop, sgd, sgd_momentum

RULES = {
    sgd: ({"learning_rate": 1e-2}, ()),
    sgd_momentum: ({"learning_rate": 1e-2, "momentum": 0.9}, ("velocity",)),
    nesterov: ({"learning_rate": 1e-2, "momentum": 0.9}, ("velocity",)),
    adagrad: ({"learning_rate": 1e-2, "epsilon": 1e-8}, ("cache",)),
    rmsprop: ({"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8}, ("cache",)),
    adam: ({"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "t": 1}, ("m", "v")),
    adamw: (
        {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "t": 1, "weight_decay": 1e-2},
        ("m", "v"),
    ),
}
each_rule = pytest.mark.parametrize(
    "rule, defaults, state", [(r, *v) for r, v in RULES.items()], ids=lambda v: getattr(v, "__name__", "")
)


def next_w(rule, w, dw, config):
    """The textbook's formula; `config` holds everything."""
    lr, root = config["learning_rate"], lambda a: np.sqrt(a) + config["epsilon"]
    if rule is sgd:
        return w - lr * dw
    if rule in (sgd_momentum, nesterov):
        mu = config["momentum"]
        v = mu * config["velocity"] - lr * dw
        return w + v if rule is sgd_momentum else w - mu * config["velocity"] + (1 + mu) * v
    if rule is adagrad:
        return w - lr * dw / root(config["cache"] + dw**2)
    if rule is rmsprop:
        return w - lr * dw / root(config["decay_rate"] * config["cache"] + (1 - config["decay_rate"]) * dw**2)
    t, beta1, beta2 = config["t"] + 1, config["beta1"], config["beta2"]
    m = (beta1 * config["m"] + (1 - beta1) * dw) / (1 - beta1**t)
    v = (beta2 * config["v"] + (1 - beta2) * dw**2) / (1 - beta2**t)
    return w - lr * m / root(v) - (lr * config["weight_decay"] * w if rule is adamw else 0)


@each_rule
def test_defaults_and_state(rule, defaults, state):
    w, dw = spread(3, 4), spread(3, 4, seed=1)
    kept = w.copy()
    got, config = rule(w, dw)
    assert {name: config[name] for name in defaults} == defaults
    assert set(config) == {*defaults, *state}
    zeros = {**config, "t": 0, **{name: np.zeros_like(w) for name in state}}
    assert_allclose(got, next_w(rule, w, dw, zeros), rtol=1e-12)
    assert_array_equal(w, kept)
    assert not np.shares_memory(got, w)


@each_rule
def test_second_step(rule, defaults, state):
    w, dw = spread(3, 4), spread(3, 4, seed=1)
    config = {**defaults, "learning_rate": 0.05, "name": "W1"}
    config.update({name: np.abs(spread(3, 4, seed=2 + i)) for i, name in enumerate(state)})
    before = dict(config)
    copies = {name: config[name].copy() for name in state}
    got, returned = rule(w, dw, config)
    assert returned is config and config["name"] == "W1" and config["learning_rate"] == 0.05
    assert_allclose(got, next_w(rule, w, dw, before), rtol=1e-12)
    for name in state:
        assert config[name] is not before[name] and not np.shares_memory(config[name], before[name])
        assert_array_equal(before[name], copies[name])


def test_epsilon_inside_the_root():
    w, dw = spread(3), spread(3, seed=1)
    got, _ = rmsprop(w, dw, {"epsilon": 0.5, "eps_inside": True})
    assert_allclose(got, w - 1e-2 * dw / np.sqrt(0.01 * dw**2 + 0.5))


@each_rule
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4), (0, 3)])
def test_layouts_and_shapes(rule, defaults, state, dtype, shape):
    w, dw = spread(*shape, dtype=dtype), spread(*shape, seed=1, dtype=dtype)
    expected, config = rule(w, dw, {})
    assert expected.dtype == dtype and expected.shape == shape
    assert all(config[name].dtype == dtype and config[name].shape == shape for name in state)
    for given, gradient in zip(layouts(w).values(), layouts(dw).values(), strict=True):
        assert_allclose(rule(given, gradient)[0], expected, rtol=1e-12 if dtype == np.float64 else 1e-6)
        assert_array_equal(given, w)


@each_rule
def test_mixed_dtypes(rule, defaults, state):
    w, dw = spread(7, dtype=np.float32), spread(7, seed=1)
    got, config = rule(w, dw)
    assert got.dtype == np.float64 and all(config[name].dtype == np.float64 for name in state)
    assert_allclose(got, rule(w.astype(np.float64), dw)[0], rtol=1e-12)


@each_rule
def test_bad_arguments_leave_config_alone(rule, defaults, state):
    w, dw = spread(3, 4), spread(3, 4, seed=1)
    cases = [
        (ValueError, w, dw[:2], {}, r"dw: expected shape \(3, 4\), got \(2, 4\)"),
        (TypeError, w.astype(int), dw, {}, "w: expected float32 or float64"),
        (TypeError, w, dw.astype(np.float16), {}, "dw: expected float32 or float64"),
        (TypeError, w, dw, {"learning_rate": "fast"}, "learning_rate: expected a number, got 'fast'"),
        (ValueError, w, dw, {"learning_rate": np.nan}, "learning_rate: expected a number in"),
        (TypeError, w, dw, [0.1], "config: expected a dictionary, got list"),
        *((ValueError, w, dw, {name: w[0]}, f"{name}: expected shape") for name in state),
    ]
    bad = {
        "momentum": 1.1,
        "decay_rate": -0.1,
        "beta1": 1.0,
        "beta2": 2.0,
        "epsilon": -1e-8,
        "weight_decay": -1,
        "t": -1,
    }
    cases += [(ValueError, w, dw, {name: bad[name]}, f"{name}: expected") for name in defaults if name in bad]
    for error, weights, gradient, config, message in cases:
        before = dict(config) if isinstance(config, dict) else config
        with pytest.raises(error, match=f"^{message}"):
            rule(weights, gradient, config)
        assert len(config) == len(before)
