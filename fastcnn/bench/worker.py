"""A process that runs one library, and measures only when it is told to.

Libraries compete in processes of their own, one at work at a time, because their threads do not get along: OpenMP's
(those of PyTorch and of numba alike) wait for the next parallel loop by spinning for some 10 ms, on the core that the
other library's thread needs. Letting them all wait passively is no way out: on a 2-core machine that cost PyTorch a
factor of 2 on small layers (110 instead of 51 us for 64 channels of 8 x 8, 3.9 instead of 2.8 ms for a net of 19
layers), as every parallel loop begins with waking a thread. So every library waits as it does by itself, and `Pool`
lets a pause pass between two measurements, until the threads of the one before sleep.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
import traceback

from fastcnn.bench import runners

_SAMPLE = 1 << 16  # elements of a result that are looked at, roughly
PAUSE = 0.015  # seconds after which threads that spin have gone to sleep


class WorkerError(RuntimeError):
    """What went wrong in a worker, as its last line says."""


class Worker:
    """The parent's side: starts the process, sends requests, gets answers.

    Parameters
    ----------
    file : str, a file of `runners/`
    threads : int, for everything that the library does
    spin : bool, whether threads may wait by spinning, as they do by default; if not, OMP_WAIT_POLICY is "passive"
    backend : "cpu" or "cuda", where the library computes

    Raises
    ------
    WorkerError
        If the library cannot be used.
    """

    def __init__(self, file, threads, spin=True, backend="cpu"):
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastcnn.bench.worker", file, str(threads), backend],
            env=environment(threads, spin), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip
        try:
            self.versions = self._answer()
        except WorkerError:
            self.close()
            raise

    def __call__(self, request, *arguments):
        """Have the process do something, a method of `_Server`; returns its answer."""
        try:
            pickle.dump((request, arguments), self._process.stdin)
            self._process.stdin.flush()
        except OSError:
            pass  # it has died: reading its answer says so
        return self._answer()

    def _answer(self):
        try:
            done, answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            status = self._process.wait()
            raise WorkerError(f"its process ended with status {status}: {lines[-1] if lines else ''}") from None
        if not done:
            raise WorkerError(answer)
        return answer

    @property
    def alive(self):
        """Whether it can still be asked."""
        return self._process.poll() is None

    def close(self):
        """End the process."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            file.close()


def environment(threads, spin):
    """The variables of a process whose libraries use so many threads; the arguments are those of `Worker`."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    env = {**os.environ, **dict.fromkeys(names, str(threads))}
    env.pop("OMP_WAIT_POLICY", None)
    return env if spin else {**env, "OMP_WAIT_POLICY": "passive"}


class Pool:
    """The workers of a run, one for each library, started when first needed.

    Parameters
    ----------
    threads : int
    spin : bool, as for `Worker`
    backend : "cpu" or "cuda"
    """

    def __init__(self, threads, spin=True, backend="cpu"):
        self.threads, self.spin, self.backend, self.versions, self.broken = threads, spin, backend, {}, {}
        self._workers = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for worker in self._workers.values():
            worker.close()

    def start(self, file):
        """A worker that nothing else uses; the caller closes it."""
        worker = Worker(file, self.threads, self.spin, self.backend)
        self.versions.update(worker.versions)
        return worker

    def ask(self, file, request, *arguments):
        """Have the library of that file do something.

        Raises
        ------
        WorkerError
            If it fails, or the library cannot be used (`broken` says why).
        """
        if file in self.broken:
            raise WorkerError(self.broken[file])
        worker = self._workers.get(file)
        if worker is None or not worker.alive:
            if worker:
                worker.close()
            try:
                worker = self._workers[file] = self.start(file)
            except WorkerError as error:
                self.broken[file] = str(error)
                raise
        return worker(request, *arguments)

    def environment(self):
        """The variables of the workers' processes."""
        return environment(self.threads, self.spin)

    def pause(self):
        """Wait until the threads of the last measurement sleep."""
        if self.spin:
            time.sleep(PAUSE)


class _Server:
    """The process's side."""

    def __init__(self, file, threads, backend="cpu"):
        self.runner = runners.load(file)
        self.versions = self.runner.start(threads)
        self.gpu = self.runner.Gpu() if backend == "cuda" else None
        self.versions |= self.gpu.versions if self.gpu else {}
        self.prepared, self.last, self.inputs, self.memory = {}, {}, (None, None), _most_memory()

    def prepare(self, case, contestant):
        """Make the inputs and call once; returns seconds of that call, looks of the results, costs not yet known."""
        made_of = case.family, case.params
        if self.inputs[0] != made_of:
            self.inputs = made_of, case.inputs()
        function = self._prepare(case, contestant)
        start = time.perf_counter()
        results = function()
        seconds = time.perf_counter() - start
        self.prepared[contestant] = function
        self.last.pop(contestant, None)
        looked = looks(results)
        if self.gpu:
            self.prepared[contestant] = self._rotation(case, contestant, function, [shape for shape, *_ in looked])
        return {"first": seconds, "looks": looked, "costs": getattr(function, "costs", {})}

    def _prepare(self, case, contestant):
        inputs = self.gpu.put(self.inputs[1]) if self.gpu else self.inputs[1]
        return self.runner.WORKS[case.work, contestant](inputs, case.params, contestant)

    def _rotation(self, case, contestant, function, shapes):
        """The same work on several sets of arrays; whole nets have enough arrays, and are timed as they run."""
        from fastcnn.bench.gpu import Rotation, sets

        count = 1 if case.images else sets(self.inputs[1], shapes, self.gpu.cache)
        functions = [function, *(self._prepare(case, contestant) for _ in range(count - 1))]
        return Rotation(functions, self.gpu, ahead=not case.images)

    def measure(self, contestant, seconds):
        """Median seconds of the calls that fit into `seconds`; on a GPU, that and the seconds to launch one."""
        from fastcnn.bench.timer import call_time

        if self.gpu:
            return self.prepared[contestant].measure(seconds)
        self.last[contestant] = call_time(self.prepared[contestant], seconds, self.last.get(contestant))
        return self.last[contestant]

    def repeat(self, contestant, count):
        """Call it so often; returns the seconds of each call."""
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self.prepared[contestant]()
            times.append(time.perf_counter() - start)
        return times

    def peak(self):
        """(most memory that this process ever held, what it held before any work), in bytes."""
        return _most_memory(), self.memory

    def ceilings(self):
        """The machine's limits in float32: {"gflops", "gbytes"}."""
        from fastcnn.bench import ceilings

        if self.gpu:
            return ceilings.measure_gpu(self.gpu)
        limits = ceilings.measure()
        return {"gflops": limits.gflops, "gbytes": limits.gbytes}

    def forget(self):
        """Free what was prepared."""
        self.prepared.clear()
        if self.gpu:
            self.gpu.release()


def looks(results):
    """What results look like: (shape, norm, projection on a direction) of a sample of each, to compare libraries by."""
    import numpy as np

    from fastcnn.layers.device import to_host

    found = []
    for result in results if isinstance(results, (tuple, list)) else (results,):
        array = np.asarray(result.detach().float().cpu() if hasattr(result, "detach") else to_host(result))
        flat = array.reshape(-1)  # in the order of indices, whatever the layout in memory
        flat = flat[:: flat.size // _SAMPLE * 2 + 1].astype(np.float64)
        direction = np.cos(np.arange(flat.size))
        found.append((array.shape, float(np.linalg.norm(flat)), float(flat @ direction)))
    return found


def agree(a, b, limit=1e-3):
    """Whether two `looks` are of the same results, up to rounding."""
    return len(a) == len(b) and all(
        shape == other_shape and max(abs(norm - other_norm), abs(along - other_along)) <= limit * max(norm, other_norm)
        for (shape, norm, along), (other_shape, other_norm, other_along) in zip(a, b)
    )


def _most_memory():
    """Most bytes that this process has held so far; 0 where the system does not say."""
    try:
        with open("/proc/self/status") as file:  # getrusage counts what the parent held before this process was its own
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def main(file, threads, backend="cpu"):
    """Answer requests until there are no more; what libraries print goes to the error stream."""
    answers, requests = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)

    def answer(done, content):
        pickle.dump((done, content), answers)
        answers.flush()

    try:
        server = _Server(file, int(threads), backend)
        answer(True, server.versions)
    except Exception as error:
        return answer(False, f"{type(error).__name__}: {error}")
    while True:
        try:
            request, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            answer(True, getattr(server, request)(*arguments))
        except Exception as error:
            traceback.print_exc()
            answer(False, f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
