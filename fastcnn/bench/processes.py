"""What only a fresh process can tell: the most memory that training holds, and how long the first use takes."""

import os
import subprocess
import sys
import tempfile
import textwrap
import time

from fastcnn.bench import runners
from fastcnn.bench.timer import alternate, spread
from fastcnn.bench.worker import WorkerError

_STEPS = 3  # from the second on, all buffers exist
_HEAD = "import time\nstart = time.perf_counter()\n"
_TAIL = "print(imported - start, time.perf_counter() - imported)\n"
_FIRST_CALLS = {
    "fastcnn": """
        import numpy as np
        from fastcnn import layers
        x, w = np.ones((64, 3, 32, 32), np.float32), np.ones((16, 3, 3, 3), np.float32)
        imported = time.perf_counter()
        layers.conv_forward(x, w, None, stride=1, pad=1)
    """,
    "torch": """
        import torch
        x, w = torch.ones((64, 3, 32, 32)), torch.ones((16, 3, 3, 3))
        imported = time.perf_counter()
        with torch.inference_mode():
            torch.nn.functional.conv2d(x, w, None, 1, 1)
    """,
}


def memory(case, pool, peers, settings):
    """{contestant: {"bytes": most memory, "before": what the libraries alone took, "ratio": to ours}}."""
    results = {}
    for name in runners.contestants(case.work, peers):
        try:
            results[name] = _memory(case, pool, name)
        except WorkerError as error:
            results[name] = {"error": str(error)}
    ours = results.get("fastcnn", {}).get("bytes")
    for name, result in results.items():
        if name != "fastcnn" and ours and "bytes" in result:
            result["ratio"] = {"median": result["bytes"] / ours}
    return results


def _memory(case, pool, name):
    """The smaller of two processes': the first may have had kernels to compile."""
    found = []
    for _ in range(2):
        worker = pool.start(runners.CONTESTANTS[name])
        try:
            worker("prepare", case, name)
            worker("repeat", name, _STEPS)
            found.append(worker("peak"))
        finally:
            worker.close()
    most, before = min(found)
    return {"bytes": most, "before": before}


def process(case, pool, peers, settings):
    """{contestant: {"seconds", ...}} of processes that do the work once."""
    return (_cold_train if case.work == "cold_train" else _first_conv)(pool, peers, settings)


def _cold_train(pool, peers, settings):
    """Seconds of `fastcnn train` with an empty cache of kernels, all of its epochs included."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**pool.environment(), "FASTCNN_CACHE_DIR": os.path.join(folder, "kernels")}
        command = [sys.executable, "-m", "fastcnn", "train", "--no-progress", "--threads", str(pool.threads)]
        start = time.perf_counter()
        output = _run([*command, "--out", os.path.join(folder, "run")], env)
        seconds = time.perf_counter() - start
    last = output.strip().splitlines()[-1]
    return {"fastcnn": {**_seconds([seconds]), "said": last.partition(";")[0]}}


def _first_conv(pool, peers, settings):
    """Seconds of the first convolution of a process, with kernels on disk; `imported`: of the imports before it."""
    names = [name for name in _FIRST_CALLS if name == "fastcnn" or name in peers]
    imports = {name: [] for name in names}
    env = pool.environment()

    def once(name):
        code = _HEAD + textwrap.dedent(_FIRST_CALLS[name]) + _TAIL
        imported, called = map(float, _run([sys.executable, "-c", code], env).split())
        imports[name].append(imported)
        return called

    once("fastcnn")  # compiles what is missing
    imports["fastcnn"].clear()
    times = alternate({name: (lambda name=name: once(name)) for name in names}, settings.rounds)
    results = {name: {**_seconds(times[name]), "imported": spread(imports[name]).median} for name in names}
    for name in names[1:]:
        results[name]["ratio"] = {"median": spread([b / a for a, b in zip(times["fastcnn"], times[name])]).median}
    return results


def _seconds(times):
    times = spread(times)
    return {"seconds": times.median, "low": times.low, "high": times.high, "rounds": times.count}


def _run(command, env):
    done = subprocess.run(command, env=env, text=True, capture_output=True)
    if done.returncode:
        raise WorkerError((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])
    return done.stdout
