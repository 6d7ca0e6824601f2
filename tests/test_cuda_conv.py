"""Products of matrices and convolution on the CUDA floor where the catalogue's quick cases do not go."""

import pytest
from test_cuda_values import simulate

PRODUCT = """
    import numpy as np
    from fastcnn.cuda import gemm
    from fastcnn.cuda.arrays import to_device, to_host
    from fastcnn.cuda.gemm import ACROSS, ALONG_K, SINGLY, Axis, Operand, Target
    from fastcnn.validate import relative_error

    rng = np.random.default_rng()

    def put(values, shift=0):
        "Flat in memory, from an address that is that many elements from a multiple of 16 bytes."
        room = to_device(np.concatenate([np.full(shift, np.nan, values.dtype), values.ravel()]))
        return room[shift:]

    def product(tile, rows, columns, depth, a_along=True, b_along=False, groups=1, dtype="float32", shift=0,
                modes=None, by_column=False, **options):
        'The relative error of max(a b + bias + add, 0).'
        a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((groups, rows, depth), (groups, depth, columns)))
        bias = rng.standard_normal(columns if by_column else groups * rows).astype(dtype)
        add = rng.standard_normal((groups, rows, columns)).astype(dtype)
        left = Operand(put(a if a_along else a.swapaxes(1, 2).copy(), shift), *(
            ((depth,), (1, 0, 0)) if a_along else ((1,), (rows, 0, 0))), rows * depth)
        right = Operand(put(b.swapaxes(1, 2).copy() if b_along else b, shift), *(
            ((depth, 0, 0), (1, 0, 0)) if b_along else ((1, 0, 0), (columns, 0, 0))), columns * depth)
        out = put(np.full(add.size, np.nan, dtype), shift)
        target = Target(out, columns, (1, 0, 0), rows * columns, 0, put(bias), by_column, put(add), True)
        if modes is not None:
            k = Axis(depth)
            assert (gemm._mode(left, Axis(rows), k, True), gemm._mode(right, Axis(columns), k, True)) == modes
        gemm.multiply(left, right, target, rows, Axis(columns), Axis(depth), groups=groups, tile=tile, **options)
        bias = bias if by_column else bias.reshape(groups, rows, 1)
        exact = np.maximum(a.astype("f8") @ b.astype("f8") + bias + add, 0)
        return relative_error(to_host(out).reshape(exact.shape), exact)
"""


@pytest.mark.parametrize("numbers, tiles", [("float32", 3), ("float64", 2), ("tf32", 2), ("bf16", 2)])
def test_tiles(numbers, tiles, run_python):
    """Each tile with its tails, and with every way to read operands and to write."""
    simulate(
        run_python,
        PRODUCT
        + f"""
    tiles, limits = gemm.TILES[{numbers!r}], {{"float32": 3e-7, "float64": 1e-15, "tf32": 6e-4, "bf16": 5e-3}}
    limit, dtype = limits[{numbers!r}], {numbers!r} if {numbers!r} == "float64" else "float32"
    assert len(tiles) == {tiles}
    for tile in tiles:
        rows, columns, options = tile.rows, tile.columns, dict(parts=1, dtype=dtype)
        assert product(tile, rows + 3, columns + 5, 13, modes=(SINGLY, SINGLY), **options) < limit
        assert product(tile, rows - 4, columns + 4, 20, modes=(ALONG_K, ACROSS), **options) < limit
        assert product(tile, rows - 4, columns - 4, 20, False, True, modes=(ACROSS, ALONG_K), **options) < limit
        options["by_column"] = True
        assert product(tile, 5, columns - 8, 20, True, True, modes=(ALONG_K, ALONG_K), **options) < limit
        assert product(tile, 8, 12, 4, shift=1, modes=(SINGLY, SINGLY), **options) < limit
    """,
    )


def test_rounds_parts_and_groups(run_python):
    """Sums of more than a round, cut into parts that need not be of one length; their ends, and groups."""
    simulate(
        run_python,
        PRODUCT
        + """
    tile = gemm.TILES["float32"][2]
    assert product(tile, 5, 7, 2 * gemm.ROUND + 9, parts=1) < 1e-6
    assert product(tile, 6, 8, gemm.ROUND + 8, groups=2, parts=1) < 1e-6
    for by_column in (False, True):
        assert product(tile, 6, 8, 300, groups=2, parts=3, by_column=by_column) < 1e-6
        assert product(tile, 5, 7, 77, parts=2, by_column=by_column) < 3e-7
    assert product(tile, 5, 7, 33, groups=3, parts=1) < 3e-7
    assert product(tile, 5, 7, 0, parts=1) < 3e-7
    """,
    )


def test_the_loop_over_a_panel(run_python):
    """What a GPU runs and what stands in for it on the simulator."""
    simulate(
        run_python,
        PRODUCT
        + """
    from fastcnn.cuda import simulator

    def both(panels, ours, theirs):
        gemm._add_products(ours, panels, 4, 68, 32, 600, 36, 16)
        gemm.add_products_python(theirs, panels, 4, 68, 32, 600, 36, 16)

    panels = rng.standard_normal(1000)
    ours, theirs = np.zeros((2, gemm.SUMS))
    simulator.run(both, 1, 1, (panels, ours, theirs))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert abs(ours).min() > 0
    """,
    )


def test_the_choice_of_tiles(run_python):
    """Large tiles where they fill a GPU, parts where tiles are too few; by shape alone."""
    simulate(
        run_python,
        PRODUCT
        + """
    def chosen(rows, columns, depth, groups=1, dtype="float32"):
        tile, parts = gemm.choose(rows, columns, depth, groups, dtype)
        return (tile.rows, tile.columns), parts

    assert chosen(256, 100_000, 2304) == ((128, 128), 1)
    assert chosen(16, 100_000, 144) == ((32, 128), 1)
    assert chosen(64, 576, 100_000)[1] > 8
    assert chosen(512, 49, 4608)[1] > 1
    assert chosen(64, 100_000, 576, dtype="float64") == ((64, 64), 1)
    """,
    )


def test_convolutions_of_every_kind(run_python):
    """The catalogue's awkward geometries; images read by vectors; rows of a product that are cut into parts."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.catalogue import OPS, Floor, _conv_case, as_tuple, cast
        from fastcnn.validate import relative_error

        floor, rng = Floor("cuda"), np.random.default_rng()
        cases = [
            _conv_case((1, 1, 1, 1), (1, 1, 1, 1)),
            _conv_case((2, 3, 5, 7), (4, 3, 2, 2), stride=(4, 3)),
            _conv_case((0, 3, 6, 6), (4, 3, 3, 3), pad=1),
            _conv_case((2, 5, 5, 9), (10, 1, 3, 5), stride=(2, 1), pad=(1, 2), groups=5),
            _conv_case((1, 2, 3, 2), (3, 2, 5, 5), stride=(1, 3), pad=(4, 3), dilation=(2, 1)),
            _conv_case((2, 4, 6, 6), (6, 2, 1, 1), groups=2, add=True),
            _conv_case((2, 4, 6, 6), (8, 4, 1, 1), pad=1, stride=2),
            _conv_case((1, 3, 17, 16), (5, 3, 3, 3), stride=(1, 2), pad=(2, 1), dilation=(3, 2), relu=True),
            _conv_case((5, 2, 8, 8), (3, 2, 3, 3), pad=1),
            _conv_case((3, 2, 9, 10), (12, 2, 3, 3), pad=1, groups=1),
        ]
        names = [name for name, op in OPS.items() if op.family == "conv" and op.limits]
        for case in cases:
            for name in names:
                op = OPS[name]
                arguments = op.arguments(rng, {**case, "algo": "direct"}, "float32")
                exact = as_tuple(op.function("reference")(**{k: cast(v, np.float64) for k, v in arguments.items()}))
                errors = [relative_error(k, r) for k, r in zip(as_tuple(floor.call(op, arguments)), exact, strict=True)]
                assert max(errors) <= op.limits.get("direct", op.limit).float32, (name, case, errors)
        """,
    )


def test_algorithms_that_are_not_told_apart(run_python):
    """Whatever is asked for, the floor computes it, and by the same sums."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.common.convolution import CHOICES
        from fastcnn.cuda.arrays import to_device, to_host
        from fastcnn.cuda.conv import conv_forward

        x, w = (np.random.default_rng().standard_normal(shape) for shape in ((1, 2, 4, 5), (3, 2, 3, 3)))
        results = [
            to_host(conv_forward(to_device(x), to_device(w), None, (1, 1), (1, 1), algo=algo)) for algo in CHOICES
        ]
        assert all(np.array_equal(result, results[0]) for result in results)
        """,
    )
