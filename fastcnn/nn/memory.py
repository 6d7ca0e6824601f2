"""Memory for arrays that live briefly: gradients on their way back, activations that no backward pass needs."""

import contextlib
import math
from typing import NamedTuple

import numpy as np

from fastcnn.layers import device

ALIGNMENT = 64  # bytes: a cache line, and the widest vectors


def aligned(size):
    """`size` bytes of memory that begin at a cache line."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size]


def _size_and_address(chunk):
    return chunk.size, chunk.ctypes.data


class _Lease:
    """What an array taken from a `Memory` stands on: when the array and all its views are gone, the memory is free."""

    __slots__ = ("__array_interface__", "_chunk", "memory")

    def __init__(self, memory, chunk, shape, dtype):
        self.memory, self._chunk = memory, chunk
        data = (chunk.ctypes.data, False)
        self.__array_interface__ = {"shape": tuple(shape), "typestr": dtype.str, "data": data, "version": 3}

    def __del__(self):
        self.memory.free.append(self._chunk)


class Memory:
    """Lends memory to arrays, and lends it again once they are gone: the layers of a net share one.

    A backward pass then needs as many buffers as there are gradients at a time, two or three, and none of them is
    allocated a second time. They are made as large as the largest array that is expected: what an array does not touch
    of its buffer costs nothing, and buffers that were outgrown would leave holes.

    Attributes
    ----------
    free : list of arrays of bytes
    watch : function of an address and a size, called with those of each array that is lent; or None
    """

    watch = None

    def __init__(self):
        self.free = []
        self._largest = 0
        self._passing = False

    def __reduce__(self):
        return Memory, ()  # a copy of a net has memory of its own

    def take(self, shape, like):
        """An uninitialised C-contiguous array of another's dtype, in memory that was free or in place of such.

        Beside an array on a GPU it is the CUDA floor's memory, which is lent in the same way.
        """
        if device.is_device(like):
            return device.empty(shape, like)
        dtype = like.dtype
        size = math.prod(shape) * dtype.itemsize
        self.expect(size)
        chunk = self._fitting(size)
        if chunk is None:
            chunk = aligned(self._largest)
        if self.watch is not None:
            self.watch(chunk.ctypes.data, size)
        return np.asarray(_Lease(self, chunk, shape, dtype))

    def _fitting(self, size):
        """Takes the smallest free memory that suffices, of equals what was used last, which is in cache.

        If there is none, None; and some is given up in return.
        """
        best = None
        for i, chunk in enumerate(self.free):
            if chunk.size >= size and (best is None or chunk.size <= self.free[best].size):
                best = i
        if best is not None:
            return self.free.pop(best)
        if self.free:
            self.free.pop()
        return None

    def expect(self, size):
        """There will be arrays of so many bytes."""
        self._largest = max(self._largest, size)

    @contextlib.contextmanager
    def passing(self, *arrays):
        """A pass of a container: within it layers may write over arrays of this memory that are handed to them.

        Gives the arrays to begin with, a tuple: read-only for the outermost container, since whoever called it may
        still need them.
        """
        outermost, self._passing = not self._passing, True
        if outermost:  # so that each pass takes the same memory for the same arrays
            self.free.sort(key=_size_and_address)
        try:
            yield tuple(map(shared, arrays)) if outermost else arrays
        finally:
            self._passing = not outermost

    def over(self, array):
        """An array like this one: itself if it may be written over, otherwise another."""
        return array if self.owns(array) else self.take(array.shape, array)

    def owns(self, array):
        """Whether an array may be written over."""
        base = array
        while isinstance(base, np.ndarray):
            base = base.base
        return self._passing and isinstance(base, _Lease) and base.memory is self and array.flags.carray


class Form(NamedTuple):
    """What is left of an array that is no longer there."""

    shape: tuple
    dtype: np.dtype

    @classmethod
    def of(cls, array):
        """The form of a NumPy array; of another, the array itself."""
        return cls(array.shape, array.dtype) if isinstance(array, np.ndarray) else array


def shared(array):
    """A view of the array that says by being read-only: still needed, not to be written over."""
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view
