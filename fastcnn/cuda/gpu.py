"""The GPU in use: what it is, and when it gets to a place in the current stream."""

import importlib.metadata
import time
from typing import NamedTuple

from numba import cuda

from fastcnn.cuda.errors import translated
from fastcnn.cuda.jit import SIMULATED, current_stream, require_device


class Gpu(NamedTuple):
    """Name, compute capability as text, threads that it computes with at once, bytes of its memory and its L2 cache."""

    name: str
    capability: str
    threads: int
    memory: int
    cache: int

    def __str__(self):
        if not self.capability:
            return self.name
        return f"{self.name}, compute capability {self.capability}, {self.memory / 2**30:.0f} GiB"


def describe():
    """The `Gpu` in use.

    Raises
    ------
    CudaUnavailableError
        If there is none.
    """
    require_device()
    if SIMULATED:
        return Gpu("numba's CUDA simulator", "", 2, 1 << 16, 1 << 12)
    with translated("looking for a GPU"):
        found = cuda.get_current_device()
        memory = cuda.current_context().get_memory_info()[1]
        capability = ".".join(map(str, found.compute_capability))
        threads = found.MULTIPROCESSOR_COUNT * found.MAX_THREADS_PER_MULTIPROCESSOR
        return Gpu(found.name, capability, threads, memory, found.L2_CACHE_SIZE)


def versions():
    """{name: version} of what compiles for the GPU and drives it."""
    if SIMULATED:
        return {}
    from numba.cuda.cudadrv import driver

    return {
        "numba-cuda": importlib.metadata.version("numba-cuda"),
        "CUDA of the driver": ".".join(map(str, driver.get_version())),
    }


def mark():
    """A place in the current stream, for `seconds_between`; on the simulator, where all waits, a time of the host."""
    require_device()
    if SIMULATED:
        return time.perf_counter()
    with translated("marking a place in the stream"):
        event = cuda.event(timing=True)
        event.record(current_stream())
    return event


def seconds_between(start, end):
    """Seconds from one `mark` to a later one, by the GPU's own clock; waits until it is there."""
    if SIMULATED:
        return end - start
    with translated("waiting for the GPU"):
        end.synchronize()
        return cuda.event_elapsed_time(start, end) / 1e3
