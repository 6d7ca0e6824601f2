"""Which floor computes: the switch between the reference, the CPU kernels and the GPU kernels.

The choice is a context variable: each thread and each asynchronous task has its own, and starts with the default, which
is the environment variable ``FASTCNN_BACKEND`` or else ``"cpu"``.
"""

import os
from contextvars import ContextVar
from importlib import import_module

BACKENDS = ("reference", "cpu", "cuda")
DEFAULT = os.environ.get("FASTCNN_BACKEND") or "cpu"

_current = ContextVar("fastcnn_backend", default=DEFAULT)
_modules = {}


class backend:  # lower case: it reads as a statement, `with backend("reference"):`
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

    def __init__(self, name):
        self._name = _known(name)
        self._tokens = []

    def __enter__(self):
        self._tokens.append(_current.set(self._name))
        return self._name

    def __exit__(self, *exception):
        _current.reset(self._tokens.pop())


def set_backend(name):
    """Use one floor from here on, in this thread or task."""
    _current.set(_known(name))


def get_backend():
    """The name of the floor in use."""
    return _known(_current.get())


def floor(family):
    """The module of one op family on the floor in use: ``floor("conv")`` is ``fastcnn.cpu.conv``, for instance."""
    key = _current.get(), family
    module = _modules.get(key)
    if module is None:  # floors are loaded when first used: the reference needs no compiler
        module = _modules[key] = import_module(f"fastcnn.{_known(key[0])}.{family}")
    return module


def _known(name):
    if name in BACKENDS:
        return name
    raise ValueError(f"unknown backend {name!r}; there are {', '.join(map(repr, BACKENDS))}")
