"""Winograd's algorithms: every size of block and what is left over, however the filters are held; what they promise."""

import sys

import numpy as np
import pytest
from conv_support import around, check_passes
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fastcnn.common.convolution import WINOGRAD, applies
from fastcnn.cpu import conv
from fastcnn.cpu.conv import direct, winograd
from fastcnn.cpu.conv.points import POINTS, filterings, matrices
from fastcnn.cpu.gemm import DEPTH
from fastcnn.cpu.microkernel import ROWS, columns, lanes

# How U and V are held: filters made once for all; by each group of filters, with V of all blocks; of a block at a time.
HELD = {"shared": {}, "by group": {"SHARED": 0}, "by group and block": {"SHARED": 0, "CHUNK": 1}}

each_algorithm = pytest.mark.parametrize("algo", WINOGRAD)
each_way = pytest.mark.parametrize("held", HELD)


@pytest.fixture
def hold(monkeypatch):
    """hold(name): as in HELD."""

    def choose(name):
        for switch, value in HELD[name].items():
            monkeypatch.setattr(winograd, switch, value)

    return choose


def sizes(dtype):
    """Channels and filters around a panel of filters, a vector, a tile of the product, a group of panels."""
    return around(1, ROWS, lanes(dtype), columns(dtype), winograd.GROUP * ROWS)


# ---- the matrices


@pytest.mark.parametrize("m, taps", [(m, taps) for m, taps, stride in WINOGRAD.values() if stride == 1])
def test_matrices(m, taps):
    """y = A^T [(G g) * (B^T d)] is the correlation of d and g, exactly."""
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(m + taps - 1), rng.standard_normal(taps)
    a, g_, b = matrices(POINTS[m + taps - 1], m, taps)
    np.testing.assert_allclose(a @ ((g_ @ g) * (b @ d)), np.correlate(d, g, "valid"), rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="^points: expected"):
        matrices(POINTS[m + taps - 1], m + 1, taps)


@pytest.mark.parametrize("m, taps, stride", WINOGRAD.values())
def test_filterings(m, taps, stride):
    """One tile, along one axis, of each pass is what its sums say, exactly."""
    rng = np.random.default_rng(0)
    forward, backward_input, backward_filter = filterings(m, taps, stride)

    def apply(filtering, d, w):
        products = (filtering.g @ w) * (filtering.b @ d)
        return filtering.a @ np.bincount(filtering.fold, products)

    def close(got, exact):
        np.testing.assert_allclose(got, exact, rtol=1e-12, atol=1e-13)

    w, dout = rng.standard_normal(taps), rng.standard_normal(m)
    d = rng.standard_normal(forward.b.shape[1])
    close(apply(forward, d, w), [d[stride * o :][:taps] @ w for o in range(m)])
    assert (forward.step, backward_filter.step, backward_input.step) == (stride * m, stride * m, m)

    d = rng.standard_normal(backward_filter.b.shape[1])
    close(apply(backward_filter, d, dout), [d[k::stride][:m] @ dout for k in range(taps)])

    g = rng.standard_normal(backward_input.b.shape[1])
    exact = np.zeros(stride * len(g) + taps)  # from `taps - stride` pixels before the tile on
    for o, gradient in enumerate(g):
        exact[stride * o :][:taps] += gradient * w
    close(apply(backward_input, g, w[::-1]), exact[taps - stride :][: stride * m])


# ---- sizes


@each_algorithm
@each_way
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_size(algo, held, dtype, hold):
    hold(held)
    m, taps, stride = WINOGRAD[algo]
    across = columns(dtype)

    @given(
        channels=st.sampled_from(sizes(dtype)),
        filters=st.sampled_from(sizes(dtype)),
        tiles=st.sampled_from([*((n, 1, 1) for n in around(1, across)), (1, 1, 2), (1, 3, 5), (2, 7, 7), (5, 2, 9)]),
        rest=st.tuples(st.integers(0, stride * m - 1), st.integers(0, stride * m - 1)),
        pad=st.tuples(st.integers(0, taps - 1), st.integers(0, taps - 1)),
    )
    @settings(max_examples=12, deadline=None, database=None)
    def check(channels, filters, tiles, rest, pad):
        images, *grid = tiles
        size = [max(1, taps - 2 * p, stride * (m * t - 1) + taps - r - 2 * p) for t, r, p in zip(grid, rest, pad)]
        shapes = (images, channels, *size), (filters, channels, taps, taps)
        check_passes(algo, *shapes, (stride, stride), pad, dtype=dtype)

    check()


@each_algorithm
@each_way
@pytest.mark.parametrize("tiles", around(1, columns("float32"), 2 * columns("float32")))
def test_tiles_in_a_row(algo, held, tiles, hold):
    """As one row of an image, and as the images of a batch: blocks that are full, and one tile more or less."""
    hold(held)
    m, taps, stride = WINOGRAD[algo]
    steps = stride, stride
    check_passes(algo, (1, 3, taps, stride * (m * tiles - 1) + taps), (5, 3, taps, taps), steps)
    check_passes(algo, (tiles, 3, stride * m, 2), (5, 3, taps, taps), steps, (taps // 2, taps // 2))


@each_algorithm
@each_way
def test_deep_sums(algo, held, hold):
    """More channels, filters and tiles than are summed at once."""
    hold(held)
    m, taps, stride = WINOGRAD[algo]
    geometry, size = ((stride, stride), (taps // 2, taps // 2)), stride * m
    for channels in around(DEPTH):
        check_passes(algo, (1, channels, size, size), (2, channels, taps, taps), *geometry)
    for filters in (DEPTH - 1, DEPTH + 1):
        check_passes(algo, (1, 2, size, size), (filters, 2, taps, taps), *geometry)
    check_passes(algo, (3, 2, 10 * size, 11 * size - 1), (3, 2, taps, taps), *geometry)


@each_algorithm
def test_many_filters_choose_the_other_way_by_themselves(algo, monkeypatch):
    """On both sides of SHARED."""
    m, taps, stride = WINOGRAD[algo]
    used, algorithm = [], conv.choose.MODULES[algo]

    def noted(name, kernel):
        def run(*args):
            used.append(name)
            kernel(*args)

        return run

    for kernels in {
        id(part): part.kernels for part in (algorithm.outputs, algorithm.pixels, algorithm.filters)
    }.values():
        for name in {"tiles", "groups", "pieces", "sums"} & set(vars(kernels)):
            monkeypatch.setattr(kernels, name, noted(name, getattr(kernels, name)))
    size = stride * (m + taps)
    for numbers, more, names in (
        (algorithm.outputs.products, 0, {"tiles", "pieces"}),
        (algorithm.filters.sums, 64, {"groups", "sums"}),
    ):
        channels = winograd.SHARED // (4 * numbers) // 64 // 64 * 64 + more  # with 64 filters
        used.clear()
        check_passes(algo, (2, channels, size, size), (64, channels, taps, taps), (stride, stride), (1, 1))
        assert set(used) == names


@each_algorithm
def test_nothing_to_do(algo):
    _, taps, stride = WINOGRAD[algo]
    geometry = (stride, stride), (1, 1)
    x, w = np.ones((0, 3, 7, 7), np.float32), np.ones((4, 3, taps, taps), np.float32)
    out, mean, var = conv.conv_moments_forward(x, w, None, *geometry, algo=algo)
    size = (9 - taps) // stride + 1
    assert out.shape == (0, 4, size, size) and not mean.any() and not var.any()
    assert conv.conv_backward_input(out, w, x.shape, *geometry, algo=algo).shape == x.shape
    dw = conv.conv_backward_filter(out, x, w.shape, *geometry, algo=algo, out=np.full_like(w, np.nan))
    assert_array_equal(dw, np.zeros_like(w))


# ---- what is promised


@each_algorithm
@pytest.mark.parametrize(
    "change",
    [
        {"stride": (1, 2)}, {"stride": (2, 1)}, {"stride": (3, 3)}, {"dilation": (2, 1)}, {"dilation": (1, 2)},
        {"groups": 2}, {"pad": (5, 0)}, {"pad": (0, 5)}, {"kernel": (3, 5)}, {"kernel": (5, 3)}, {"kernel": (1, 1)},
    ],
)  # fmt: skip
def test_other_geometries_are_computed_directly(algo, change):
    _, taps, stride = WINOGRAD[algo]
    given = {
        "stride": (stride, stride),
        "pad": (1, 1),
        "dilation": (1, 1),
        "groups": 1,
        "kernel": (taps, taps),
    } | change
    kernel = given.pop("kernel")
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 11, 12)), rng.standard_normal((6, 4 // given["groups"], *kernel))
    assert not applies(algo, w.shape, *given.values())
    out = conv.conv_forward(x, w, None, **given, algo=algo)
    assert_array_equal(out, conv.conv_forward(x, w, None, **given, algo="direct"))
    assert conv.choose.algorithm(algo, "forward", x.shape, w.shape, *given.values(), x.dtype) is direct
    for function, shapes in (
        (conv.conv_backward_input, (out, w, x.shape)),
        (conv.conv_backward_filter, (out, x, w.shape)),
    ):
        assert_array_equal(function(*shapes, **given, algo=algo), function(*shapes, **given, algo="direct"))


def test_results_do_not_depend_on_threads(run_python):
    """Bit for bit, however the filters are held; the catalogue's cases are in test_catalogue."""
    run_python(
        """
        import numpy as np
        import fastcnn
        from fastcnn.common.convolution import WINOGRAD
        from fastcnn.common.geometry import output_shape
        from fastcnn.cpu import conv
        from fastcnn.cpu.conv import winograd

        rng = np.random.default_rng(0)
        for algo, (m, taps, stride) in WINOGRAD.items():
            size, geometry = (3 * stride * m + 1, 3 * stride * m), ((stride, stride), (1, 1))
            x = rng.standard_normal((7, 35, *size), np.float32)
            w = rng.standard_normal((41, 35, taps, taps), np.float32)
            dout = rng.standard_normal((7, 41, *output_shape(size, (taps, taps), *geometry)), np.float32)
            for shared, chunk in ((winograd.SHARED, winograd.CHUNK), (0, winograd.CHUNK), (0, 1)):
                winograd.SHARED, before, winograd.CHUNK = shared, (winograd.SHARED, winograd.CHUNK), chunk
                results = []
                for threads in (1, 2, 4):
                    fastcnn.set_num_threads(threads)
                    results.append(
                        [
                            *conv.conv_moments_forward(x, w, None, *geometry, algo=algo),
                            conv.conv_backward_input(dout, w, x.shape, *geometry, algo=algo),
                            conv.conv_backward_filter(dout, x, w.shape, *geometry, algo=algo),
                        ]
                    )
                winograd.SHARED, winograd.CHUNK = before
                for other in results[1:]:
                    assert all(a.tobytes() == b.tobytes() for a, b in zip(results[0], other)), (algo, shared, chunk)
        """,
        NUMBA_NUM_THREADS=4,
        timeout=500,  # most of it for compiling, where this test is the first
    )


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
@each_way
def test_stays_within_its_buffers(held, run_python):
    """Random sizes, every array flush against a guard page."""
    run_python(
        f"""
        import numpy as np
        from guarded import SIDES, guarded
        from fastcnn.common.convolution import WINOGRAD
        from fastcnn.common.geometry import output_shape
        from fastcnn.cpu import conv
        from fastcnn.cpu.conv import winograd

        vars(winograd).update({HELD[held]})
        rng = np.random.default_rng(0)
        for turn in range(100):
            algo = list(WINOGRAD)[turn % len(WINOGRAD)]
            _, taps, stride = WINOGRAD[algo]
            images, channels, filters = map(int, rng.integers(1, (5, 20, 40)))
            pad = tuple(map(int, rng.integers(0, taps, 2)))
            size = [max(1, taps - 2 * p) + int(rng.integers(0, 30)) for p in pad]
            x, w = np.ones((images, channels, *size)), np.ones((filters, channels, taps, taps))
            b, geometry = np.zeros(filters), ((stride, stride), pad)
            dout = np.ones((images, filters, *output_shape(size, (taps, taps), *geometry)))
            for side in SIDES:
                x_, w_, b_, dout_ = (guarded(a.astype(np.float32), side) for a in (x, w, b, dout))

                def new(like):
                    return guarded(np.full_like(like, np.nan), side)

                for result in (
                    conv.conv_forward(x_, w_, b_, *geometry, relu=True, add=dout_, algo=algo, out=new(dout_)),
                    *conv.conv_moments_forward(x_, w_, None, *geometry, algo=algo, out=new(dout_)),
                    conv.conv_backward_input(dout_, w_, x.shape, *geometry, algo=algo, out=new(x_)),
                    conv.conv_backward_filter(dout_, x_, w.shape, *geometry, algo=algo, out=new(w_)),
                ):
                    assert not np.isnan(result).any()
        """,
        timeout=500,
    )
