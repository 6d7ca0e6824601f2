"""Vector code written instruction by instruction: against its stand-ins, within its buffers, for every width."""

import sys
import textwrap

import pytest
from numba.core.codegen import get_host_cpu_features
from test_microkernel import NARROWER

COMMON = textwrap.dedent("""
    import numba
    import numpy as np
    from guarded import SIDES, guarded
    from fastcnn.cpu import dots, microkernel, vectors
    from fastcnn.cpu.conv import depthwise, epilogue, lanes, pixels
    from fastcnn.cpu.conv.points import POINTS, matrices
    from fastcnn.cpu.microkernel import ROWS

    rng = np.random.default_rng(0)
    DTYPES = np.float32, np.float64

    def numbers(size, dtype):
        return rng.standard_normal(size).astype(dtype)

    def check(compiled, python, call, out, fixed, side, compare=slice(None)):
        '''Both functions do the same to `out`, at the ends of unreadable pages; `call` gives the arguments.'''
        results = []
        for function in (compiled, python):
            target = guarded(out, side)
            function(*call(*(guarded(array, side) for array in fixed), target))
            results.append(target[compare])
        most = 64 * np.finfo(out.dtype).eps * max(1, *(np.abs(a[np.isfinite(a)]).max(initial=0) for a in results))
        np.testing.assert_allclose(*results, rtol=0, atol=most)

    def compiled(function, count):
        '''`function`, an intrinsic of `count` arguments, as one that Python can call.'''
        names = ", ".join(f"a{i}" for i in range(count))
        scope = {"function": function}
        exec(f"def call({names}):\\n    function({names})", scope)
        return numba.njit(scope["call"])
""")

SCRATCH = """
@numba.njit
def addresses(like):
    made = [vectors.scratch(size, like) for size in (0, 1, 7, 1000)]
    return [a.ctypes.data for a in made], [a.size for a in made]

for dtype in DTYPES:
    for found in (addresses(np.empty(0, dtype)), addresses.py_func(np.empty(0, dtype))):
        assert [address % 64 for address in found[0]] == [0] * 4
        assert found[1] == [0, 1, 7, 1000]
"""

DOTS = """
run = compiled(dots._dot_tile, 9)
for dtype in DTYPES:
    width, wanted = microkernel.lanes(dtype), dots.A_ROWS * dots.B_ROWS
    size = -(-wanted // width) * width
    for count in (0, 1, 2, 64):
        for side in SIDES:
            for skip, step in ((0, 0), (3, 5)):
                length = count * width + step
                a = numbers(skip + (dots.A_ROWS - 1) * length + count * width, dtype)
                b = numbers(skip + (dots.B_ROWS - 1) * length + count * width, dtype)
                check(
                    run, dots._dot_tile_python,
                    lambda a, b, c: (count, a, skip, length, b, skip, length, c, skip),
                    numbers(skip + size, dtype), (a, b), side, slice(skip + wanted),
                )
"""

PIXELS = """
def python_gather(x, start, x_step, channels, stride, first, last, count, out, place, out_step):
    for c in range(channels):
        for i in range(count):
            inside = first <= i < last
            out[place + c * out_step + i] = x[start + c * x_step + i * stride] if inside else 0

def python_scatter(source, start, count, out, place, stride):
    out[place : place + count * stride : stride] = source[start : start + count]

def python_spread(source, start, count, out, place, stride, width):
    out[place : place + width] = 0
    python_scatter(source, start, count, out, place, stride)

@numba.njit
def spread(source, start, count, out, place, stride, width):
    pixels.spread_run(source, start, count, out, place, stride, width)

@numba.njit
def gather(x, start, x_step, channels, stride, first, last, count, out, place, out_step):
    pixels.gather_run(x, start, x_step, channels, stride, first, last, count, out, place, out_step)

@numba.njit
def scatter(source, start, count, out, place, stride):
    pixels.scatter_run(source, start, count, out, place, stride)

for dtype in DTYPES:
    width = microkernel.lanes(dtype)
    for count in sorted({1, 2, width - 1, width, width + 1, 3 * width - 1, 3 * width, 5 * width + 3}):
        for side in SIDES:
            for stride in (1, 2, 3):
                for first, last in ((0, count), (1, count), (0, count - 1), (count // 2, count // 2), (-2, count + 2)):
                    low, high = max(first, 0), min(last, count)
                    size = (max(high - low, 1) - 1) * stride + 1  # of a channel: not a pixel more than are read
                    check(
                        gather, python_gather,
                        lambda x, out: (x, -low * stride, size, 3, stride, low, high, count, out, 2, count),
                        np.full(2 + 3 * count, np.nan, dtype), (numbers(3 * size, dtype),), side,
                    )
                source, out = numbers(count + 1, dtype), numbers(3 + (count - 1) * stride + 1, dtype)
                check(scatter, python_scatter, lambda s, o: (s, 1, count, o, 3, stride), out, (source,), side)
                for more in sorted({0, 1, stride - 1, width + 3, 4 * width}):
                    for some in (0, count):
                        wide = max(0, (some - 1) * stride + 1) + more
                        check(
                            spread, python_spread, lambda s, o: (s, 1, some, o, 3, stride, wide),
                            np.full(3 + wide, np.nan, dtype), (source[: some + 1],), side,
                        )

# The stand-ins of the strides that have vector code, too.
pixels.either = lambda intrinsic, python: python
for stride in (1, 2):
    stand_in, x = pixels._make_gather(stride), numbers(50, np.float32)
    for first, last in ((0, 9), (2, 5), (4, 4)):
        results = np.full((2, 40), np.nan, np.float32)
        stand_in(x, 1, 13, 3, first, last, 9, results[0], 2, 12)
        python_gather(x, 1, 13, 3, stride, first, last, 9, results[1], 2, 12)
        np.testing.assert_array_equal(*results)
out = np.zeros(20)
pixels._scatter_2_python(np.arange(9.0), 1, 7, out, 3)
assert (out[3:17:2] == np.arange(1, 8)).all() and out[4:17:2].sum() == 0
out = np.full(20, np.nan)
pixels._spread_2_python(np.arange(9.0), 1, 7, out, 3, 15)
assert (out[3:17:2] == np.arange(1, 8)).all() and (out[4:18:2] == 0).all() and np.isnan(out[[0, 1, 2, 18, 19]]).all()
"""

EPILOGUE = """
run = compiled(epilogue._emit_rows, 12)
for dtype in DTYPES:
    width = microkernel.lanes(dtype)
    for count in (1, width - 1, width, width + 1, 3 * width + 2):
        for side in SIDES:
            for relu in (False, True):
                for adding in (False, True):
                    source, out = numbers(3 * count, dtype), np.full(2 + 3 * (count + 1) - 1, np.nan, dtype)
                    source[count // 2] = np.nan
                    add = numbers(out.size, dtype) if adding else np.empty(0, dtype)
                    bias = dtype(0.3)
                    check(
                        run, epilogue._emit_rows_python,
                        lambda s, a, o: (s, 0, count, 3, count, bias, relu, a, adding, o, 2, count + 1),
                        out, (source, add), side,
                    )
"""

DEPTHWISE = """
run = compiled(depthwise._add_taps, 5)
for dtype in DTYPES:
    for count in (1, 3, 64, 65, 200):
        for number in (0, 1, 9):
            taps = rng.integers(0, 30, number)
            source, weights = numbers(30 + count + depthwise.SPILL, dtype), numbers(number, dtype)
            for side in SIDES:
                check(
                    run, depthwise._add_taps_python, lambda s, t, w, o: (s, t, w, count, o),
                    np.full(count + depthwise.SPILL, np.nan, dtype), (source, taps, weights), side, slice(count),
                )
"""

LANES = """
lanes.either = lambda intrinsic, python: (intrinsic, python)

def pair(made, count):
    return compiled(made[0], count), made[1]

for m, taps in ((2, 3), (4, 3), (4, 5)):
    n = m + taps - 1
    a, g, b = matrices(POINTS[n], m, taps)
    gradient_a, gradient_g, _ = matrices(POINTS[n], taps, m)
    rows_in = [(pair(lanes.make_rows_in(matrix), 11), matrix) for matrix in (b, gradient_g)]
    lanes_in = [(pair(lanes.make_lanes_in(matrix, p), 9), matrix, p) for matrix, p in ((b, False), (gradient_g, True))]
    planes_in = pair(lanes.make_planes_in(g), 6)
    planes_out, tiles_out = pair(lanes.make_planes_out(gradient_a), 5), pair(lanes.make_tiles_out(a), 6)
    for dtype in DTYPES:
        width = microkernel.lanes(dtype)
        panel_step = 3 * ROWS
        spread = max(1, width // ROWS) * panel_step  # a vector in panels
        for side in SIDES:
            for functions, matrix in rows_in:
                rows, columns = matrix.shape
                for count in (1, width - 1, width, width + 1, 3 * width + 2):
                    for top, bottom, first, last in (
                        (0, columns, 0, count), (1, columns, 0, count), (0, columns - 1, 1, count), (0, 1, 0, count),
                        (-5, 99, -3, count + 9), (0, columns, 0, count - 1), (0, columns, count, count),
                        (0, 0, 0, count), (-2, -1, 0, count), (columns, 9, 0, count), (0, columns, 99, 80),
                        (0, columns, -9, -2),
                    ):
                        above, below = max(top, 0), min(bottom, columns)
                        left, right = max(first, 0), min(last, count)
                        step, out_step = count + 1, count + width
                        # Exactly the pixels that count: positions are those of a larger array.
                        size = max((below - above - 1) * step + right - left, 1)
                        start = -above * step - left
                        if below <= above or right <= left:
                            start = 0
                        x = numbers(size, dtype)
                        out = np.full(rows * out_step, np.nan, dtype)
                        wanted = (np.arange(rows)[:, None] * out_step + np.arange(count)).ravel()
                        check(
                            *functions,
                            lambda x, o: (x, start, step, top, bottom, first, last, count, o, 0, out_step),
                            out, (x,), side, wanted,
                        )
            for functions, matrix, panels in lanes_in:
                rows, columns = matrix.shape
                positions = rng.integers(0, 50, width + 3)
                source = numbers(2 + 50 + (rows - 1) * 64 + lanes.SLACK, dtype)
                out_step = spread if panels else width + 1
                check(
                    *functions, lambda s, p, o: (s, 2, 64, p, 3, o, 1, out_step, panel_step),
                    np.full(1 + rows * rows * out_step, np.nan, dtype), (source, positions), side,
                )
            check(
                *planes_in, lambda s, o: (s, 3, o, 1, spread, panel_step),
                np.full(1 + n * n * spread, np.nan, dtype), (numbers(3 + taps * taps * width, dtype),), side,
            )
            step = width + 3
            source = numbers(2 + (n * n - 1) * step + width, dtype)
            check(
                *planes_out, lambda s, o: (s, 2, step, o, 1),
                np.full(1 + taps * taps * width, np.nan, dtype), (source,), side,
            )
            check(
                *tiles_out, lambda s, o: (s, 2, step, o, 1, m * width + 2),
                np.full(1 + m * (m * width + 2) - 2, np.nan, dtype), (source,), side,
            )
"""

PARTS = {
    "scratch": SCRATCH,
    "dots": DOTS,
    "pixels": PIXELS,
    "epilogue": EPILOGUE,
    "depthwise": DEPTHWISE,
    "lanes": LANES,
}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")


@pytest.mark.parametrize("part", PARTS)
def test_does_as_its_stand_in(part, run_python):
    run_python(COMMON + PARTS[part])


@pytest.mark.parametrize("width", ["sse2", "avx2"])
def test_narrower_vectors(width, run_python):
    environment, size = NARROWER[width]
    if "+fma" in environment["NUMBA_CPU_FEATURES"] and "+fma" not in get_host_cpu_features():
        pytest.skip("this CPU has no AVX2 and FMA")
    code = COMMON + f"assert microkernel.VECTOR_BYTES == {size}\n" + "".join(PARTS.values())
    run_python(code, timeout=300, **environment)
