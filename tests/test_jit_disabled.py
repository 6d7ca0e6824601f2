"""The kernels as Python runs them, and compiled with bounds checking: what reads or writes past an array shows."""

VALIDATE = """
    from fastcnn.validate import validate

    verdicts = list(validate(dtypes={dtypes}, level="quick"))
    assert len(verdicts) > 40
    failures = [(verdict.op, verdict.failures) for verdict in verdicts if not verdict.passed]
    assert not failures, failures
"""


def test_kernels_run_with_jit_disabled(run_python):
    """Intrinsics through their Python stand-ins."""
    run_python(
        """
        from fastcnn.cpu import microkernel, moves
        assert microkernel.multiply_tile is microkernel._multiply_tile_python
        assert moves.copy_run is moves._copy_run_python
        """
        + VALIDATE.format(dtypes=("float32", "float64")).replace("\n", "\n    "),
        NUMBA_DISABLE_JIT=1,
    )


def test_kernels_stay_within_bounds(run_python):
    """Not optimised: the checks are the same, and are compiled sooner."""
    run_python(
        """
        import numpy as np
        from fastcnn.cpu import jit

        @jit.jit
        def beyond(x):
            return x[x.size]

        try:
            beyond(np.ones(3))
        except IndexError:
            pass
        else:
            raise AssertionError("bounds are not checked")
        """
        + VALIDATE.format(dtypes=("float32",)).replace("\n", "\n    "),
        NUMBA_BOUNDSCHECK=1,
        NUMBA_OPT=0,
        timeout=300,
    )
