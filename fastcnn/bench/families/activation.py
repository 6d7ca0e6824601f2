"""Activations, forward and backward, and the residual sum with its ReLU."""

import math

from fastcnn.bench.cases import Case, normal

NAMES = ("relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh")
_SHAPE = (64, 64, 32, 32)


def cases(larger=1):
    """All on one feature map of ResNet-18 at CIFAR size, with so many times the images."""
    shape = (larger * _SHAPE[0], *_SHAPE[1:])
    activations = [_case("activation_training", name, 5, shape) for name in NAMES]
    return [*activations, _case("add_relu_training", "residual", 6, shape)]


def _case(work, name, arrays, shape):
    return Case(
        name=f"{work} {name}",
        family="activation",
        work=work,
        params=dict(name=name, shape=shape),
        nbytes=4 * arrays * math.prod(shape),
        tags=(name,),
        quick=name in ("relu", "gelu"),
    )


def inputs(case, rng):
    """x, another array for the sum, and the gradient of the output."""
    return {name: normal(rng, *case.params["shape"]) for name in ("x", "other", "dout")}
