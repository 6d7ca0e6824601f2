"""`fastcnn info`: what this machine and installation offer."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys

from fastcnn.layers.device import unavailable


def collect():
    """Versions, CPU, threads, cache folder and GPU, as a dictionary of strings and numbers."""
    import llvmlite.binding as llvm
    import numba
    import numpy

    import fastcnn
    from fastcnn.cpu import cache, jit, microkernel

    bits = microkernel.VECTOR_BYTES * 8
    tile = f"{microkernel.ROWS} x {microkernel.columns('float32')} float32"
    return {
        "fastcnn": fastcnn.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "numpy": numpy.__version__,
        "numba": f"{numba.__version__} (llvmlite {importlib.metadata.version('llvmlite')})",
        "system": platform.platform(),
        "cpu": f"{_cpu_name()} ({llvm.get_host_cpu_name()})",
        "cores": f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} usable",
        "vectors": f"{bits} bits, register block {tile}",
        "threads": jit.get_num_threads(),
        "threading layer": numba.threading_layer(),
        "backend": fastcnn.get_backend(),
        "cache folder": str(cache.cache_folder() or "none: kernels are compiled anew in every process"),
        "gpu": _gpu(),
    }


def _cpu_name():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _gpu():
    """The GPU that would compute, with its driver; or why there is none, and what the driver knows of."""
    driver = _ask_driver("name,compute_cap,memory.total,driver_version")
    if lacking := unavailable():
        return f"none: {lacking}" if driver is None else f"{driver}, not in use: {lacking}"
    from fastcnn.cuda.gpu import describe

    version = _ask_driver("driver_version")
    return str(describe()) if version is None else f"{describe()}, driver {version}"


def _ask_driver(fields):
    """What `nvidia-smi` says of the first GPU; None where it does not."""
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(filter(None, map(str.strip, answer.splitlines())), None)


def command(arguments):
    """Print what `collect` found."""
    facts = collect()
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:<16} {value}")
    return 0
