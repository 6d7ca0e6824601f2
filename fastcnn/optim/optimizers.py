"""Optimizers over one flat buffer of parameters; the arithmetic is that of the floors' update rules.

Every optimizer takes `parameters` with flat arrays `data` and `grad` (`nn.FlatParameters`), the learning rate `lr` (an
attribute that a schedule may set before each step), `weight_decay` and `l1` (added to the gradient: weight_decay w +
l1 sign w), and `clip_norm`: gradients of a larger Euclidean norm are scaled down to it.
"""

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor


class Optimizer:
    """What optimizers share; subclasses define `_state` (names of their state arrays) and `_update`."""

    _state = ()

    def __init__(self, parameters, lr, weight_decay=0.0, l1=0.0, clip_norm=None):
        self.parameters, self.lr = parameters, checks.number("lr", lr, 0)
        self.weight_decay, self.l1 = checks.number("weight_decay", weight_decay, 0), checks.number("l1", l1, 0)
        self.clip_norm = None if clip_norm is None else checks.number("clip_norm", clip_norm, above=0)
        self.steps = 0
        self.state = {name: device.zeros(parameters.data.shape, parameters.data) for name in self._state}

    def step(self):
        """Update the parameters in place from their gradients."""
        self.steps += 1
        data, grad, state = self.parameters.data, self.parameters.grad, tuple(self.state.values())
        self._update(data, grad, *state, grad_scale=self._grad_scale(grad), l1=self.l1, out=(data, *state))

    def _grad_scale(self, grad):
        if self.clip_norm is None:
            return 1.0
        return floor("optim", grad).clip_scale(grad, self.clip_norm)

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
            floor("optim", w).sgd_update(w, dw, self.lr, self.weight_decay, **common)
        else:
            rules = dict(rho=self.momentum, nesterov=self.nesterov, weight_decay=self.weight_decay)
            floor("optim", w).momentum_update(w, dw, *state, self.lr, **rules, **common)


class Adagrad(Optimizer):
    """G += g^2, w -= lr g / (sqrt(G) + eps), or sqrt(G + eps) with `eps_inside`."""

    _state = ("square_sum",)

    def __init__(self, parameters, lr=1e-2, eps=1e-8, eps_inside=False, **common):
        self.eps, self.eps_inside = checks.number("eps", eps, 0), eps_inside
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, g2, **common):
        rules = dict(eps=self.eps, eps_inside=self.eps_inside, weight_decay=self.weight_decay)
        floor("optim", w).adagrad_update(w, dw, g2, self.lr, **rules, **common)


class RMSProp(Optimizer):
    """G = decay G + (1 - decay) g^2, w -= lr g / (sqrt(G) + eps), or sqrt(G + eps) with `eps_inside`."""

    _state = ("square_average",)

    def __init__(self, parameters, lr=1e-2, decay=0.9, eps=1e-8, eps_inside=False, **common):
        self.decay = checks.number("decay", decay, 0, 1)
        self.eps, self.eps_inside = checks.number("eps", eps, 0), eps_inside
        super().__init__(parameters, lr, **common)

    def _update(self, w, dw, g2, **common):
        rules = dict(decay=self.decay, eps=self.eps, eps_inside=self.eps_inside, weight_decay=self.weight_decay)
        floor("optim", w).rmsprop_update(w, dw, g2, self.lr, **rules, **common)


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
        decay = dict(weight_decay=self.weight_decay, decoupled=self._decoupled)
        floor("optim", w).adam_update(w, dw, m, v, self.steps, self.lr, **rules, **decay, **common)


class AdamW(Adam):
    """Adam with decoupled weight decay: w -= lr weight_decay w beside the step (Loshchilov and Hutter 2019)."""

    _decoupled = True

    def __init__(self, parameters, lr=1e-3, weight_decay=0.01, **options):
        super().__init__(parameters, lr, weight_decay=weight_decay, **options)
