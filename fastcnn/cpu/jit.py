"""How this floor compiles: the only place with compiler flags, the on-disk cache, and the guard around threads.

`jit` compiles a helper that other kernels inline. `parallel` compiles a driver with `prange` and makes it safe to
call from several threads and from forked children. Both compile on first call, never on import.
"""

import os
import threading

import numba
import numba.np.ufunc.parallel as _threading_layer
from numba import prange  # noqa: F401  kernels import it from here
from numba.core import config

from fastcnn.cpu.cache import KernelCache

# `nnan` and `ninf` are left out on purpose: a NaN that comes in must come out.
FASTMATH = frozenset({"contract", "reassoc", "nsz", "arcp", "afn"})
_FLAGS = dict(nogil=True, error_model="numpy", fastmath=set(FASTMATH))
# The drivers are hand-written `prange` loops; numba's search for other parallelism only costs compile time.
_PRANGE_ONLY = dict.fromkeys(("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False)
_PRANGE_ONLY["prange"] = True


def jit(function, parallel=False):
    """Compile `function` with this floor's flags and cache; under NUMBA_DISABLE_JIT return it unchanged."""
    dispatcher = numba.njit(parallel=_PRANGE_ONLY if parallel else False, **_FLAGS)(function)
    if not config.DISABLE_JIT:
        dispatcher._cache = KernelCache(function, parallel)
    return dispatcher


class parallel:  # noqa: N801  a decorator
    """A driver over `prange`, called like the function it decorates.

    Numba's threading layers have sharp edges: the OpenMP layer kills a forked child at its first parallel kernel, and
    the workqueue layer kills the process when two threads launch kernels at once. So each driver has a serial twin,
    compiled from the same text, for children forked after threads were started; and launches take turns until the
    layer is known to allow several at once.
    """

    def __init__(self, function):
        self.__name__, self.__doc__, self.__wrapped__ = function.__name__, function.__doc__, function
        self.threaded = jit(function, parallel=True)
        self.serial = jit(function)

    def __call__(self, *args):
        if _launch.free:
            return self.threaded(*args)
        if _launch.serial:
            return self.serial(*args)
        with _launch.turn:
            result = self.threaded(*args)
            _launch.look()
            return result


class _Launch:
    """What is known about launching parallel kernels in this process."""

    def __init__(self):
        self.free = bool(config.DISABLE_JIT)  # several threads may launch at once
        self.serial = False  # parallel kernels must not be launched at all
        self.turn = threading.RLock()

    def look(self):
        """After a first launch: has the layer room for several launches at once?"""
        self.free = _threading_layer._is_initialized and numba.threading_layer() != "workqueue"

    def after_fork(self):
        """In a forked child: threads started by the parent, ours or another library's, do not exist here."""
        self.__init__()
        self.serial = not self.free and _threading_layer._is_initialized


_launch = _Launch()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_launch.after_fork)


def set_num_threads(n):
    """Use `n` threads for kernels called from this thread; results do not depend on it.

    Raises
    ------
    ValueError
        If `n` is not between 1 and the number numba was started with (NUMBA_NUM_THREADS, by default all cores).
    """
    most = config.NUMBA_NUM_THREADS
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        raise ValueError(
            f"n: expected a number of threads from 1 to {most} (set NUMBA_NUM_THREADS before starting Python for more), "
            f"got {n!r}"
        )
    numba.set_num_threads(n)


def get_num_threads():
    """Number of threads that kernels called from this thread use."""
    return 1 if _launch.serial else numba.get_num_threads()
