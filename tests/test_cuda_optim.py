"""Update rules of the CUDA floor on the simulator: scales that stay on the device, odd memory; numbers read late."""

from test_cuda_values import simulate


def test_a_gradient_scale_may_stay_on_the_device(run_python):
    """It is read by kernels alone, and every rule takes it."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import optim, pending
        from fastcnn.cuda.arrays import to_device, to_host
        from fastcnn.reference import optim as reference

        def refuse(array):
            raise AssertionError("a number was copied to the host")

        rng = np.random.default_rng()
        w, dw, v, m = (to_device(rng.random(37)) for _ in range(4))
        copy, pending.to_host = pending.to_host, refuse
        for max_norm in (0.5, 100.0):
            scale = optim.clip_scale(dw, max_norm)
            exact = reference.clip_scale(to_host(dw), max_norm)
            for rule, state, rest in (
                ("sgd_update", (), ()),
                ("momentum_update", (v,), ()),
                ("adagrad_update", (v,), ()),
                ("rmsprop_update", (v,), ()),
                ("adam_update", (m, v), (3,)),
            ):
                got = getattr(optim, rule)(w, dw, *state, *rest, 0.1, grad_scale=scale)
                host = map(to_host, (w, dw, *state))
                expected = getattr(reference, rule)(*host, *rest, 0.1, grad_scale=exact)
                for one, other in zip(got, expected, strict=True):
                    np.testing.assert_allclose(to_host(one), other, rtol=1e-14)
        pending.to_host = copy
        assert abs(float(optim.clip_scale(dw, 0.5)) - reference.clip_scale(to_host(dw), 0.5)) < 1e-15
    """,
    )


def test_gradients_are_clipped_by_value(run_python):
    """After the scale, also one on the device; infinity as well, and NaN stays."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import optim
        from fastcnn.cuda.arrays import to_device, to_host
        from fastcnn.reference import optim as reference

        rng = np.random.default_rng()
        for dtype in (np.float32, np.float64):
            w, dw, v, m = (rng.uniform(-1, 1, 37).astype(dtype) for _ in range(4))
            v = abs(v)
            scale, exact = optim.clip_scale(to_device(dw), 2.0), reference.clip_scale(dw, 2.0)
            dw[3:20:5] = np.nan, np.inf, -np.inf, 1e30
            for rule, state, rest in (
                ("sgd_update", (), ()),
                ("momentum_update", (m,), ()),
                ("adagrad_update", (v,), ()),
                ("rmsprop_update", (v,), ()),
                ("adam_update", (m, v), (3,)),
            ):
                options = dict(weight_decay=0.1, l1=0.01, clip_value=0.3)
                given = map(to_device, (w, dw, *state))
                got = to_host(getattr(optim, rule)(*given, *rest, 0.1, grad_scale=scale, **options)[0])
                host = (a.astype(float) for a in (w, dw, *state))
                expected = getattr(reference, rule)(*host, *rest, 0.1, grad_scale=exact, **options)[0]
                assert np.isnan(got[3]) and np.isfinite(np.delete(got, 3)).all()
                np.testing.assert_allclose(got, expected, rtol=1e-4 if dtype == np.float32 else 1e-12)
    """,
    )


def test_norms_of_several_blocks_and_of_memory_that_is_not_aligned(run_python):
    """The same number to the last bit, wherever the array begins."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import optim
        from fastcnn.cuda.arrays import aligned, to_device
        from fastcnn.cuda.reduce import PART

        rng = np.random.default_rng()
        for dtype, size in ((np.float32, 2 * PART + 3), (np.float64, 1), (np.float32, 7), (np.float32, 0)):
            x = rng.standard_normal(size).astype(dtype)
            shifted = to_device(np.concatenate([[np.nan], x, [np.nan]]).astype(dtype))[1:-1]
            assert not size or not aligned(shifted)
            norm = float(optim.squared_norm(to_device(x)))
            assert norm == float(optim.squared_norm(shifted))
            assert abs(norm - np.square(x, dtype=np.float64).sum()) <= 1e-14 * norm
        assert np.isnan(float(optim.squared_norm(to_device(np.array([1, np.nan, 2])))))
        assert np.isnan(float(optim.clip_scale(to_device(np.array([1, np.nan, 2])), 1.0)))
        assert float(optim.clip_scale(to_device(np.array([1, np.inf, 2])), 1.0)) == 0
    """,
    )


def test_updates_of_memory_that_is_not_aligned(run_python):
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import optim
        from fastcnn.cuda.arrays import to_device, to_host
        from fastcnn.reference import optim as reference

        x = np.random.default_rng().standard_normal((3, 1031)).astype(np.float32)
        w, dw, v = (to_device(row)[1:-1] for row in x)
        w_out, v_out = optim.momentum_update(w, dw, v, 0.1, out=(w, v))
        assert w_out is w and v_out is v
        w, v = reference.momentum_update(*x[:, 1:-1].astype(float), 0.1)
        np.testing.assert_allclose(to_host(w_out), w, atol=1e-6)
        np.testing.assert_allclose(to_host(v_out), v, atol=1e-6)
    """,
    )


def test_a_pending_number_reads_as_the_number_that_it_is(run_python):
    simulate(
        run_python,
        """
        import math
        from numbers import Real
        import numpy as np
        from fastcnn.cuda.arrays import to_device
        from fastcnn.cuda.pending import Pending

        array = to_device(np.array([2.5]))
        a, b = Pending(array), Pending(to_device(np.array([-4.0])))
        assert (a + 1, 1 + a, a - b, 2 - a, a * b, 5 / a, a // 2, 7 % a, a**2, 2**a) == (
            3.5, 3.5, 6.5, -0.5, -10, 2, 1, 2, 6.25, 2**2.5
        )
        assert (-a, +a, abs(b), int(a), round(a), math.floor(a), math.ceil(a), math.trunc(b)) == (
            -2.5, 2.5, 4, 2, 2, 2, 3, -4
        )
        assert b < a and a > 2 and a == 2.5 and a != b and 3 >= a and a <= a and bool(a)
        assert f"{a:.2f} {a} {a!r}" == "2.50 2.5 2.5"
        assert isinstance(a, Real) and hash(a) == hash(2.5) and max(b, a, 1) is a and sum([a, b]) == -1.5
        assert np.isfinite(a) and np.mean([a, b]) == -0.75 and np.asarray(a).dtype == np.float64
        assert np.array_equal(np.ones(2) * a, [2.5, 2.5])
        array.copy_to_device(np.array([9.0]))
        assert a == 2.5  # it was read already
    """,
    )


def test_a_pending_number_is_checked_when_it_is_read(run_python):
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda.arrays import to_device
        from fastcnn.cuda.pending import Pending

        def check(first, second):
            if first > 2:
                raise ValueError(f"got {second}")

        assert Pending(to_device(np.array([1.0, 2, 3])), check) == 1
        wrong = Pending(to_device(np.array([1.0, 3, 4])), check)
        for _ in range(2):
            try:
                float(wrong)
            except ValueError as error:
                assert str(error) == "got 4.0"
            else:
                raise AssertionError("was not checked")
    """,
    )
