"""Every op of the catalogue at a large case, beside its reference: a new op is measured without further ado."""

import numpy as np

from fastcnn.bench.cases import Case
from fastcnn.catalogue import OPS


def cases():
    """Operations and bytes are known when the inputs are (`costs` of what runs it)."""
    return [
        Case(
            name=f"{name} of the catalogue",
            family="ops",
            work="catalogue_op",
            params=dict(op=name),
            quick=name == "relu_forward",
        )
        for name in OPS
    ]


def inputs(case, rng):
    """The arguments of the op's largest case that leaves the algorithm to us, arrays in float32."""
    op = OPS[case.params["op"]]
    cases = [(level, values) for level, values in op.cases if values.get("algo", "auto") == "auto"]
    large = [values for level, values in cases if level == "thorough"] or [values for _, values in cases]
    return op.arguments(rng, large[-1], np.float32)
