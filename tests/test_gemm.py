"""Matrix products on the CPU floor, around every boundary of their blocks."""

import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastcnn.cpu.gemm import DEPTH, multiply
from fastcnn.cpu.microkernel import ROWS, columns

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])

LAYOUTS = [
    np.asfortranarray,
    lambda x: np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3],
    lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
]


def around(*boundaries):
    return [size for boundary in boundaries for size in (boundary - 1, boundary, boundary + 1)]


def whole(rng, *shape, dtype):
    """Small whole numbers: their products and sums are exact in float32, so any order of summation gives the same."""
    return rng.integers(-8, 9, shape).astype(dtype)


def check(rng, m, n, k, dtype, transpose_a=False, transpose_b=False, bias=True, relu=False, layout=np.array):
    a, b, c = whole(rng, m, k, dtype=dtype), whole(rng, k, n, dtype=dtype), whole(rng, n, dtype=dtype)
    expected = a.astype(np.float64) @ b.astype(np.float64) + (c if bias else 0)
    expected = np.maximum(expected, 0) if relu else expected
    given_a, given_b = layout(a.T.copy() if transpose_a else a), layout(b.T.copy() if transpose_b else b)
    out = np.full((m, n), np.nan, dtype)
    result = multiply(given_a, given_b, c if bias else None, transpose_a, transpose_b, relu, out)
    assert result is out and result.dtype == dtype
    assert_array_equal(result, expected, err_msg=f"{m} x {k} x {n}")


@DTYPES
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_every_block_boundary(dtype, transpose_a, transpose_b):
    rng = np.random.default_rng(0)
    rows = [1, *around(ROWS, 8 * ROWS)]
    across = [1, *around(columns(dtype), 4 * columns(dtype))]
    for number, (m, n) in enumerate(product(rows, across)):
        for k in (1, 9):  # 9: a whole block of 8, transposed in registers, and a rest
            check(rng, m, n, k, dtype, transpose_a, transpose_b, bias=number % 2, relu=number % 3 == 0)
    for k in (2, 7, 8, *around(DEPTH, 2 * DEPTH)):
        check(rng, ROWS + 1, columns(dtype) + 1, k, dtype, transpose_a, transpose_b)


@DTYPES
def test_nothing_to_multiply(dtype):
    rng = np.random.default_rng(0)
    for m, n, k in ((0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)):
        for bias, relu in product([False, True], repeat=2):
            check(rng, m, n, k, dtype, bias=bias, relu=relu)


@given(
    st.tuples(*[st.integers(0, 3 * 8 * ROWS)] * 2, st.integers(0, 2 * DEPTH)),
    st.sampled_from([np.float32, np.float64]),
    st.tuples(*[st.booleans()] * 4),
    st.sampled_from(LAYOUTS),
)
@settings(max_examples=60, deadline=None)
def test_any_size_and_layout(size, dtype, switches, layout):
    check(np.random.default_rng(size), *size, dtype, *switches, layout=layout)


def test_a_sum_does_not_depend_on_how_its_factors_lie_in_memory():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((33, 300)), rng.standard_normal((300, 70))
    expected = multiply(a, b, None)
    assert_array_equal(multiply(a.T.copy(), b, None, transpose_a=True), expected)
    assert_array_equal(multiply(a, b.T.copy(), None, transpose_b=True), expected)


def test_nan_is_not_rectified():
    a = np.array([[1.0, np.nan], [1.0, 2.0]])
    assert_array_equal(multiply(a, np.eye(2), None, relu=True), [[np.nan, np.nan], [1, 2]])


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
def test_stays_within_its_buffers(run_python):
    run_python("""
        from itertools import product
        import numpy as np
        from guarded import SIDES, guarded
        from fastcnn.cpu.gemm import DEPTH, multiply
        from fastcnn.cpu.microkernel import ROWS, columns

        for dtype, side, ta, tb in product((np.float32, np.float64), SIDES, (False, True), (False, True)):
            width = columns(dtype)
            for m, n, k in product((1, ROWS, 8 * ROWS + 1), (1, width, 4 * width + 7), (1, 8, 17, DEPTH + 3)):
                a, b = np.ones((k, m) if ta else (m, k), dtype), np.ones((n, k) if tb else (k, n), dtype)
                arrays = (guarded(array, side) for array in (a, b, np.ones(n, dtype)))
                out = guarded(np.full((m, n), np.nan, dtype), side)
                multiply(*arrays, ta, tb, out=out)
                assert (out == k + 1).all()
    """)
