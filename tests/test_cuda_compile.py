"""The machine code of the CUDA floor's kernels, made by the real tool chain; no GPU is needed."""

import importlib
import pkgutil

import cuda_offline
import pytest

import fastcnn.cuda

LACKING = cuda_offline.missing()
pytestmark = pytest.mark.skipif(LACKING is not None, reason=f"{LACKING} is not installed: pip install -e '.[cuda-ci]'")
CAPABILITIES = ((8, 0), (9, 0))  # A100, H100


def kernels():
    """All kernels of the floor, by name."""
    if LACKING:
        return {}
    for module in pkgutil.walk_packages(fastcnn.cuda.__path__, "fastcnn.cuda."):
        importlib.import_module(module.name)
    return importlib.import_module("fastcnn.cuda.jit").KERNELS


CASES = [
    (name, signature, dtype)
    for name, kernel in kernels().items()
    for signature in kernel.signatures
    for dtype in (kernel.dtypes if "T" in signature else kernel.dtypes[:1])
]


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("name, signature, dtype", CASES)
def test_machine_code(name, signature, dtype, capability, monkeypatch):
    kernel = kernels()[name]
    resources, opcodes = cuda_offline.machine_code(kernel, signature, dtype, capability, monkeypatch)
    spills = [code for code in opcodes if code.startswith(("STL", "LDL"))]
    assert resources["STACK"] == resources["LOCAL"] == 0 and spills == []
    assert resources["REG"] <= kernel.registers * (1 if dtype == "float32" else 2)
    assert resources["SHARED"] <= 48 * 1024
    missing = [code for code in kernel.opcodes if not any(found.startswith(code) for found in opcodes)]
    assert missing == [], sorted(set(opcodes))
