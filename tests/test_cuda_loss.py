"""Losses of the CUDA floor on the simulator: teams of all sizes, several blocks, labels that are not allowed."""

import pytest
from test_cuda_values import simulate


def test_teams_of_all_sizes_and_rows_of_several_blocks(run_python):
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import loss
        from fastcnn.cuda.arrays import to_device, to_host
        from fastcnn.reference import loss as reference

        rng = np.random.default_rng()
        for n, c in ((300, 1), (259, 3), (70, 17), (3, 300), (1, 1031), (0, 4)):
            x, labels, soft = 5 * rng.standard_normal((n, c)), rng.integers(0, c, n), rng.dirichlet(np.ones(c), n)
            for name, y, rest in (
                ("softmax_loss", labels, ()), ("softmax_loss", labels, (0.2,)), ("softmax_loss", soft, (0.2,)),
                ("svm_loss", labels, (1.5,)),
            ):
                value, dx = getattr(loss, name)(to_device(x), to_device(y), *rest)
                exact, slope = getattr(reference, name)(x, y, *rest)
                np.testing.assert_allclose(float(value), exact, rtol=1e-13)
                np.testing.assert_allclose(to_host(dx), slope, rtol=1e-12, atol=1e-16)
    """,
    )


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
def test_labels_of_any_integer_dtype(dtype, run_python):
    simulate(
        run_python,
        f"""
        import numpy as np
        from fastcnn.cuda import loss
        from fastcnn.cuda.arrays import to_device, to_host
        from fastcnn.reference import loss as reference

        rng = np.random.default_rng()
        x, y = rng.standard_normal((5, 3)).astype(np.float32), rng.integers(0, 3, 5).astype({dtype!r})
        for name in ("softmax_loss", "svm_loss"):
            value, dx = getattr(loss, name)(to_device(x), to_device(y))
            exact, slope = getattr(reference, name)(x, y)
            np.testing.assert_allclose(float(value), exact, rtol=1e-6)
            np.testing.assert_allclose(to_host(dx), slope, atol=1e-7)
    """,
    )


@pytest.mark.parametrize("name", ["softmax_loss", "svm_loss"])
def test_a_label_out_of_range_is_an_error_when_the_loss_is_read(name, run_python):
    """The first one is named; its row of dx is NaN, and all others are as they would be."""
    simulate(
        run_python,
        f"""
        import numpy as np
        from fastcnn.cuda import loss
        from fastcnn.cuda.arrays import to_device, to_host

        rng = np.random.default_rng()
        x, good = rng.standard_normal((300, 6)), rng.integers(0, 6, 300)
        for wrong, dtype in ((6, np.int64), (-1, np.int64), (2**40, np.int64), (-(2**31), np.int32), (200, np.uint8)):
            y = good.astype(dtype)
            y[[17, 290]] = wrong, 7
            value, dx = loss.{name}(to_device(x), to_device(y))
            for _ in range(2):
                try:
                    float(value)
                except ValueError as error:
                    assert str(error) == f"y: expected labels in [0, 6), got {{wrong}}", error
                else:
                    raise AssertionError("no error")
            right = np.ones(300, bool)
            right[[17, 290]] = False
            exact = to_host(loss.{name}(to_device(x), to_device(good))[1])
            assert np.array_equal(to_host(dx)[right], exact[right])
            assert np.isnan(to_host(dx)[~right]).all()
    """,
    )


def test_a_target_out_of_range_is_an_error_when_the_loss_is_read(run_python):
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import loss
        from fastcnn.cuda.arrays import to_device, to_host

        x, good = np.random.default_rng().random((2, 41)).astype(np.float32)
        exact = to_host(loss.binary_cross_entropy_loss(to_device(x), to_device(good))[1])
        for wrong, text in ((1.5, "1.5"), (-0.25, "-0.25"), (np.nan, "nan")):
            y = good.copy()
            y[[3, 40]] = wrong, 9
            value, dx = loss.binary_cross_entropy_loss(to_device(x), to_device(y))
            try:
                float(value)
            except ValueError as error:
                assert str(error) == f"y: expected targets in [0, 1], got {text}", error
            else:
                raise AssertionError("no error")
            assert np.flatnonzero(np.isnan(to_host(dx))).tolist() == [3, 40]
            assert np.array_equal(np.delete(to_host(dx), [3, 40]), np.delete(exact, [3, 40]))
    """,
    )


def test_scores_that_are_not_finite_are_no_error(run_python):
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import loss
        from fastcnn.cuda.arrays import to_device, to_host
        from fastcnn.reference import loss as reference

        np.seterr(all="ignore")
        y, soft = np.array([0, 1, 2, 0]), np.full((4, 3), 1 / 3)
        for value in (np.nan, np.inf, -np.inf):
            x = np.random.default_rng().standard_normal((4, 3))
            x[1, 2] = value
            for name, targets in (
                ("softmax_loss", y), ("softmax_loss", soft), ("svm_loss", y), ("binary_cross_entropy_loss", soft),
            ):
                got, dx = getattr(loss, name)(to_device(x), to_device(targets))
                exact, slope = getattr(reference, name)(x, targets)
                np.testing.assert_allclose(float(got), exact, rtol=1e-13)
                np.testing.assert_allclose(to_host(dx), slope, atol=1e-15)
    """,
    )


def test_cross_entropy_does_not_depend_on_where_memory_begins(run_python):
    """Several blocks, a size that is no multiple of a vector; the same bits."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import loss
        from fastcnn.cuda.arrays import aligned, to_device, to_host
        from fastcnn.cuda.reduce import PART
        from fastcnn.reference import loss as reference

        size = PART + 1027
        x, y = np.random.default_rng().random((2, size)).astype(np.float32)
        shifted = [to_device(np.concatenate([[np.nan], a]).astype(np.float32))[1:] for a in (x, y)]
        assert not aligned(shifted[0])
        value, dx = loss.binary_cross_entropy_loss(to_device(x), to_device(y))
        other, other_dx = loss.binary_cross_entropy_loss(*shifted)
        assert value == other and np.array_equal(to_host(dx), to_host(other_dx))
        exact, slope = reference.binary_cross_entropy_loss(x, y)
        np.testing.assert_allclose(float(value), exact, rtol=1e-6)
        np.testing.assert_allclose(to_host(dx), slope, rtol=1e-5, atol=1e-11)
    """,
    )
