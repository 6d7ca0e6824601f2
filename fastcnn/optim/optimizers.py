"""Optimizers over one flat buffer of parameters; the arithmetic is that of the floors' update rules.

Every optimizer takes `parameters` with flat arrays `data` and `grad` (`nn.FlatParameters`), the learning rate `lr` (an
attribute that a schedule may set before each step), `weight_decay` and `l1` (added to the gradient: weight_decay w +
l1 sign w), `clip_norm`: gradients of a larger Euclidean norm are scaled down to it, `clip_value`: their elements are
brought into [-clip_value, clip_value]; and `groups` of parameters that have options of their own. The norm is clipped
first, then the elements, and what is added is not clipped, as with PyTorch's clip_grad_norm_, clip_grad_value_ and its
optimizers' weight decay, one after the other. A NaN stays NaN.
"""

import copy
import fnmatch
import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor, host_floor

_OF_GROUPS = "weight_decay", "l1", "clip_value"  # the optimizer's, unless a group says something else


@dataclass(frozen=True)
class Group:
    """Options of some of the parameters. Where groups overlap all apply; of two that set the same, the later.

    Parameters
    ----------
    match : str, or function of a parameter's name and shape
        A pattern of names, in which * stands for anything; `vectors` is such a function.
    lr : float, a factor of the optimizer's rate; those of groups that overlap are multiplied
    weight_decay, l1 : float, or None for the optimizer's
    frozen : bool
        The parameters and the optimizer's state for them stay as they are, bit for bit; their gradients do not count
        for `clip_norm`.
    clip_value : float, or None for the optimizer's
    """

    match: str | Callable
    lr: float = 1.0
    weight_decay: float | None = None
    l1: float | None = None
    frozen: bool = False
    clip_value: float | None = None

    def __post_init__(self):
        for name in ("lr", *self.says):
            Optimizer._options[name](name, getattr(self, name))

    @property
    def says(self):
        """Names of the options that are the group's own."""
        return [name for name in _OF_GROUPS if getattr(self, name) is not None]

    def holds(self, name, shape):
        """Whether a parameter belongs to the group."""
        return bool(self.match(name, shape)) if callable(self.match) else fnmatch.fnmatchcase(name, self.match)

    def over(self, other):
        """This group's options where it says something, else those of `other`."""
        kept = {name: getattr(self if name in self.says else other, name) for name in _OF_GROUPS}
        return Group("*", self.lr * other.lr, **kept, frozen=self.frozen or other.frozen)


def vectors(name, shape):
    """Whether a parameter has one axis: biases, and the scale and shift of normalisations, which often do not decay."""
    return len(shape) == 1


# ---- what an option's value may be: functions of its name and value that return it checked


def _not_negative(name, value):
    """A number of at least 0."""
    return checks.number(name, value, 0)


def _share(name, value):
    """A number in [0, 1]."""
    return checks.number(name, value, 0, 1)


def _below_one(name, value):
    """A number in [0, 1)."""
    value = checks.number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")
    return value


def _limit(name, value):
    """A number above 0; infinity, which limits nothing, for None."""
    return math.inf if value is None else checks.number(name, value, above=0)


def _switch(name, value):
    """True or False."""
    return bool(checks.choice(name, value, (True, False)))


class Optimizer:
    """What optimizers share.

    Subclasses define `_state` (names of their state arrays), `_options` (names of what the rule is told, and what
    checks each) and `_update`.

    Raises
    ------
    ValueError
        If an option is out of range, or a group has no parameter.
    """

    _state = ()
    _options = {
        "lr": _not_negative, "weight_decay": _not_negative, "l1": _not_negative, "clip_norm": _limit,
        "clip_value": _limit,
    }  # fmt: skip

    def __init__(self, parameters, lr, weight_decay=0.0, l1=0.0, clip_norm=None, clip_value=None, groups=()):
        self.parameters, self.steps = parameters, 0
        self._set(lr=lr, weight_decay=weight_decay, l1=l1, clip_norm=clip_norm, clip_value=clip_value)
        self.state = {name: device.zeros(parameters.data.shape, parameters.data) for name in self._state}
        self._groups, self._trainable = tuple(groups), _trainable(parameters)
        self._spans = list(_spans(parameters, self._groups, self._trainable))

    def _set(self, **options):
        for name, value in options.items():
            setattr(self, name, self._options[name](name, value))

    def step(self):
        """Update the parameters in place from their gradients: one pass over each part that has the same options."""
        self.steps += 1
        if self._trainable != _trainable(self.parameters):  # layers were frozen, or thawed
            self._trainable = _trainable(self.parameters)
            self._spans = list(_spans(self.parameters, self._groups, self._trainable))
        grad_scale = self._grad_scale(self.parameters.grad)
        for first, last, group in self._spans:
            if group.frozen:
                continue
            w, dw, *state = (a[first:last] for a in (self.parameters.data, self.parameters.grad, *self.state.values()))
            options = {name: getattr(group if name in group.says else self, name) for name in _OF_GROUPS}
            self._update(w, dw, *state, lr=self.lr * group.lr, **options, grad_scale=grad_scale, out=(w, *state))

    def over(self, parameters):
        """A copy of the optimizer and its state that updates other parameters, those of a copy of the net."""
        twin = copy.copy(self)
        twin.parameters, twin.state = parameters, {name: device.copy(array) for name, array in self.state.items()}
        return twin

    def _grad_scale(self, grad):
        if self.clip_norm == math.inf:
            return 1.0
        if not any(group.frozen for *_, group in self._spans):
            return floor("optim", grad).clip_scale(grad, self.clip_norm)
        learned = [grad[first:last] for first, last, group in self._spans if not group.frozen]
        norms = np.array([math.sqrt(float(floor("optim", part).squared_norm(part))) for part in learned])
        return host_floor("optim").clip_scale(norms, self.clip_norm)  # the norm of parts' norms is that of the whole

    def _update(self, w, dw, *state, **common):
        raise NotImplementedError

    def state_dict(self):
        """All that a step depends on but parameters and groups: what is stored with them to go on later.

        Returns
        -------
        dict
            "optimizer", the name of the class; "steps", how many were taken; the options, numbers and booleans under
            their own names (limits are infinite where there are none); and the state arrays (not copies).
        """
        options = {name: _scalar(name, getattr(self, name)) for name in self._options}
        return {"optimizer": type(self).__name__, "steps": self.steps, **options, **self.state}

    def load_state_dict(self, state):
        """Take over what `state_dict` gave; numbers may also be arrays without axes.

        Raises
        ------
        ValueError
            If it is of another optimizer, names are missing or unknown, or an entry is out of range, of another kind or
            shape; the message names it, and nothing is changed then.
        """
        own = self.state_dict()
        if "optimizer" in state:
            found = _scalar("state['optimizer']", state["optimizer"], "U")
            if found != own["optimizer"]:
                raise ValueError(f"state['optimizer']: expected {own['optimizer']}, got {found}")
        if own.keys() != state.keys():
            missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise ValueError(
                f"state: not of this {own['optimizer']}; missing {missing or 'nothing'}, unknown {unknown or 'nothing'}"
            )
        steps = checks.integer("state['steps']", _scalar("state['steps']", state["steps"], "iu"), 0)
        options = {}
        for name, check in self._options.items():
            entry = f"state[{name!r}]"
            options[name] = check(entry, _scalar(entry, state[name]))
        arrays = {name: checks.as_array(f"state[{name!r}]", state[name]) for name in self.state}
        for name, array in arrays.items():
            checks.shape(f"state[{name!r}]", array, self.state[name].shape)
            if array.dtype.kind not in "fiu":
                raise ValueError(f"state[{name!r}]: expected numbers, got {array.dtype}")
        vars(self).update(options, steps=steps)
        for name, array in arrays.items():
            device.assign(self.state[name], array)


class SGD(Optimizer):
    """w -= lr g; with momentum v = momentum v + g, w -= lr v; Nesterov: w -= lr (g + momentum v)."""

    _state = ("velocity",)
    _options = {**Optimizer._options, "momentum": _share, "nesterov": _switch}

    def __init__(self, parameters, lr, momentum=0.0, nesterov=False, **common):
        self._set(momentum=momentum, nesterov=nesterov)
        if momentum == 0:
            self._state = ()
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, *state, **common):
        if not state:
            floor("optim", w).sgd_update(w, dw, **common)
        else:
            floor("optim", w).momentum_update(w, dw, *state, rho=self.momentum, nesterov=self.nesterov, **common)


class Adagrad(Optimizer):
    """G += g^2, w -= lr g / (sqrt(G) + eps), or sqrt(G + eps) with `eps_inside`."""

    _state = ("square_sum",)
    _options = {**Optimizer._options, "eps": _not_negative, "eps_inside": _switch}

    def __init__(self, parameters, lr=1e-2, eps=1e-8, eps_inside=False, **common):
        self._set(eps=eps, eps_inside=eps_inside)
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, g2, **common):
        floor("optim", w).adagrad_update(w, dw, g2, eps=self.eps, eps_inside=self.eps_inside, **common)


class RMSProp(Optimizer):
    """G = decay G + (1 - decay) g^2, w -= lr g / (sqrt(G) + eps), or sqrt(G + eps) with `eps_inside`."""

    _state = ("square_average",)
    _options = {**Optimizer._options, "decay": _share, "eps": _not_negative, "eps_inside": _switch}

    def __init__(self, parameters, lr=1e-2, decay=0.9, eps=1e-8, eps_inside=False, **common):
        self._set(decay=decay, eps=eps, eps_inside=eps_inside)
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, g2, **common):
        rules = dict(decay=self.decay, eps=self.eps, eps_inside=self.eps_inside)
        floor("optim", w).rmsprop_update(w, dw, g2, **rules, **common)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2014), with beta1 and beta2 in [0, 1); `AdamW` is the same with decoupled weight decay."""

    _state = ("first_moment", "second_moment")
    _options = {
        **Optimizer._options, "beta1": _below_one, "beta2": _below_one, "eps": _not_negative, "eps_inside": _switch,
    }  # fmt: skip
    _decoupled = False

    def __init__(self, parameters, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, eps_inside=False, **common):
        self._set(beta1=beta1, beta2=beta2, eps=eps, eps_inside=eps_inside)
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, m, v, **common):
        rules = dict(beta1=self.beta1, beta2=self.beta2, eps=self.eps, eps_inside=self.eps_inside)
        floor("optim", w).adam_update(w, dw, m, v, self.steps, decoupled=self._decoupled, **rules, **common)


class AdamW(Adam):
    """Adam with decoupled weight decay: w -= lr weight_decay w beside the step (Loshchilov and Hutter 2019)."""

    _decoupled = True

    def __init__(self, parameters, lr=1e-3, weight_decay=0.01, **options):
        super().__init__(parameters, lr, weight_decay=weight_decay, **options)


def _scalar(name, value, kinds="biuf"):
    """A value of one of these kinds of dtype as Python's own; it may have been stored as an array without axes."""
    array = checks.as_array(name, value)
    if array.ndim or array.dtype.kind not in kinds:
        expected = {"U": "a string", "iu": "a whole number", "biuf": "a number"}[kinds]
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    return array.item()


def _trainable(parameters):
    """Which of the parameters are not frozen; empty for plain arrays, of which nothing is known."""
    return getattr(parameters, "trainable", ())


def _spans(parameters, groups, trainable):
    """(first, last, options) of parts of the flat buffer, as few as there can be."""
    if not groups and all(trainable):
        yield 0, parameters.data.size, Group("*")
        return
    places = [(*place, shape) for place, shape in zip(parameters.names, parameters.shapes, strict=True)]
    for group in groups:
        if not any(group.holds(name, shape) for name, _, _, shape in places):
            raise ValueError(f"groups: no parameter matches {group.match!r}")
    options = []
    for (name, first, last, shape), learned in itertools.zip_longest(places, trainable, fillvalue=True):
        merged = Group("*", frozen=not learned)
        for group in groups:
            merged = group.over(merged) if group.holds(name, shape) else merged
        options.append((merged, first, last))
    for merged, parts in itertools.groupby(options, key=operator.itemgetter(0)):
        ends = [end for _, *both in parts for end in both]
        yield ends[0], ends[-1], merged
