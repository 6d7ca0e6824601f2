"""Timing on a GPU: by its own clock, warm, over sets of arrays that together exceed its cache.

A runner that can use a GPU has a `Gpu`, a `Device`, that says how its library does so.
"""

import gc
import math
import statistics
import time

import numpy as np

SETS = 64  # of arrays, at most: the smallest stay in cache
BEYOND = 3  # how many times the cache all sets together are
COPIED = 256 << 20  # bytes that `Device.copy` copies: several times the cache, and several times what a launch takes
LAUNCHING = 3e-3  # seconds in which the host launches what is timed at once, roughly
_MARGIN = 1.5  # by which the GPU is kept busy for longer than the host needs to launch


class Device:
    """A library's way to the GPU; runners derive theirs.

    Attributes
    ----------
    cache : bytes of the L2 cache
    versions : {name: version} of what the library brings along for GPUs
    """

    cache = 0
    versions = {}
    _copying = None

    def put(self, arrays):
        """The arrays of a case, by name, in the GPU's memory."""
        return arrays

    def mark(self):
        """A place in the stream in which the library computes."""
        raise NotImplementedError

    def seconds_between(self, start, end):
        """Seconds of the GPU from one mark to a later one; waits until it is there."""
        raise NotImplementedError

    def copy(self):
        """Have the GPU copy something large."""
        raise NotImplementedError

    def release(self):
        """Give memory that is not in use back, to other processes."""

    def occupy(self, seconds):
        """Have the GPU copy for so long, without waiting for it."""
        if self._copying is None:
            self.copy()
            start = self.mark()
            self.copy()
            self._copying = self.seconds_between(start, self.mark())
        for _ in range(math.ceil(seconds / self._copying)):
            self.copy()


class Rotation:
    """Calls of one piece of work on each of several sets of arrays in turn.

    Results are kept until their set's turn comes again, so that they, too, are not in cache.

    Parameters
    ----------
    functions : one without arguments for each set
    device : Device
    ahead : whether the GPU is kept busy with copies until the host has launched all calls of a batch, so that the time
        does not depend on how fast it launches; or calls are timed as they come
    """

    def __init__(self, functions, device, ahead=True):
        self.functions, self._device, self._ahead = functions, device, ahead
        self._results, self._next, self._count, self._launching = [None] * len(functions), 0, None, 0.0

    def measure(self, seconds):
        """Medians, over the batches of calls that fit into `seconds`, of a call's seconds on the GPU and on the host.

        The latter is what the host takes to launch it.
        """
        if self._count is None:
            self._warm_up(seconds)
        batches, end = [], time.perf_counter() + seconds
        while not batches or time.perf_counter() < end:
            batches.append(self._batch(self._count))
        self._launching = statistics.median(launching for _, launching in batches)
        return statistics.median(computing for computing, _ in batches), self._launching

    def _warm_up(self, seconds):
        """Call on every set, twice; from the second time on nothing is compiled or allocated."""
        for _ in range(2):
            computing, self._launching = self._batch(len(self.functions))
        self._count = max(1, int(min(LAUNCHING / self._launching, seconds / max(computing, self._launching))))

    def _batch(self, count):
        """Seconds of a call on the GPU, and to launch it, of so many calls."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            if self._ahead:
                self._device.occupy(_MARGIN * count * self._launching)
            start, before = self._device.mark(), time.perf_counter()
            for _ in range(count):
                self._call()
            launched, end = time.perf_counter(), self._device.mark()
        finally:
            if collecting:
                gc.enable()
        return self._device.seconds_between(start, end) / count, (launched - before) / count

    def _call(self):
        self._results[self._next] = self.functions[self._next]()
        self._next = (self._next + 1) % len(self.functions)


def sets(arrays, result_shapes, cache):
    """How many sets of a case's arrays exceed a cache of so many bytes, results (in float32) included."""
    given = sum(array.nbytes for array in arrays.values() if isinstance(array, np.ndarray))
    results = sum(4 * math.prod(shape) for shape in result_shapes)
    return min(SETS, 1 + BEYOND * cache // max(1, given + results))
