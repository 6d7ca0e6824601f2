"""Compiling the CUDA floor's kernels for real GPUs on a machine that has none, and reading the machine code.

numba-cuda asks the driver for one thing when it compiles, the compute capability; here it is told. The names that this
takes are private ones of numba-cuda, so its version is pinned where these checks run (the extra `cuda-ci`).
"""

import importlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from numba import types

TOOLS = ("cuobjdump", "nvdisasm")


def missing():
    """What these checks need and is not installed, or None."""
    try:
        implementation = importlib.import_module("numba.cuda").implementation
    except (ImportError, AttributeError):
        implementation = None
    if implementation != "NVIDIA":
        return "numba-cuda"
    return next((tool for tool in TOOLS if tool_path(tool) is None), None)


def tool_path(name):
    """A program of the CUDA tool chain, from its wheel or the search path."""
    for folder in sys.path:
        found = sorted(Path(folder).glob(f"nvidia/cu1*/bin/{name}"))
        if found:
            return str(found[0])
    return shutil.which(name)


def argument_types(signature, dtype):
    """The numba types of a kernel's signature, T standing for `dtype`."""
    names = {**vars(types), "T": getattr(types, dtype), "__builtins__": {}}
    return eval(f"({signature},)", names)


def machine_code(kernel, signature, dtype, capability, monkeypatch):
    """(resources by name, opcodes in order) of a kernel for a GPU of this compute capability, as launched."""
    from numba.cuda import codegen, dispatcher

    class Gpu:
        compute_capability = capability

    monkeypatch.setattr(dispatcher, "get_current_device", lambda: Gpu)
    monkeypatch.setattr(codegen.CUDACodeLibrary, "_ensure_cc", lambda library, cc=None: capability)
    made = dispatcher._Kernel(
        kernel.dispatcher.py_func, argument_types(signature, dtype), **kernel.dispatcher.targetoptions
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(made._codelibrary.get_cubin().code)
        usage = _output(tool_path("cuobjdump"), "--dump-resource-usage", file)
        listing = _output(tool_path("nvdisasm"), "-c", file)
    resources = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    return resources, re.findall(r"\*/\s+(?:@!?U?P\d+ )?([A-Z][A-Z0-9_.]*)", listing)


def _output(*command):
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
