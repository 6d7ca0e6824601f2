"""Which arrays lie in the memory of a GPU: told without loading anything of CUDA."""

import numpy as np

_HOST = (np.ndarray, np.generic, list, tuple, int, float, type(None))
_CUDA, _CUDA_MANAGED = 2, 13  # of DLPack's device types


def is_device(array):
    """Whether an array lies in the memory of an NVIDIA GPU: one of numba's, CuPy's, PyTorch's, ...

    Raises
    ------
    TypeError
        For a tensor of PyTorch that requires a gradient, which gives its memory to nobody.
    """
    if isinstance(array, _HOST):
        return False
    own = getattr(array, "__cuda_ndarray__", False)
    return own or _has_interface(array) or _dlpack_device(array) in (_CUDA, _CUDA_MANAGED)


def _has_interface(array):
    try:
        return hasattr(array, "__cuda_array_interface__")
    except RuntimeError as error:
        raise TypeError(f"expected an array, got {type(array).__name__}: {error}") from error


def _dlpack_device(array):
    try:
        return array.__dlpack_device__()[0]
    except (AttributeError, TypeError, RuntimeError, BufferError):
        return None
