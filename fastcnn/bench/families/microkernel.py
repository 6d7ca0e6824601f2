"""The innermost loop of the matrix products alone, on packed panels that stay in cache: a share of the FMA rate."""

from fastcnn.bench.cases import Case

_REPEATS = 2000


def cases():
    """Depths as convolutions have them."""
    return [_case(depth) for depth in (64, 128, 256)]


def _case(depth):
    from fastcnn.cpu.microkernel import ROWS, columns

    tasks, repeats = 8, _REPEATS * 256 // depth
    return Case(
        name=f"multiply_panels depth {depth}",
        family="microkernel",
        work="multiply_panels",
        params=dict(tasks=tasks, repeats=repeats, depth=depth),
        flops=2 * tasks * repeats * depth * ROWS * columns("float32"),
        quick=depth == 256,
    )


def inputs(case, rng):
    """None: the panels hold constants."""
    return {}
