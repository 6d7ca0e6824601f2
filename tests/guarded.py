"""Arrays that lie against memory which may not be touched: reading or writing past them kills the process.

For use in a process of its own (`run_python`).
"""

import ctypes
import mmap

import numpy as np

SIDES = ("before", "after")


def guarded(value, side):
    """A copy of an array flush against a guard page before it or after it; anything else is returned as it is."""
    if not isinstance(value, np.ndarray):
        return value
    page = mmap.PAGESIZE
    body = max(1, -(-value.nbytes // page)) * page
    memory = mmap.mmap(-1, body + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for guard in (address, address + page + body):
        if protect(guard, page, 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    start = page if side == "before" else page + body - value.nbytes
    array = np.frombuffer(memory, value.dtype, value.size, start).reshape(value.shape)
    array[...] = value
    return array
