"""Optimizer steps over 10 million parameters."""

import numpy as np

from fastcnn.bench.cases import Case, normal

RULES = {  # arrays read and written by a step
    "SGD": 3, "momentum": 5, "Adagrad": 5, "RMSProp": 5, "Adam": 7, "AdamW": 7,
}  # fmt: skip
_PARAMETERS = 10_000_000


def cases():
    """All rules over one flat buffer."""
    return [
        Case(
            name=f"optimizer_step {rule}",
            family="optim",
            work="optimizer_step",
            params=dict(rule=rule, lr=1e-3),
            nbytes=4 * arrays * _PARAMETERS,
            quick=rule == "Adam",
        )
        for rule, arrays in RULES.items()
    ]


def inputs(case, rng):
    """Parameters and their gradient."""
    return {"w": normal(rng, _PARAMETERS), "dw": normal(rng, _PARAMETERS) * np.float32(0.01)}
