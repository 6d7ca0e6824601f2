"""Optimizers over one flat buffer of parameters; the arithmetic is that of the floors' update rules.

Every optimizer takes `parameters` with flat arrays `data` and `grad` (`nn.FlatParameters`), the learning rate `lr` (an
attribute that a schedule may set before each step), `weight_decay` and `l1` (added to the gradient: weight_decay w +
l1 sign w), `clip_norm`: gradients of a larger Euclidean norm are scaled down to it; and `groups` of parameters that
have options of their own.
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
    """

    match: str | Callable
    lr: float = 1.0
    weight_decay: float | None = None
    l1: float | None = None
    frozen: bool = False

    def __post_init__(self):
        for name in ("lr", "weight_decay", "l1"):
            if getattr(self, name) is not None:
                checks.number(name, getattr(self, name), 0)

    def holds(self, name, shape):
        """Whether a parameter belongs to the group."""
        return bool(self.match(name, shape)) if callable(self.match) else fnmatch.fnmatchcase(name, self.match)

    def over(self, other):
        """This group's options where it says something, else those of `other`."""
        own = {name: getattr(self, name) for name in ("weight_decay", "l1")}
        kept = {name: getattr(other, name) if value is None else value for name, value in own.items()}
        return Group("*", self.lr * other.lr, **kept, frozen=self.frozen or other.frozen)


def vectors(name, shape):
    """Whether a parameter has one axis: biases, and the scale and shift of normalisations, which often do not decay."""
    return len(shape) == 1


class Optimizer:
    """What optimizers share; subclasses define `_state` (names of their state arrays) and `_update`.

    Raises
    ------
    ValueError
        If an option is out of range, or a group has no parameter.
    """

    _state = ()

    def __init__(self, parameters, lr, weight_decay=0.0, l1=0.0, clip_norm=None, groups=()):
        self.parameters, self.lr = parameters, checks.number("lr", lr, 0)
        self.weight_decay, self.l1 = checks.number("weight_decay", weight_decay, 0), checks.number("l1", l1, 0)
        self.clip_norm = None if clip_norm is None else checks.number("clip_norm", clip_norm, above=0)
        self.steps = 0
        self.state = {name: device.zeros(parameters.data.shape, parameters.data) for name in self._state}
        self._groups, self._trainable = tuple(groups), _trainable(parameters)
        self._spans = list(_spans(parameters, self._groups, self._trainable))

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
            decay = self.weight_decay if group.weight_decay is None else group.weight_decay
            penalties = dict(weight_decay=decay, l1=self.l1 if group.l1 is None else group.l1)
            self._update(w, dw, *state, lr=self.lr * group.lr, **penalties, grad_scale=grad_scale, out=(w, *state))

    def over(self, parameters):
        """A copy of the optimizer and its state that updates other parameters, those of a copy of the net."""
        twin = copy.copy(self)
        twin.parameters, twin.state = parameters, {name: device.copy(array) for name, array in self.state.items()}
        return twin

    def _grad_scale(self, grad):
        if self.clip_norm is None:
            return 1.0
        if not any(group.frozen for *_, group in self._spans):
            return floor("optim", grad).clip_scale(grad, self.clip_norm)
        learned = [grad[first:last] for first, last, group in self._spans if not group.frozen]
        norms = np.array([math.sqrt(float(floor("optim", part).squared_norm(part))) for part in learned])
        return host_floor("optim").clip_scale(norms, self.clip_norm)  # the norm of parts' norms is that of the whole

    def _update(self, w, dw, *state, **common):
        raise NotImplementedError

    def state_dict(self):
        """The number of steps taken, and the state arrays by name (not copies)."""
        return {"steps": self.steps, **self.state}

    def load_state_dict(self, state):
        """Take over what `state_dict` gave; ValueError, and nothing changed, if names or shapes differ."""
        if state.keys() != self.state_dict().keys():
            raise ValueError(f"state: expected {sorted(self.state_dict())}, got {sorted(state)}")
        for name, array in self.state.items():
            if np.shape(state[name]) != array.shape:
                raise ValueError(f"state[{name!r}]: expected shape {array.shape}, got {np.shape(state[name])}")
        self.steps = int(state["steps"])
        for name, array in self.state.items():
            device.assign(array, state[name])


class SGD(Optimizer):
    """w -= lr g; with momentum v = momentum v + g, w -= lr v; Nesterov: w -= lr (g + momentum v)."""

    _state = ("velocity",)

    def __init__(self, parameters, lr, momentum=0.0, nesterov=False, **common):
        self.momentum, self.nesterov = checks.number("momentum", momentum, 0, 1), nesterov
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

    def __init__(self, parameters, lr=1e-2, eps=1e-8, eps_inside=False, **common):
        self.eps, self.eps_inside = checks.number("eps", eps, 0), eps_inside
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, g2, **common):
        floor("optim", w).adagrad_update(w, dw, g2, eps=self.eps, eps_inside=self.eps_inside, **common)


class RMSProp(Optimizer):
    """G = decay G + (1 - decay) g^2, w -= lr g / (sqrt(G) + eps), or sqrt(G + eps) with `eps_inside`."""

    _state = ("square_average",)

    def __init__(self, parameters, lr=1e-2, decay=0.9, eps=1e-8, eps_inside=False, **common):
        self.decay = checks.number("decay", decay, 0, 1)
        self.eps, self.eps_inside = checks.number("eps", eps, 0), eps_inside
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, g2, **common):
        rules = dict(decay=self.decay, eps=self.eps, eps_inside=self.eps_inside)
        floor("optim", w).rmsprop_update(w, dw, g2, **rules, **common)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2014), with beta1 and beta2 in [0, 1); `AdamW` is the same with decoupled weight decay."""

    _state = ("first_moment", "second_moment")
    _decoupled = False

    def __init__(self, parameters, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, eps_inside=False, **common):
        self.beta1, self.beta2 = checks.number("beta1", beta1, 0, 1), checks.number("beta2", beta2, 0, 1)
        if max(self.beta1, self.beta2) == 1:
            raise ValueError(f"beta1, beta2: expected numbers in [0, 1), got {beta1} and {beta2}")
        self.eps, self.eps_inside = checks.number("eps", eps, 0), eps_inside
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, m, v, **common):
        rules = dict(beta1=self.beta1, beta2=self.beta2, eps=self.eps, eps_inside=self.eps_inside)
        floor("optim", w).adam_update(w, dw, m, v, self.steps, decoupled=self._decoupled, **rules, **common)


class AdamW(Adam):
    """Adam with decoupled weight decay: w -= lr weight_decay w beside the step (Loshchilov and Hutter 2019)."""

    _decoupled = True

    def __init__(self, parameters, lr=1e-3, weight_decay=0.01, **options):
        super().__init__(parameters, lr, weight_decay=weight_decay, **options)


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
