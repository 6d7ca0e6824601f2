"""Running kernels as Python on a machine without a GPU: numba's simulator provides the arrays, this file the threads.

numba's own runs every CUDA thread as a thread of the system and polls them, which takes minutes where this takes a
second. It is also stricter: it runs threads in another order in each stretch between barriers and poisons shared
memory, so that a missing barrier or an element that nobody wrote shows; it refuses indices outside an array, and
barriers that not all threads of a block reach.
"""

import contextlib
import itertools
import random
import sys
import types as python_types

import numpy as np
from numba import cuda
from numba.core import types
from numba.np.numpy_support import as_dtype

_PACKAGE = __name__.rpartition(".")[0]


class Dim3:
    """Sizes of, or a place in, a grid or block."""

    def __init__(self, x, y=1, z=1):
        self.x, self.y, self.z = x, y, z


class Checked(np.ndarray):
    """An array whose elements are reached by indices in range alone, as negative ones are not on a GPU."""

    def __getitem__(self, index):
        self._check(index)
        return np.ndarray.__getitem__(self, index)

    def __setitem__(self, index, value):
        self._check(index)
        np.ndarray.__setitem__(self, index, value)

    def _check(self, index):
        """Refuse negative indices; NumPy refuses those that are too large."""
        for i in index if type(index) is tuple else (index,):
            if type(i) is not slice and i < 0:
                raise IndexError(f"index {index} is outside an array of shape {self.shape}")


class SimulatedDevice:
    """What the name ``cuda`` means within a kernel."""

    def __init__(self, grid, block):
        self.gridDim, self.blockDim = Dim3(*grid), Dim3(*block)
        self.blockIdx = self.threadIdx = None
        self.shared = python_types.SimpleNamespace(array=self._shared_array)
        self.local = python_types.SimpleNamespace(array=_array)
        self._shared = {}

    def grid(self, axes):
        """The number of this thread in the grid, along as many axes."""
        parts = zip(_sizes(self.blockIdx), _sizes(self.blockDim), _sizes(self.threadIdx))
        numbers = [block * size + thread for block, size, thread in parts]
        return numbers[0] if axes == 1 else tuple(numbers[:axes])

    def gridsize(self, axes):
        """The number of threads in the grid, along as many axes."""
        numbers = [g * b for g, b in zip(_sizes(self.gridDim), _sizes(self.blockDim))]
        return numbers[0] if axes == 1 else tuple(numbers[:axes])

    def syncthreads(self):
        """Wait for the other threads of the block."""
        import greenlet

        greenlet.getcurrent().parent.switch("barrier")

    @staticmethod
    def fma(a, b, c):
        """a b + c; rounded twice."""
        return a * b + c

    def begin_block(self, place):
        """Go to a block; its shared memory holds no numbers yet."""
        self.blockIdx, self._shared = Dim3(*place), {}

    def _shared_array(self, shape, dtype, alignment=None):
        caller = sys._getframe(1)
        key = caller.f_code, caller.f_lineno
        if key not in self._shared:
            self._shared[key] = _array(shape, dtype)
        return self._shared[key]


def make_strict(array_class):
    """Take from numba's fake device arrays what real ones do not have: they hand everything on to a NumPy array."""

    def attribute(array, name):
        if name not in ("dtype", "size", "ndim", "strides", "squeeze"):
            raise AttributeError(f"an array on a GPU has no attribute {name!r}")
        return getattr(array._ary, name)

    array_class.__getattr__ = attribute
    array_class.flags = property(
        lambda array: {name: array._ary.flags[name] for name in ("C_CONTIGUOUS", "F_CONTIGUOUS")}
    )


def run(function, grid, block, arguments):
    """Run a kernel: all threads of one block after the other."""
    grid, block = (size if isinstance(size, tuple) else (size,) for size in (grid, block))
    device = SimulatedDevice(grid, block)
    arguments = [_argument(a) for a in arguments]
    with _within(device), np.errstate(all="ignore"):
        run_block = _run_block_with_barriers if has_barriers(function) else _run_block
        for place in _places(grid):
            device.begin_block(place)
            run_block(device, function, _places(block), arguments)


def has_barriers(function, seen=None):
    """Whether a kernel, or a helper that it calls, waits for the other threads of its block."""
    seen = set() if seen is None else seen
    if function in seen:
        return False
    seen.add(function)
    if "syncthreads" in function.__code__.co_names:
        return True
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    used += [cell.cell_contents for cell in function.__closure__ or ()]
    return any(has_barriers(f, seen) for f in used if isinstance(f, python_types.FunctionType))


def _run_block(device, function, threads, arguments):
    for thread in threads:
        device.threadIdx = Dim3(*thread)
        function(*arguments)


def _run_block_with_barriers(device, function, threads, arguments):
    import greenlet

    waiting = [(Dim3(*thread), greenlet.greenlet(function)) for thread in threads]
    order, started = random.Random(len(waiting)), False
    while waiting:
        reached = []
        for i in order.sample(range(len(waiting)), len(waiting)):
            device.threadIdx, thread = waiting[i]
            thread.switch(*(() if started else arguments))
            if not thread.dead:
                reached.append(waiting[i])
        if reached and len(reached) < len(waiting):
            raise RuntimeError(f"{len(reached)} of {len(waiting)} threads wait at a barrier that others never reach")
        waiting, started = reached, True


@contextlib.contextmanager
def _within(device):
    """Let ``cuda`` mean the simulated device in all modules of this floor."""
    modules = [m for name, m in sys.modules.items() if name.startswith(_PACKAGE) and getattr(m, "cuda", None) is cuda]
    modules = [module for module in modules if module.__name__ != __name__]
    for module in modules:
        module.cuda = device
    try:
        yield
    finally:
        for module in modules:
            module.cuda = cuda


def _argument(value):
    if isinstance(value, tuple):
        return tuple(map(_argument, value))
    array = getattr(value, "_ary", value)
    return array.view(Checked) if isinstance(array, np.ndarray) else value


def _array(shape, dtype):
    dtype = as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)
    poison = np.nan if dtype.kind == "f" else np.iinfo(dtype).min
    return np.full(shape, poison, dtype).view(Checked)


def _places(sizes):
    """All (x, y, z) of a grid or block of these sizes."""
    sizes = (*sizes, 1, 1)[:3]
    return [tuple(reversed(place)) for place in itertools.product(*(range(n) for n in reversed(sizes)))]


def _sizes(dim):
    return dim.x, dim.y, dim.z
