"""fastcnn: the layers of NumPy convolutional nets, at the speed of compiled kernels.

`fastcnn.layers` holds the functions that NumPy nets call; `fastcnn.compat.cs231n` the same under a course's names.
Submodules are imported when first used; importing compiles nothing.
"""

import importlib

from fastcnn.layers.algorithm import conv_algorithm, use_conv_algorithm
from fastcnn.layers.backend import backend, get_backend, set_backend
from fastcnn.layers.device import to_device, to_host

__version__ = "0.1.0"

_SUBMODULES = ("catalogue", "compat", "data", "layers", "nn", "optim", "shapes", "train", "validate")
_LATE = {
    "get_num_threads": "fastcnn.cpu.jit",
    "set_num_threads": "fastcnn.cpu.jit",
    "use_stream": "fastcnn.cuda.jit",
}  # where what needs a compiler comes from, when it is first asked for

__all__ = [
    "__version__",
    "backend",
    "conv_algorithm",
    "get_backend",
    "set_backend",
    "to_device",
    "to_host",
    "use_conv_algorithm",
    *_LATE,
    *_SUBMODULES,
]


def __getattr__(name):
    if name in _SUBMODULES:
        return importlib.import_module(f"fastcnn.{name}")
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module 'fastcnn' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
