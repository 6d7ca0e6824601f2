"""What the options of a command line stand for: networks, optimizers, schedules, augmentation."""

import json

import numpy as np

from fastcnn import data, nn, optim
from fastcnn.layers import checks

RATES = {"sgd": 0.01, "momentum": 0.01, "nesterov": 0.01, "adagrad": 0.01, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3}
MOMENTUM = 0.9  # of those that have one

_OPTIMIZERS = {"adagrad": optim.Adagrad, "rmsprop": optim.RMSProp, "adam": optim.Adam, "adamw": optim.AdamW}


def network(name, shape, given, more=()):
    """A network as config.json has it, ``{"name": ..., "options": {...}}``, with all its options.

    Parameters
    ----------
    name : str, of `nn.NETWORKS`
    shape : (C, H, W) of the images
    given : dict of options; those that are None were not given
    more : sequence of "key=value", where the value is JSON or else text

    Raises
    ------
    ValueError
        If there is no such network, it lacks an option, or a value is not of the option's kind.
    """
    options = {option: value for option, value in given.items() if value is not None} | network_options(name, more)
    return {"name": name, "options": nn.network_options(name, shape, **options)}


def network_options(name, more):
    """The options of a network that texts "key=value" stand for, a dict; see `network`."""
    options, defaults = {}, nn.network_options(name, (1, 1, 1))
    for text in more:
        option, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--net-option: expected key=value, got {text!r}")
        try:
            options[option] = json.loads(value)
        except ValueError:
            options[option] = value
        if option in defaults:
            expected, fits = _KINDS[type(defaults[option])]
            if not fits(options[option]):
                raise ValueError(f"--net-option {option}: expected {expected}, got {value!r}")
    return options


def _is_whole(value):
    return type(value) is int and value > 0


# What a value is that may stand in the place of a default of some type, in words and as a test.
_KINDS = {
    bool: ("true or false", lambda value: type(value) is bool),
    int: ("a whole number of at least 1", _is_whole),
    float: ("a number", lambda value: type(value) in (int, float)),
    str: ("a word", lambda value: type(value) is str),
    tuple: (
        "a list of whole numbers, as in [500,100]",
        lambda value: type(value) is list and all(map(_is_whole, value)),
    ),
}


def build(shape, classes, seed=0, dtype=np.float32, *, name, options, head=None):
    """The net that config.json describes.

    Parameters
    ----------
    shape : (C, H, W) of the images
    classes, seed, dtype : see `nn.build`
    name, options : see `network`
    head : dict, arguments of `nn.replace_head` for a head that is not the network's own, or None
    """
    net = nn.build(name, shape, classes, seed, dtype, **options)
    return net if head is None else nn.replace_head(net, classes, **head, seed=seed)


def head_in_words(network):
    """What is to be said of a head of another kind, behind name and options of a network of config.json."""
    head = network.get("head")
    if not head:  # the network's own, or a new affine layer in its place
        return ""
    return f", with a head of {' and '.join(map(str, head['hidden']))} hidden neurons (drop {head['drop']:g})"


def optimizer(name, parameters, lr, momentum=None, decay_vectors=True, groups=(), **common):
    """The optimizer of this name.

    Parameters
    ----------
    name : str, of `RATES`
    parameters : nn.FlatParameters
    lr : float
    momentum : float, of "momentum" and "nesterov" alone; None: `MOMENTUM`
    decay_vectors : bool, whether `weight_decay` and `l1` are for parameters of one axis, too
    groups : sequence of optim.Group
    common : `weight_decay`, `l1`, `clip_norm`, `clip_value`

    Raises
    ------
    ValueError
        If an option is out of range, or the optimizer has none of the kind.
    """
    common["groups"] = (*groups, *(() if decay_vectors else (optim.Group(optim.vectors, weight_decay=0.0, l1=0.0),)))
    if name in ("momentum", "nesterov"):
        momentum = MOMENTUM if momentum is None else momentum
        return optim.SGD(parameters, lr, momentum, nesterov=name == "nesterov", **common)
    if momentum is not None:
        raise ValueError(f"--momentum: the optimizer {name} has none")
    return optim.SGD(parameters, lr, **common) if name == "sgd" else _OPTIMIZERS[name](parameters, lr, **common)


def schedule(name, epochs, warm_up=0.0):
    """The schedule of this name, of the progress, over what a warm-up of so many epochs leaves of training."""
    chosen = optim.SCHEDULES[checks.choice("--schedule", name, tuple(optim.SCHEDULES))]
    share = warm_up / epochs
    if not 0 <= share < 1:
        raise ValueError(f"--warm-up: expected fewer than the {epochs} epochs, got {warm_up:g}")
    return optim.schedules.WarmUp(share, optim.schedules.Scaled(chosen, 1 / (1 - share))) if share else chosen


# Of each transform: what makes it, of its numbers and the number of classes; and what these numbers are by default.
_TRANSFORMS = {
    "flip": (lambda p, classes: data.RandomFlip(p), (0.5,)),
    "crop": (lambda pad, classes: data.PadAndCrop(_whole("crop", pad)), (4,)),
    "translate": (lambda fraction, classes: data.Translate(fraction), (0.1,)),
    "rotate": (lambda degrees, classes: data.Rotate(degrees), (15,)),
    "scale": (lambda low, high, classes: data.Scale(low, high), (0.8, 1.25)),
    "color": (lambda *amounts, classes: data.ColorJitter(*amounts), (0.4, 0.4, 0.0, 0.0)),
    "noise": (lambda std, classes: data.Noise(std), (10,)),
    "cutout": (lambda size, classes: data.Cutout(_whole("cutout", size)), (8,)),
    "mixup": (lambda alpha, classes: data.Mixup(alpha, classes), (0.2,)),
}
TRANSFORMS = tuple(_TRANSFORMS)


def transforms(text, classes):
    """The transforms that a text stands for, in the order in which `data.Compose` takes them.

    Parameters
    ----------
    text : str
        Names of `TRANSFORMS` with their numbers, "flip,crop=4,scale=0.8:1.25,mixup=0.2"; of numbers that are left out
        the usual ones are taken.
    classes : int

    Raises
    ------
    ValueError
        If a name is unknown or there twice, or numbers do not fit.
    """
    made = {}
    for part in text.split(","):
        name, equals, numbers = part.strip().partition("=")
        if name not in _TRANSFORMS:
            raise ValueError(f"--augment: expected some of {', '.join(TRANSFORMS)}, got {name!r}")
        if name in made:
            raise ValueError(f"--augment: {name} stands there twice")
        make, defaults = _TRANSFORMS[name]
        try:
            given = tuple(map(float, numbers.split(":"))) if equals else ()
        except ValueError:
            raise ValueError(f"--augment: expected numbers such as {_example(name)}, got {part.strip()!r}") from None
        if len(given) > len(defaults):
            raise ValueError(f"--augment: expected at most {len(defaults)} numbers for {name}, got {part.strip()!r}")
        made[name] = make(*given, *defaults[len(given) :], classes=classes)
    return sorted(made.values(), key=lambda transform: transform.stage)


def _example(name):
    return f"{name}={':'.join(map(str, _TRANSFORMS[name][1]))}"


def _whole(name, number):
    if not float(number).is_integer():
        raise ValueError(f"--augment: expected a whole number for {name}, got {number:g}")
    return int(number)
