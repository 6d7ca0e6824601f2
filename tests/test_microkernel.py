"""The micro-kernel: against its Python stand-in and float64, within its buffers, for every width of vectors."""

import sys
import textwrap

import pytest
from numba.core.codegen import get_host_cpu_features

from fastcnn.cpu import microkernel

# C += A B from panels whose memory ends (or begins) at a guard page.
TILES = textwrap.dedent("""
    import numba
    import numpy as np
    from guarded import SIDES, guarded
    from fastcnn.cpu import microkernel
    from fastcnn.cpu.microkernel import (
        ROWS, VECTORS, _multiply_rows_python, _multiply_tile_python, columns, lanes, multiply_rows, multiply_tile,
        tile_columns,
    )

    @numba.njit
    def multiply(k, a, a_start, b, b_start, c, c_start, vectors, fresh):
        multiply_tile(k, a, a_start, b, b_start, c, c_start, vectors, fresh)
        return tile_columns(a)

    @numba.njit
    def multiply_apart(k, a, a_start, b, b_start, c, c_start, c_step, vectors, fresh):
        multiply_rows(k, a, a_start, b, b_start, c, c_start, c_step, vectors, fresh)

    def check_rows(dtype, k, side, vectors, fresh):
        # Rows with others' numbers between them, which stay.
        width, rng = vectors * lanes(dtype), np.random.default_rng(k)
        step = width + 5
        a, b, c = (rng.standard_normal(size, dtype) for size in (k * ROWS, k * width, (ROWS - 1) * step + width))
        exact, python = c.astype(float), c.copy()
        for i in range(ROWS):
            row = exact[i * step :][:width]
            row[:] = (0 if fresh else row) + a.reshape(k, ROWS)[:, i].astype(float) @ b.reshape(k, width)
        a, b, c = (guarded(v, side) for v in (a, b, c))
        multiply_apart(k, a, 0, b, 0, c, 0, step, vectors, fresh)
        _multiply_rows_python(k, a, 0, b, 0, python, 0, step, vectors, fresh)
        for got in (c, python):
            limit = (1 + np.sqrt(k)) * np.finfo(dtype).eps
            assert np.linalg.norm(got - exact) <= limit * np.linalg.norm(exact)

    def check(dtype, k, side, skip=0, vectors=VECTORS, fresh=False):
        width, rng = vectors * lanes(dtype), np.random.default_rng(k)
        a, b, c = (rng.standard_normal(size, dtype).astype(float) for size in (k * ROWS, k * width, ROWS * width))
        exact = (0 if fresh else c) + (a.reshape(k, ROWS).T @ b.reshape(k, width)).ravel()
        c = np.full_like(c, np.nan) if fresh else c
        lead = np.full(skip, np.nan)
        a, b, c = (guarded(np.concatenate([lead, v]).astype(dtype), side) for v in (a, b, c))
        python = c.copy()
        _multiply_tile_python(k, a, skip, b, skip, python, skip, vectors, fresh)
        assert multiply(k, a, skip, b, skip, c, skip, vectors, fresh) == columns(dtype)
        for got in (c, python):
            assert np.isnan(got[:skip]).all()
            limit = (1 + np.sqrt(k)) * np.finfo(dtype).eps  # k roundings, at random up or down
            assert np.linalg.norm(got[skip:] - exact) <= limit * np.linalg.norm(exact)

    for dtype in (np.float32, np.float64):
        for k in (0, 1, 2, 7, 256, 1023):
            for side in SIDES:
                check(dtype, k, side)
                for vectors in range(1, VECTORS + 1):
                    check(dtype, k, side, 0, vectors, fresh=vectors % 2 == 0)
                    check_rows(dtype, k, side, vectors, fresh=vectors % 2 == 1)
            check(dtype, k, "after", skip=5)
""")

# Ops that are made of it; convolutions with as many filters as make more than one block.
OPS = textwrap.dedent("""
    from conv_support import check_passes
    from fastcnn.validate import validate

    (verdict,) = validate(["affine_forward"], dtypes=["float32"], level="quick")
    assert verdict.passed, verdict.failures
    for algo, stride in (("direct", 1), ("im2col", 1), ("winograd_f4x3", 1), ("winograd_f4x3s2", 2)):
        for channels, filters in ((5, 70), (33, 64), (13, 129)):
            check_passes(algo, (2, channels, 9, 14), (filters, channels, 3, 3), (stride, stride), (1, 1))
    check_passes("depthwise", (2, 7, 9, 14), (14, 1, 3, 3), (2, 1), (1, 1), groups=7)
""")

# Other vectors than this machine's: the environment that chooses them, and their width in bytes.
NARROWER = {
    "sse2": ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, 16),
    "avx2": ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}, 32),
    "avx off": ({"NUMBA_ENABLE_AVX": "0"}, 16),
}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")


def test_multiplies_right_and_within_its_buffers(run_python):
    run_python(TILES)


@pytest.mark.parametrize("name", NARROWER)
def test_narrower_vectors(name, run_python):
    """The code for other CPUs, compiled on this one, which can run it."""
    environment, width = NARROWER[name]
    if "+fma" in environment.get("NUMBA_CPU_FEATURES", "") and "+fma" not in get_host_cpu_features():
        pytest.skip("this CPU has no AVX2 and FMA")
    ops = OPS if "NUMBA_CPU_NAME" in environment else ""  # once for each width will do
    run_python(TILES + f"assert microkernel.VECTOR_BYTES == {width}\n" + ops, timeout=500, **environment)


def test_the_block_fits_the_registers():
    registers = 32 if microkernel.VECTOR_BYTES == 64 else 16
    assert microkernel.ROWS * microkernel.VECTORS + microkernel.VECTORS + 1 <= registers
    assert microkernel.columns("float32") == 2 * microkernel.columns("float64")
