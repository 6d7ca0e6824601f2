"""Activations, forward and backward, and the residual sum with its ReLU."""

import math

from fastcnn.bench.cases import Case, normal

NAMES = ("relu", "leaky_relu", "elu", "gelu", "sigmoid", "tanh")
_SHAPE = (64, 64, 32, 32)


def cases():
    """All on one feature map of ResNet-18 at CIFAR size."""
    return [*(_case("activation_training", name, 5) for name in NAMES), _case("add_relu_training", "residual", 6)]


def _case(work, name, arrays):
    return Case(
        name=f"{work} {name}",
        family="activation",
        work=work,
        params=dict(name=name, shape=_SHAPE),
        nbytes=4 * arrays * math.prod(_SHAPE),
        tags=(name,),
        quick=name in ("relu", "gelu"),
    )


def inputs(case, rng):
    """x, another array for the sum, and the gradient of the output."""
    return {name: normal(rng, *case.params["shape"]) for name in ("x", "other", "dout")}
