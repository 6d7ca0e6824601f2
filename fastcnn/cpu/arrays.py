"""Arrays as kernels want them: C-contiguous and of one numba type per rank and dtype."""

import numpy as np


class _Writable:
    """The memory of a read-only array under an interface that does not say so."""

    def __init__(self, array):
        self.base = array
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def contiguous(x):
    """`x` itself, or a C-contiguous copy of it.

    Numba gives read-only arrays a type of their own; a view that hides the flag spares every kernel a second
    compilation. Kernels never write to their inputs.
    """
    if x.flags.c_contiguous and x.flags.aligned:
        return x if x.flags.writeable else np.asarray(_Writable(x))
    return np.array(x, order="C")


def flat(x):
    """`contiguous(x)` with all axes in one."""
    return contiguous(x).reshape(-1)


def output(out, shape, dtype):
    """`out`, or a new array of that shape and dtype where it is None."""
    return np.empty(shape, dtype) if out is None else out
