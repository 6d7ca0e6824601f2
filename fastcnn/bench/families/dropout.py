"""Dropout, forward and backward."""

import math

from fastcnn.bench.cases import Case, normal

_SHAPES = {"feature map": (64, 64, 32, 32), "vector": (128, 4096)}


def cases(larger=1):
    """Half of the elements are dropped; of so many times the images."""
    shapes = {name: (larger * shape[0], *shape[1:]) for name, shape in _SHAPES.items()}
    return [
        Case(
            name=f"dropout_training {name}",
            family="dropout",
            work="dropout_training",
            params=dict(shape=shape, drop=0.5),
            nbytes=4 * 4 * math.prod(shape),
            quick=name == "feature map",
            comparable=False,  # every library draws its own numbers
        )
        for name, shape in shapes.items()
    ]


def inputs(case, rng):
    """x and the gradient of the output."""
    return {name: normal(rng, *case.params["shape"]) for name in ("x", "dout")}
