"""What the layers know about arrays on a GPU: that they are such, and how the CUDA floor is asked about them.

Nothing of CUDA is loaded before such an array is met.
"""

from importlib import import_module

import numpy as np

from fastcnn.common.device import is_device


def arrays():
    """`fastcnn.cuda.arrays`."""
    return import_module("fastcnn.cuda.arrays")


def unavailable():
    """Why no GPU can be used here, in a line; None where one can."""
    jit, errors = import_module("fastcnn.cuda.jit"), import_module("fastcnn.cuda.errors")
    try:
        jit.require_device()
    except errors.CudaUnavailableError as error:
        return " ".join(str(error).split())
    return None


def to_device(value):
    """An array, or a net, on the current GPU.

    Parameters
    ----------
    value : array, or nn.Module
        Of an array the copy is returned (an array on the GPU already, itself). A net is moved: its parameters,
        gradients and statistics lie on the GPU from here on, and so do the optimizers made of it afterwards.

    Raises
    ------
    CudaUnavailableError
        If there is nothing to run on: no numba-cuda, no driver, no GPU, or one that is too old.
    CudaOutOfMemoryError
        If it does not fit; a net is then as it was.
    """
    return value.to(arrays().to_device) if hasattr(value, "named_parameters") else arrays().to_device(value)


def to_host(value):
    """An array, or a net, in the memory of the host; the opposite of `to_device`. Waits for what computes it."""
    if hasattr(value, "named_parameters"):
        return value.to(to_host)
    return arrays().to_host(value) if is_device(value) else value


def empty(shape, like):
    """An uninitialised array of this shape, of the dtype of another and in its memory, the GPU's or the host's."""
    return arrays().empty(shape, like.dtype) if is_device(like) else np.empty(shape, like.dtype)


def zeros(shape, like):
    """An array of zeros of this shape, of the dtype of another and in its memory."""
    return arrays().filled(shape, 0, like.dtype) if is_device(like) else np.zeros(shape, like.dtype)


def copy(array, dtype=None):
    """A C-contiguous copy in the same memory, of another dtype if wanted."""
    return arrays().copy(array, dtype) if is_device(array) else np.array(array, dtype, order="C")


def reshape(array, shape):
    """`array.reshape`, which numba has for contiguous arrays alone."""
    return arrays().contiguous(array).reshape(shape) if is_device(array) else array.reshape(shape)


def assign(target, source):
    """target[...] = source, wherever the two lie; as one step, that an interrupt does not leave half done."""
    if not is_device(target):
        target[...] = to_host(source)
    elif is_device(source):
        arrays().copy(source, out=target)
    else:
        arrays().copy(to_device(np.broadcast_to(source, target.shape).astype(target.dtype)), out=target)
