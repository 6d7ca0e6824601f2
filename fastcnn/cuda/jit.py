"""How this floor compiles and launches: the only place that makes kernels.

`device` compiles a helper that kernels inline. `kernel` makes a `Kernel`, which also says what is expected of its
machine code: the tests compile every kernel for real GPUs, where there need not be one, and compare. No fast-math: a
NaN that comes in must come out, and contraction to fused multiply-adds happens without it.
"""

import contextlib
import contextvars
import functools
import math
import warnings

from numba import cuda
from numba.core import config

from fastcnn.cuda import simulator
from fastcnn.cuda.errors import CudaUnavailableError, translated

SIMULATED = bool(config.ENABLE_CUDASIM)  # numba's simulator, which runs kernels as Python
OLDEST = (7, 5)  # compute capability that the CUDA 13 tool chain compiles for
if SIMULATED:
    simulator.make_strict(type(cuda.device_array(0)))
KERNELS = {}  # by name, all of the modules imported so far

_stream = contextvars.ContextVar("fastcnn_cuda_stream", default=0)
_streams = {}  # those of other libraries, by pointer
_ready = False


class Kernel:
    """A kernel: ``kernel[grid](*arguments)`` launches it on the current stream.

    Parameters
    ----------
    function : the body; its first statements say which elements a thread has
    signature : str, the numba types of the arguments in use, with T for float32 and float64:
        ``"T[::1], T[::1], int64"``; or a tuple of such, for each of which it is compiled and examined
    threads : int or tuple, of a block
    registers : int, the most that a thread may take, in float32
    blocks : int, that a multiprocessor is to have room for: the compiler then makes do with their share of registers
    opcodes : what its machine code must contain in float32, as "LDG.E.128"
    dtypes : those that T stands for
    name : str, for kernels made in a function, which share one
    """

    def __init__(self, function, signature, threads, registers, opcodes, dtypes, name, blocks):
        self.name = name or f"{function.__module__}.{function.__qualname__}"
        self.__doc__, self.function = function.__doc__, function
        self.signatures = (signature,) if isinstance(signature, str) else tuple(signature)
        self.threads, self.registers, self.opcodes, self.dtypes = threads, registers, tuple(opcodes), tuple(dtypes)
        self.blocks, self.launches = blocks, 0
        self._dispatcher, self._configured = None, {}
        if self.name in KERNELS:
            raise ValueError(f"kernel {self.name!r} exists already: give each a name of its own")
        KERNELS[self.name] = self

    @property
    def dispatcher(self):
        """numba's, made on first use."""
        if self._dispatcher is None:
            self._dispatcher = cuda.jit(launch_bounds=(self.block_size, self.blocks))(self.function)
        return self._dispatcher

    @property
    def block_size(self):
        """Threads of a block."""
        return math.prod(self.threads) if isinstance(self.threads, tuple) else self.threads

    def __getitem__(self, grid):
        return functools.partial(self._launch, grid)

    def _launch(self, grid, *arguments):
        if not (math.prod(grid) if isinstance(grid, tuple) else grid):
            return
        require_device()
        self.launches += 1
        if SIMULATED:
            simulator.run(self.function, grid, self.threads, arguments)
            return
        with translated(f"kernel {self.name}"):
            self._configuration(grid)(*arguments)

    def _configuration(self, grid):
        """The dispatcher for a grid on the current stream; numba keeps too few of them for a net."""
        key = grid, _stream.get()
        if key not in self._configured:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Grid size")  # of small work; nothing is to be done about it
                self._configured[key] = self.dispatcher[grid, self.threads, key[1]]
        return self._configured[key]

    def for_each(self, count, *arguments):
        """Launch with a thread for each of `count` things."""
        self[-(-count // self.block_size)](*arguments)


def kernel(signature, *, threads=256, registers=64, opcodes=(), dtypes=("float32", "float64"), name=None, blocks=1
):  # fmt: skip
    """A decorator that makes a function a `Kernel`."""
    return lambda function: Kernel(function, signature, threads, registers, opcodes, dtypes, name, blocks)


def device(function):
    """Compile `function` as a helper of kernels."""
    return function if SIMULATED else cuda.jit(device=True, forceinline=True)(function)


@contextlib.contextmanager
def use_stream(stream):
    """Launch kernels and copies on this stream inside a ``with`` block, in this thread or task.

    Parameters
    ----------
    stream : a stream of numba, PyTorch or CuPy, one that has ``__cuda_stream__``, or the pointer to one as an int
        An array that was made on one stream and is used on another must be kept until that one is done with it: the
        first stream may use its memory again.

    Raises
    ------
    TypeError
        For anything else.
    """
    stream = _as_numba(stream)
    token = _stream.set(stream)
    try:
        yield stream
    finally:
        _stream.reset(token)


def _as_numba(stream):
    """A stream of any library as one of numba's; the default one is 0."""
    if SIMULATED or hasattr(stream, "auto_synchronize"):  # numba's own
        return stream
    pointer = stream
    for name in ("cuda_stream", "ptr"):  # PyTorch's, CuPy's
        pointer = getattr(stream, name, pointer)
    if hasattr(stream, "__cuda_stream__"):
        pointer = stream.__cuda_stream__()[1]
    if isinstance(pointer, bool) or not isinstance(pointer, int):
        raise TypeError(f"stream: expected a stream of numba, PyTorch or CuPy, or a pointer, got {stream!r}")
    if pointer and pointer not in _streams:
        require_device()
        _streams[pointer] = cuda.external_stream(pointer)
    return _streams[pointer] if pointer else 0


def current_stream():
    """The stream in use: a numba stream, or 0 for the default one."""
    return _stream.get()


def require_device():
    """See, once, that there is a GPU that kernels can run on.

    Raises
    ------
    CudaUnavailableError
        The message says what is missing, and what to do.
    """
    global _ready
    if _ready:
        return
    if not SIMULATED:
        _examine_installation()
    _ready = True


def _examine_installation():
    if getattr(cuda, "implementation", None) != "NVIDIA":
        raise CudaUnavailableError(
            "the CUDA floor needs numba-cuda, which is not installed; install it with: pip install 'fastcnn[cuda13]' "
            "(or [cuda12], by the version of the driver)"
        )
    if not cuda.is_available():
        reason = " ".join(str(cuda.cuda_error() or "").split()) or "the driver reports none"
        raise CudaUnavailableError(
            f"no CUDA device was found ({reason}); `nvidia-smi` shows whether the driver "
            "works. Without a GPU, NUMBA_ENABLE_CUDASIM=1 runs the kernels on a slow simulator"
        )
    with translated("looking for a GPU"):
        gpu = cuda.get_current_device()
    if gpu.compute_capability < OLDEST:
        have, need = (".".join(map(str, cc)) for cc in (gpu.compute_capability, OLDEST))
        raise CudaUnavailableError(f"the GPU has compute capability {have}; {need} or newer is needed")
