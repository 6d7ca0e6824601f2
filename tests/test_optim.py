"""fastcnn.optim: the optimizers against their rules in plain NumPy."""

import io
import math

import numpy as np
import pytest
from layers_support import floor_in_use  # noqa: F401  each test runs on each floor
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import nn, optim

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


@every_rule
@pytest.mark.parametrize("norm", [None, 40.0])
def test_clipping_by_value(name, norm):
    """After that by norm, and before the penalties; elements beyond the limit, and some that are not finite."""
    make, options, rule = RULES[name]
    penalties = {} if "adamw" in name else {"weight_decay": 0.1, "l1": 0.02}
    optimizer = make(Flat(), 0.05, clip_norm=norm, clip_value=0.6, **penalties, **options)

    def prepare(w, dw):
        scaled = dw if norm is None else dw * min(1, norm / np.linalg.norm(dw))
        assert 0.1 < np.mean(abs(scaled) > 0.6) < 0.9
        return np.clip(scaled, -0.6, 0.6) + sum(penalties.get(k, 0) * f(w) for k, f in PULLS.items())

    follow(optimizer, rule, 0.05, prepare)


PULLS = {"weight_decay": lambda w: w, "l1": np.sign}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_by_value_leaves_nan_and_bounds_infinity(dtype):
    optimizer = optim.SGD(Flat(dtype), 1.0, clip_value=0.5)
    w, dw = optimizer.parameters.data.copy(), gradient(1, dtype)
    dw[:40:3], dw[1:40:3], dw[2:40:3] = np.nan, np.inf, -np.inf
    optimizer.parameters.grad[...] = dw
    optimizer.step()
    assert_allclose(optimizer.parameters.data, w - np.clip(dw, -0.5, 0.5), rtol=1e-6, atol=1e-6)
    assert np.isnan(optimizer.parameters.data[:40:3]).all() and np.isfinite(optimizer.parameters.data[1:40:3]).all()


def test_groups_may_have_limits_of_their_own():
    groups = [optim.Group("*.bias", clip_value=0.1), optim.Group("1.*", clip_value=math.inf)]
    optimizer, limits = optim.SGD(Named(), 1.0, clip_value=0.5, groups=groups), np.full(SIZE, 0.5)
    limits[optimizer.parameters.part("0.bias")] = 0.1
    for part in ("1.weight", "1.bias"):
        limits[optimizer.parameters.part(part)] = math.inf
    w, dw = optimizer.parameters.data.copy(), gradient(1)
    optimizer.parameters.grad[...] = dw
    optimizer.step()
    assert_allclose(optimizer.parameters.data, w - np.clip(dw, -limits, limits), rtol=1e-12, atol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(
    "name, theirs, options",
    [
        ("SGD", "SGD", dict(momentum=0.9, nesterov=True, weight_decay=0.01)),
        ("AdamW", "AdamW", dict(weight_decay=0.02)),
        ("Adam", "Adam", dict(weight_decay=0.02)),
    ],
)
def test_clipping_is_pytorchs(name, theirs, options):
    """clip_grad_norm_, then clip_grad_value_, then the step."""
    torch = pytest.importorskip("torch", reason="PyTorch is the other side of this comparison")
    mine = getattr(optim, name)(Flat(), 0.05, clip_norm=30.0, clip_value=0.3, **options)
    parameter = torch.nn.Parameter(torch.from_numpy(mine.parameters.data.copy()))
    peer = getattr(torch.optim, theirs)([parameter], 0.05, **options)
    for t in range(1, STEPS + 1):
        mine.parameters.grad[...] = gradient(t)
        mine.step()
        parameter.grad = torch.from_numpy(gradient(t))
        torch.nn.utils.clip_grad_norm_([parameter], 30.0)
        torch.nn.utils.clip_grad_value_([parameter], 0.3)
        peer.step()
        # PyTorch divides by the norm plus 1e-6
        assert_allclose(mine.parameters.data, parameter.detach().numpy(), rtol=1e-6, atol=1e-6)


def test_adamw_decays_beside_the_step():
    def adamw(w, g, state, t, lr):
        return adam(w, g, state, t, lr) - lr * 0.3 * w

    follow(optim.AdamW(Flat(), 0.05, weight_decay=0.3), adamw, 0.05, lambda w, dw: dw)
    assert optim.AdamW(Flat()).weight_decay == 0.01


# ---- groups of parameters


class Named(Flat):
    """Parameters with names and shapes; the second and third lie so that a group of biases is in two parts."""

    PARTS = {"0.weight": (40, 50), "0.bias": (40,), "1.weight": (400,), "1.bias": (60,), "2.weight": (50, 50)}

    def __init__(self, dtype=np.float64):
        super().__init__(dtype)
        ends = np.cumsum([math.prod(shape) for shape in self.PARTS.values()])
        assert ends[-1] == SIZE
        self.shapes = tuple(self.PARTS.values())
        self.names = tuple(zip(self.PARTS, [0, *ends[:-1]], ends, strict=True))

    def part(self, name):
        return next(slice(first, last) for own, first, last in self.names if own == name)


def no_decay(name, shape):
    return name.endswith("bias")


@every_rule
def test_groups_are_optimizers_of_their_own(name):
    """Each part goes as with an optimizer of it alone; what is frozen stays, with its state."""
    make, options, _ = RULES[name]
    groups = [
        optim.Group("0.*", lr=0.5),
        optim.Group("*.bias", weight_decay=0),
        optim.Group(no_decay, lr=0.2, l1=0.3),
        optim.Group("1.weight", frozen=True),
        optim.Group("1.bias", l1=0),
    ]
    common = {"weight_decay": 0.1, "l1": 0.02, **{k: v for k, v in options.items() if k != "weight_decay"}}
    whole = make(Named(), 0.05, groups=groups, **common)
    own = {
        "0.weight": dict(lr=0.025),
        "0.bias": dict(lr=0.005, weight_decay=0, l1=0.3),
        "1.bias": dict(lr=0.01, weight_decay=0, l1=0),
        "2.weight": dict(lr=0.05),
    }
    alone = {}
    for part, settings in own.items():
        flat, place = Flat(), whole.parameters.part(part)
        flat.data, flat.grad = flat.data[place].copy(), flat.grad[place].copy()
        alone[part] = make(flat, **{**common, **settings})
    frozen = whole.parameters.part("1.weight")
    before = whole.parameters.data[frozen].copy()
    for t in range(1, STEPS + 1):
        whole.parameters.grad[...] = gradient(t)
        whole.step()
        for part, optimizer in alone.items():
            optimizer.parameters.grad[...] = gradient(t)[whole.parameters.part(part)]
            optimizer.step()
    for part, optimizer in alone.items():
        place = whole.parameters.part(part)
        assert_allclose(whole.parameters.data[place], optimizer.parameters.data, rtol=1e-13, atol=1e-13)
        for key, array in optimizer.state.items():
            assert_allclose(whole.state[key][place], array, rtol=1e-13, atol=1e-13)
    assert before.tobytes() == whole.parameters.data[frozen].tobytes()
    assert not any(array[frozen].any() for array in whole.state.values())


def test_one_pass_over_each_part_with_the_same_options(monkeypatch):
    def sizes(groups, parameters=None):
        optimizer, seen = optim.SGD(parameters or Named(), 0.1, groups=groups), []
        monkeypatch.setattr(optimizer, "_update", lambda w, *_, **options: seen.append(w.size))
        optimizer.step()
        return seen

    assert sizes(()) == sizes([optim.Group("*", lr=2)]) == [SIZE]
    assert sizes([optim.Group(optim.vectors, weight_decay=0)]) == [2000, 500, 2500]
    assert sizes([optim.Group("[01].*", frozen=True)]) == [2500]
    net = nn.resnet20(width=4)
    assert len(sizes([optim.Group(optim.vectors, weight_decay=0)], nn.FlatParameters(net))) == 2
    assert sizes([optim.Group("*", frozen=True)]) == []


def test_what_is_frozen_does_not_count_for_the_norm():
    optimizer = optim.SGD(Named(), 0.05, clip_norm=10.0, groups=[optim.Group("1.*", frozen=True)])
    before, dw = optimizer.parameters.data.copy(), gradient(1)
    dw[optimizer.parameters.part("1.weight")] *= 1e6
    optimizer.parameters.grad[...] = dw
    optimizer.step()
    for part in ("1.weight", "1.bias"):
        dw[optimizer.parameters.part(part)] = 0
    assert_allclose(optimizer.parameters.data, before - 0.05 * dw * 10 / np.linalg.norm(dw), rtol=1e-12, atol=1e-12)


def test_groups_refuse():
    with pytest.raises(ValueError, match=r"groups: no parameter matches 'head\.\*'"):
        optim.SGD(Named(), 0.1, groups=[optim.Group("head.*", lr=10)])
    for option in ("lr", "weight_decay", "l1", "clip_value"):
        with pytest.raises(ValueError, match=f"^{option}: expected"):
            optim.Group("*", **{option: -1})


@every_rule
def test_a_copy_over_other_parameters(name):
    """It goes on as the optimizer would have, which it does not touch."""
    make, options, _ = RULES[name]
    optimizer = make(Flat(), 0.05, **options)
    optimizer.parameters.grad[...] = gradient(1)
    optimizer.step()
    saved = {key: np.copy(value) for key, value in optimizer.state.items()}
    parameters = Flat()
    parameters.data[...] = optimizer.parameters.data
    twin = optimizer.over(parameters)
    twin.lr, before = 0.3, optimizer.parameters.data.copy()
    parameters.grad[...] = gradient(2)
    twin.step()
    assert optimizer.lr == 0.05 and all(np.array_equal(optimizer.state[key], saved[key]) for key in saved)
    assert_array_equal(optimizer.parameters.data, before)
    optimizer.lr = 0.3
    optimizer.parameters.grad[...] = gradient(2)
    optimizer.step()
    assert_array_equal(optimizer.parameters.data, parameters.data)


# ---- what a step takes into account


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
    """Also in an optimizer that was made with other options, and by way of a file without pickled objects."""
    make, options, _ = RULES[name]
    options = {"weight_decay": 0.1, "l1": 0.02, "clip_norm": 50.0, "clip_value": 0.7, **options}
    whole, half = make(Flat(), 0.05, **options), make(Flat(), 0.05, **options)
    for t in range(1, 5):
        whole.parameters.grad[...] = gradient(t)
        whole.step()
        if t <= 2:
            half.parameters.grad[...] = gradient(t)
            half.step()
    file = io.BytesIO()
    np.savez(file, **half.state_dict())
    file.seek(0)
    rest = make(half.parameters, 0.3, **({"momentum": 0.5} if "momentum" in options else {}))
    rest.load_state_dict(dict(np.load(file, allow_pickle=False)))
    for t in range(3, 5):
        rest.parameters.grad[...] = gradient(t)
        rest.step()
    assert_array_equal(rest.parameters.data, whole.parameters.data)
    state = rest.state_dict()
    assert state["steps"] == 4 and state["optimizer"] == make.__name__ and options.items() <= state.items()
    assert {type(value) for key, value in state.items() if key not in rest.state} <= {str, int, float, bool}


def test_state_dict_tells_the_rate_of_the_last_step_and_no_limit_as_infinity():
    optimizer = optim.AdamW(Flat(), 0.05)
    optimizer.lr = np.float32(0.25)  # as a schedule may
    state = optimizer.state_dict()
    assert state["lr"] == 0.25 and type(state["lr"]) is float and state["clip_norm"] == math.inf
    other = optim.AdamW(Flat(), clip_norm=1.0)
    other.load_state_dict(state)
    assert other.lr == 0.25 and other.clip_norm == math.inf


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(optimizer="SGD"), r"\['optimizer'\]: expected Adam, got SGD"),
        (dict(optimizer="AdamW"), "expected Adam, got AdamW"),
        (dict(optimizer=3), r"\['optimizer'\]: expected a string, got 3"),
        (dict(second_moment=None), r"missing \['second_moment'\], unknown nothing"),
        (dict(velocity=np.ones(SIZE)), r"missing nothing, unknown \['velocity'\]"),
        (dict(second_moment=np.ones(3)), r"\['second_moment'\]: expected shape \(5000,\), got \(3,\)"),
        (dict(second_moment=np.full(SIZE, "1")), r"\['second_moment'\]: expected numbers, got <U1"),
        (dict(steps=-1), r"\['steps'\]: expected an int of at least 0, got -1"),
        (dict(steps=1.5), r"\['steps'\]: expected a whole number, got 1.5"),
        (dict(lr=math.nan), r"\['lr'\]: expected a number in .*, got nan"),
        (dict(lr="fast"), r"\['lr'\]: expected a number, got 'fast'"),
        (dict(lr=np.ones(2)), r"\['lr'\]: expected a number, got array"),
        (dict(beta2=1.0), r"\['beta2'\]: expected a number in \[0, 1\), got 1.0"),
        (dict(clip_norm=0.0), r"\['clip_norm'\]: expected"),
        (dict(clip_value=0.0), r"\['clip_value'\]: expected"),
        (dict(eps_inside=2), r"\['eps_inside'\]: expected one of True, False, got 2"),
    ],
)
def test_load_state_dict_refuses(change, message):
    optimizer, other = optim.Adam(Flat()), optim.Adam(Flat(), 0.5, 0.6, 0.7, 1e-3, True, clip_norm=2.0)
    other.parameters.grad[...] = gradient(1)
    other.step()
    state = {key: value for key, value in {**other.state_dict(), **change}.items() if value is not None}
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=f"^state.*{message}"):
        optimizer.load_state_dict(state)
    after = optimizer.state_dict()
    assert all(after.pop(key) is array and not array.any() for key, array in optimizer.state.items())
    assert after == {key: before[key] for key in after}


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
        (optim.SGD, dict(lr=0.1, clip_value=-1)),
        (optim.SGD, dict(lr=0.1, clip_value=math.nan)),
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
