"""fastcnn.optim: the optimizers against their rules in plain NumPy."""

import math

import numpy as np
import pytest
from layers_support import floor_in_use  # noqa: F401  each test runs on each floor
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import optim

SIZE, STEPS = 5000, 4  # more than two blocks of an elementwise kernel


class Flat:
    """What an optimizer asks of the parameters."""

    def __init__(self, dtype=np.float64):
        self.data = np.random.default_rng(0).standard_normal(SIZE).astype(dtype)
        self.data[::7] = 0  # where L1 pulls nowhere
        self.grad = np.zeros(SIZE, dtype)


def gradient(step, dtype=np.float64):
    return np.random.default_rng([1, step]).standard_normal(SIZE).astype(dtype)


def sgd(w, g, state, t, lr):
    return w - lr * g


def momentum(w, g, state, t, lr, rho=0.9, nesterov=False):
    v = state["v"] = rho * state.get("v", 0) + g
    return w - lr * (g + rho * v if nesterov else v)


def nesterov(w, g, state, t, lr):
    return momentum(w, g, state, t, lr, rho=0.8, nesterov=True)


def root(square, eps, inside):
    return np.sqrt(square + eps) if inside else np.sqrt(square) + eps


def adagrad(w, g, state, t, lr, eps=1e-8, inside=False):
    square = state["G"] = state.get("G", 0) + g**2
    return w - lr * g / root(square, eps, inside)


def rmsprop(w, g, state, t, lr, decay=0.9, eps=1e-8, inside=False):
    square = state["G"] = decay * state.get("G", 0) + (1 - decay) * g**2
    return w - lr * g / root(square, eps, inside)


def adam(w, g, state, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, inside=False):
    m = state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
    v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g**2
    return w - lr * (m / (1 - beta1**t)) / root(v / (1 - beta2**t), eps, inside)


def inside(rule):
    return lambda *a: rule(*a, eps=1e-3, inside=True)


INSIDE = dict(eps=1e-3, eps_inside=True)
# name: (optimizer, options, rule)
RULES = {
    "sgd": (optim.SGD, {}, sgd),
    "momentum": (optim.SGD, dict(momentum=0.9), momentum),
    "nesterov": (optim.SGD, dict(momentum=0.8, nesterov=True), nesterov),
    "nesterov without momentum": (optim.SGD, dict(nesterov=True), sgd),
    "adagrad": (optim.Adagrad, {}, adagrad),
    "adagrad, eps inside": (optim.Adagrad, INSIDE, inside(adagrad)),
    "rmsprop": (optim.RMSProp, {}, rmsprop),
    "rmsprop, eps inside": (optim.RMSProp, INSIDE, inside(rmsprop)),
    "adam": (optim.Adam, {}, adam),
    "adam, eps inside": (optim.Adam, INSIDE, inside(adam)),
    "adamw without decay": (optim.AdamW, dict(weight_decay=0.0), adam),
}
every_rule = pytest.mark.parametrize("name", RULES)


def follow(optimizer, rule, lr, prepare, steps=STEPS):
    """Take steps with the optimizer and with the rule; `prepare(w, dw)` is the gradient that enters the rule."""
    w, state = optimizer.parameters.data.copy(), {}
    for t in range(1, steps + 1):
        dw = gradient(t)
        optimizer.parameters.grad[...] = dw
        optimizer.step()
        assert_array_equal(optimizer.parameters.grad, dw)  # a step leaves the gradients alone
        w = rule(w, prepare(w, dw), state, t, lr)
        assert_allclose(optimizer.parameters.data, w, rtol=1e-12, atol=1e-12)


@every_rule
def test_rule(name):
    make, options, rule = RULES[name]
    follow(make(Flat(), 0.05, **options), rule, 0.05, lambda w, dw: dw)


@pytest.mark.parametrize("name", [name for name in RULES if "adamw" not in name])  # which decays beside the gradient
def test_weight_decay_and_l1(name):
    make, options, rule = RULES[name]
    optimizer = make(Flat(), 0.05, weight_decay=0.1, l1=0.02, **options)
    follow(optimizer, rule, 0.05, lambda w, dw: dw + 0.1 * w + 0.02 * np.sign(w))


@every_rule
def test_clipping(name):
    make, options, rule = RULES[name]
    largest = 10.0  # the norm of a gradient is about 70
    optimizer = make(Flat(), 0.05, clip_norm=largest, **options)
    follow(optimizer, rule, 0.05, lambda w, dw: dw * largest / np.linalg.norm(dw))


def test_a_gradient_within_the_norm_is_not_clipped():
    follow(optim.SGD(Flat(), 0.05, clip_norm=1000), sgd, 0.05, lambda w, dw: dw)


def test_clipping_leaves_weight_decay_alone():
    optimizer = optim.SGD(Flat(), 0.05, clip_norm=10.0, weight_decay=0.1)
    follow(optimizer, sgd, 0.05, lambda w, dw: 10 * dw / np.linalg.norm(dw) + 0.1 * w)


def test_adamw_decays_beside_the_step():
    def adamw(w, g, state, t, lr):
        return adam(w, g, state, t, lr) - lr * 0.3 * w

    follow(optim.AdamW(Flat(), 0.05, weight_decay=0.3), adamw, 0.05, lambda w, dw: dw)
    assert optim.AdamW(Flat()).weight_decay == 0.01


def test_the_learning_rate_may_change_between_steps():
    optimizer = optim.SGD(Flat(), 0.1)
    w = optimizer.parameters.data.copy()
    for lr in (0.1, 0.0, 0.5):
        optimizer.lr = lr
        optimizer.parameters.grad[...] = dw = gradient(1)
        optimizer.step()
        w -= lr * dw
    assert_allclose(optimizer.parameters.data, w, rtol=1e-12, atol=1e-12)


@every_rule
def test_float32_stays_float32(name):
    make, options, _ = RULES[name]
    single, double = make(Flat(np.float32), 0.05, **options), make(Flat(), 0.05, **options)
    single.parameters.data[...] = double.parameters.data
    for t in range(1, STEPS + 1):
        for optimizer in (single, double):
            optimizer.parameters.grad[...] = gradient(t)
            optimizer.step()
    assert all(array.dtype == np.float32 for array in (single.parameters.data, *single.state.values()))
    assert_allclose(single.parameters.data, double.parameters.data, rtol=1e-4, atol=1e-4)


@every_rule
def test_state_dict_resumes(name):
    make, options, _ = RULES[name]
    whole, half = make(Flat(), 0.05, **options), make(Flat(), 0.05, **options)
    for t in range(1, 5):
        whole.parameters.grad[...] = gradient(t)
        whole.step()
        if t <= 2:
            half.parameters.grad[...] = gradient(t)
            half.step()
    saved = {name: np.copy(value) for name, value in half.state_dict().items()}
    parameters = half.parameters
    rest = make(parameters, 0.05, **options)
    rest.load_state_dict(saved)
    for t in range(3, 5):
        parameters.grad[...] = gradient(t)
        rest.step()
    assert_array_equal(parameters.data, whole.parameters.data)
    assert rest.state_dict()["steps"] == 4 and type(rest.steps) is int


@pytest.mark.parametrize(
    "state, message",
    [
        ({"steps": 3}, "expected .*first_moment"),
        (
            {"steps": 3, "first_moment": np.ones(SIZE), "second_moment": np.ones(3)},
            r"second_moment.*\(5000,\), got \(3,\)",
        ),
        ({"steps": 3, "velocity": np.ones(SIZE)}, "got .*velocity"),
    ],
)
def test_load_state_dict_refuses(state, message):
    optimizer = optim.Adam(Flat())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert optimizer.steps == 0 and not any(array.any() for array in optimizer.state.values())


def test_a_gradient_that_is_not_finite_shows():
    for make in (optim.SGD, optim.Adam):
        for clip_norm in (None, 1.0):
            optimizer = make(Flat(), 0.1, clip_norm=clip_norm)
            optimizer.parameters.grad[:2] = np.nan, np.inf
            with np.errstate(invalid="ignore"):
                optimizer.step()
            assert not np.isfinite(optimizer.parameters.data[:2]).any()


@pytest.mark.parametrize(
    "make, options",
    [
        (optim.SGD, dict(lr=-1)),
        (optim.SGD, dict(lr=math.nan)),
        (optim.SGD, dict(lr=0.1, momentum=1.5)),
        (optim.SGD, dict(lr=0.1, weight_decay=-1)),
        (optim.SGD, dict(lr=0.1, l1=-1)),
        (optim.SGD, dict(lr=0.1, clip_norm=0)),
        (optim.RMSProp, dict(decay=2)),
        (optim.Adagrad, dict(eps=-1)),
        (optim.Adam, dict(beta1=1)),
        (optim.Adam, dict(beta2=1.0)),
        (optim.AdamW, dict(beta2=-0.1)),
    ],
)
def test_refused_options(make, options):
    with pytest.raises(ValueError, match=f"{list(options)[-1]}.*expected"):
        make(Flat(), **options)
