"""Update rules with CS231n's interface: ``next_w, config = rule(w, dw, config)``.

w and dw are arrays of one shape, float32 or float64. `config` is a dictionary of hyper-parameters and state, or None;
it is returned with defaults and state filled in, the state always as new arrays. Neither w nor dw nor the old state is
modified. The adaptive rules divide by sqrt(.) + epsilon, or by sqrt(. + epsilon) where ``config['eps_inside']`` is
true. All raise TypeError for arrays that are not floating-point and ValueError for shapes and numbers that do not fit;
config is untouched then.
"""

from math import inf, nextafter

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor


def sgd(w, dw, config=None):
    """w - lr dw. Defaults: learning_rate 1e-2."""
    return _update("sgd_update", w, dw, config, {"learning_rate": 1e-2})


def sgd_momentum(w, dw, config=None):
    """v = momentum v - lr dw, w + v. Defaults: learning_rate 1e-2, momentum 0.9. State: velocity."""
    defaults = {"learning_rate": 1e-2, "momentum": 0.9}
    return _update("momentum_update", w, dw, config, defaults, ("velocity",), lr_in_velocity=True)


def nesterov(w, dw, config=None):
    """v = momentum v - lr dw, w + momentum v - lr dw (Sutskever et al. 2013). Defaults and state as `sgd_momentum`."""
    defaults = {"learning_rate": 1e-2, "momentum": 0.9}
    return _update("momentum_update", w, dw, config, defaults, ("velocity",), lr_in_velocity=True, nesterov=True)


def adagrad(w, dw, config=None):
    """cache = cache + dw^2, w - lr dw / root(cache) (Duchi et al. 2011). Defaults: learning_rate 1e-2, epsilon 1e-8."""
    return _update("adagrad_update", w, dw, config, {"learning_rate": 1e-2, "epsilon": 1e-8}, ("cache",))


def rmsprop(w, dw, config=None):
    """cache = decay cache + (1 - decay) dw^2, w - lr dw / root(cache) (Tieleman & Hinton 2012).

    Defaults: learning_rate 1e-2, decay_rate 0.99, epsilon 1e-8. State: cache.
    """
    defaults = {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8}
    return _update("rmsprop_update", w, dw, config, defaults, ("cache",))


def adam(w, dw, config=None):
    """m = beta1 m + (1 - beta1) dw, v = beta2 v + (1 - beta2) dw^2, w - lr mhat / root(vhat) (Kingma & Ba 2014).

    Defaults: learning_rate 1e-3, beta1 0.9, beta2 0.999, epsilon 1e-8. State: m, v and t, the number of steps taken.
    """
    return _update("adam_update", w, dw, config, _ADAM, ("m", "v"))


def adamw(w, dw, config=None):
    """`adam` with decoupled weight decay, w - lr (mhat / root(vhat) + weight_decay w); weight_decay 1e-2 by default.

    Source: Loshchilov & Hutter 2019.
    """
    return _update("adam_update", w, dw, config, {**_ADAM, "weight_decay": 1e-2}, ("m", "v"), decoupled=True)


_ADAM = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "t": 0}

# config's name: the floor's name, lowest and highest value
_NUMBERS = {
    "learning_rate": ("lr", -inf, inf),
    "momentum": ("rho", 0, 1),
    "decay_rate": ("decay", 0, 1),
    "beta1": ("beta1", 0, nextafter(1, 0)),  # 1 would divide by zero
    "beta2": ("beta2", 0, nextafter(1, 0)),
    "epsilon": ("eps", 0, inf),
    "weight_decay": ("weight_decay", 0, inf),
}


def _update(rule, w, dw, config, defaults, state=(), **options):
    """Check, run the floor's rule, and only then write defaults and new state into config."""
    settings = {**defaults, **checks.parameters("config", config, {})}
    for name in defaults:
        if name == "t":
            options["t"] = settings["t"] = checks.integer("t", settings["t"], 0) + 1
        else:
            floor_name, low, high = _NUMBERS[name]
            options[floor_name] = checks.number(name, settings[name], low, high)
    if "epsilon" in defaults:
        options["eps_inside"] = bool(settings.get("eps_inside", False))
    arrays = {"w": w, "dw": dw, **{name: settings[name] for name in state if settings.get(name) is not None}}
    arrays = dict(zip(arrays, checks.floats(**arrays), strict=True))
    w = arrays["w"]
    for name in state:
        arrays.setdefault(name, device.zeros(w.shape, w))
    for name, array in arrays.items():
        checks.shape(name, array, w.shape)
    next_w, *new_state = getattr(floor("optim", w), rule)(w, arrays["dw"], *(arrays[name] for name in state), **options)
    config = {} if config is None else config
    config.update(settings)
    config.update(zip(state, new_state, strict=True))
    return next_w, config
