"""Pooling on the CUDA floor where the catalogue's cases do not go: ties, infinities, NaN, windows of many pixels."""

import pytest
from test_cuda_values import simulate

COMPARE = """
    import numpy as np
    from fastcnn.cuda import pool
    from fastcnn.cuda.arrays import to_device, to_host
    from fastcnn.reference import pool as reference

    def compare(x, *window):
        y = reference.max_pool_forward(x, *window)
        np.testing.assert_array_equal(to_host(pool.max_pool_forward(to_device(x), *window)), y)
        dout = np.random.default_rng(1).integers(1, 9, y.shape).astype(x.dtype)  # whose sums are exact
        dx, exact = np.full_like(x, np.nan), reference.max_pool_backward(dout, x, *window)
        dx = to_host(pool.max_pool_backward(to_device(dout), to_device(x), *window, out=to_device(dx)))
        np.testing.assert_array_equal(dx, exact)
        assert dx.sum() == dout.sum()
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_first_maximum_takes_the_gradient(dtype, run_python):
    simulate(
        run_python,
        f"""{COMPARE}
    rng = np.random.default_rng()
    for special in (None, np.nan, -np.inf, np.inf):
        for size, stride, pad in (((2, 2), (2, 2), (1, 1)), ((3, 3), (1, 2), (1, 0)), ((2, 5), (2, 1), (0, 2))):
            x = rng.integers(-1, 2, (2, 3, 7, 9)).astype({dtype!r})
            if special is not None:
                x[rng.random(x.shape) < 0.6] = special
            compare(x, size, stride, pad)
    compare(np.full((1, 2, 4, 4), -np.inf, {dtype!r}), (3, 3), (2, 2), (1, 1))
    """,
    )


def test_windows_of_more_pixels_than_a_byte_counts(run_python):
    simulate(
        run_python,
        f"""{COMPARE}
    x = np.random.default_rng().permutation(2 * 18 * 20).reshape(1, 2, 18, 20).astype(np.float32)
    compare(x, (16, 17), (1, 1))
    compare(np.where(np.arange(x.size).reshape(x.shape) == 330, 1, x * 0), (17, 16), (1, 4), (8, 8))
    """,
    )
