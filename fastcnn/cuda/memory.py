"""Memory of the GPU, lent to arrays: the driver's own allocation takes longer than most kernels and waits for all."""

import math

import numpy as np
from numba import cuda

from fastcnn.cuda.errors import CudaOutOfMemoryError, translated
from fastcnn.cuda.jit import SIMULATED, current_stream, require_device

MOST = 2**31 - 2**16  # elements of an array: kernels count in 32 bits, a little beyond its end
SMALL, STEPS = 512, 8  # chunks are multiples of SMALL bytes, and of 1 / STEPS of the power of two below their size

_free = {}  # {(number of the GPU, pointer to the stream): {size: [chunk]}}


def interface(pointer, shape, strides, dtype):
    """What ``__cuda_array_interface__`` says of memory at this address; strides in bytes, None for C order."""
    data = {"data": (pointer, False), "shape": tuple(shape), "strides": strides}
    return {**data, "typestr": dtype.str, "version": 2}


class _Lease:
    """What an array taken from the pool stands on: when the array and all its views are gone, its chunk is free."""

    def __init__(self, chunk, shelf, shape, dtype):
        self._chunk, self._shelf = chunk, shelf
        self.__cuda_array_interface__ = interface(chunk.__cuda_array_interface__["data"][0], shape, None, dtype)

    def __del__(self):
        self._shelf.append(self._chunk)


def empty(shape, dtype):
    """An uninitialised C-contiguous device array.

    Its memory is used again as soon as no array refers to it, by arrays of the same stream: the kernels that still read
    it are before theirs.

    Raises
    ------
    CudaOutOfMemoryError
        If the GPU has not so much memory, even after what is free here was given back.
    ValueError
        If it has more than MOST elements.
    """
    require_device()
    dtype = np.dtype(dtype)
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if math.prod(shape) > MOST:
        raise ValueError(f"expected at most {MOST:,} elements in an array on a GPU, got the shape {shape}")
    if SIMULATED:
        return cuda.device_array(shape, dtype)
    size = _chunk_size(math.prod(shape) * dtype.itemsize)
    key = cuda.get_current_device().id, int(current_stream())
    shelf = _free.setdefault(key, {}).setdefault(size, [])
    try:
        chunk = shelf.pop()  # another thread may have taken the last one
    except IndexError:
        chunk = _allocate(size)
    return cuda.as_cuda_array(_Lease(chunk, shelf, shape, dtype))


def release():
    """Give the memory that no array uses back to the driver."""
    _free.clear()


def _allocate(size):
    what = f"allocating {size:,} bytes"
    try:
        with translated(what):
            return cuda.device_array(size, np.uint8)
    except CudaOutOfMemoryError:
        release()
        with translated(what):
            return cuda.device_array(size, np.uint8)


def _chunk_size(size):
    """At least `size`, rounded so that few sizes exist and little is wasted."""
    step = max(SMALL, 2 ** max(0, size.bit_length() - 1) // STEPS)
    return max(1, -(-size // step)) * step
