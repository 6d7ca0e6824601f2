"""What this machine can do at best: multiply-adds per second from registers, and bytes per second of a large copy."""

import time
from typing import NamedTuple

import numpy as np

_GPU_REPEATS, _GPU_CALLS = 256, 5  # some 0.3 ms of multiply-adds a call


class Ceilings(NamedTuple):
    """float32 FMA rate in GFLOP/s, and copy bandwidth in GB/s (bytes read plus bytes written), on so many threads."""

    gflops: float
    gbytes: float
    threads: int

    def binding(self, flops, nbytes):
        """(seconds, name) of the limit that binds work of so many operations and bytes: "FMA" or "copy"."""
        return max((flops / self.gflops / 1e9, "FMA"), (nbytes / self.gbytes / 1e9, "copy"))


def measure(seconds=1.0, copy_bytes=256 << 20):
    """Measure both ceilings with the threads of `fastcnn.get_num_threads`, about `seconds` each.

    Parameters
    ----------
    seconds : float
    copy_bytes : int, size of the array that is copied: several times the last cache
    """
    from fastcnn.cpu.jit import get_num_threads

    threads = get_num_threads()
    return Ceilings(fma_rate(threads, seconds) / 1e9, _copy_rate(threads, seconds, copy_bytes) / 1e9, threads)


def measure_gpu(device, seconds=0.5):
    """{"gflops", "gbytes"} of the GPU that a `runners.ours.Gpu` is on, about `seconds` each.

    The copy is that of our kernel or of the driver, whichever is faster.
    """
    from fastcnn.cuda import arrays, ceilings, gpu

    sums = arrays.empty(gpu.describe().threads, np.float32)
    amounts = {
        "gflops": [lambda: ceilings.multiply_adds(_GPU_REPEATS, 0.5, 1.0, sums)],
        "gbytes": [lambda: ceilings.copy(*device.large), lambda: ceilings.copy_by_driver(*device.large)],
    }

    def rate(run):
        """Amount per second by the GPU's clock, of several calls launched one after the other."""
        start, amount = device.mark(), sum(run() for _ in range(_GPU_CALLS))
        return amount / device.seconds_between(start, device.mark())

    return {
        name: max(_best(lambda run=run: rate(run), seconds / len(runs)) for run in runs) / 1e9
        for name, runs in amounts.items()
    }


def fma_rate(threads, seconds, dtype=np.float32):
    """float operations per second of fused multiply-adds that never leave the registers."""
    from fastcnn.cpu import ceilings

    # Four tasks a thread, so that a thread that is held up leaves work to the others.
    return _best_rate(lambda: ceilings.multiply_adds(4 * threads, 100_000, dtype), seconds)


def _copy_rate(threads, seconds, copy_bytes):
    """In large parts, where the C library writes past the caches, or in small ones: whichever is faster."""
    from fastcnn.cpu import ceilings

    source = np.ones(copy_bytes // 4, np.float32)
    target = np.zeros_like(source)
    small = max(threads, copy_bytes >> 20)
    return max(
        _best_rate(lambda parts=parts: ceilings.copy(source, target, parts), seconds / 2) for parts in (threads, small)
    )


def _best_rate(run, seconds):
    """Amount per second, of the fastest of the calls that fit into `seconds`; `run` returns its amount."""
    run()

    def rate():
        start = time.perf_counter()
        amount = run()
        return amount / (time.perf_counter() - start)

    return _best(rate, seconds)


def _best(rate, seconds):
    """The largest of the rates that can be measured in so many seconds."""
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0 or time.perf_counter() < end:
        best = max(best, rate())
    return best
