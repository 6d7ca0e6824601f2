"""The course's notebooks pass integer arrays now and then (``b = np.array([0, 128])``)."""

from functools import wraps

import numpy as np


def accept_integers(forward):
    """`forward`, with integer arrays promoted to float64 as NumPy's arithmetic would."""

    @wraps(forward)
    def promoting(*arguments, **keywords):
        return forward(*map(_promote, arguments), **{name: _promote(value) for name, value in keywords.items()})

    return promoting


def _promote(value):
    return value.astype(np.float64) if isinstance(value, np.ndarray) and value.dtype.kind in "biu" else value
