"""Which floor computes: the switch between the reference, the CPU kernels and the GPU kernels.

The choice is a context variable: each thread and each asynchronous task has its own, and starts with the default, which
is the environment variable ``FASTCNN_BACKEND`` or else ``"cpu"``.
"""

import os
from contextvars import ContextVar
from importlib import import_module

import numpy as np

from fastcnn.layers.context import Choice

BACKENDS = ("reference", "cpu", "cuda")
DEFAULT = os.environ.get("FASTCNN_BACKEND") or "cpu"

_current = ContextVar("fastcnn_backend", default=DEFAULT)
_modules = {}


class backend(Choice):  # lower case: it reads as a statement, `with backend("reference"):`
    """Use one floor inside a ``with`` block.

    Parameters
    ----------
    name : {"reference", "cpu", "cuda"}

    Raises
    ------
    ValueError
        For a name that is no floor, when the object is made.

    Examples
    --------
    >>> with backend("reference"):
    ...     out, cache = relu_forward(x)
    """

    variable = _current

    def __init__(self, name):
        super().__init__(_known(name))


def set_backend(name):
    """Use one floor from here on, in this thread or task."""
    _current.set(_known(name))


def get_backend():
    """The name of the floor in use."""
    return _known(_current.get())


def floor(family, array):
    """The module of one op family on the floor that computes with this array: ``fastcnn.cpu.conv``, for instance.

    An array on a GPU is computed there, whatever the backend; all others by the floor in use.

    Raises
    ------
    TypeError
        If the backend is "cuda" and the array lies in the memory of the host.
    """
    on_device = not isinstance(array, np.ndarray)  # layers have made all else one or the other
    key = "cuda" if on_device else _current.get(), family
    if key[0] == "cuda" and not on_device:
        raise TypeError(
            "the backend is 'cuda', which computes with arrays on the GPU, but got arrays in the memory of the host; "
            "fastcnn.to_device copies them"
        )
    return _module(*key)


def host_floor(family):
    """The module of one op family that computes in the memory of the host: for the backend "cuda", that of the CPU."""
    name = _current.get()
    return _module("cpu" if name == "cuda" else name, family)


def _module(name, family):
    module = _modules.get((name, family))
    if module is None:  # floors are loaded when first used: the reference needs no compiler
        module = _modules[name, family] = import_module(f"fastcnn.{_known(name)}.{family}")
    return module


def _known(name):
    if name in BACKENDS:
        return name
    raise ValueError(f"unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
