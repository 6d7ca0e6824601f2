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
        from conv_support import check_passes
        from fastcnn.common.convolution import WINOGRAD
        from fastcnn.cpu import dots, microkernel, moves
        from fastcnn.cpu.conv import epilogue, lanes, points, winograd

        assert microkernel.multiply_tile is microkernel._multiply_tile_python
        assert moves.copy_run is moves._copy_run_python
        assert dots.dot_tile is dots._dot_tile_python and epilogue.emit_rows is epilogue._emit_rows_python
        assert lanes.make_rows_in(points.matrices((0, 1, -1), 2, 3)[2]).__name__ == "rows_in_python"

        for algo, (m, taps, stride) in WINOGRAD.items():  # a row of tiles that is cut into blocks
            steps, size = (stride, stride), stride * m
            check_passes(algo, (1, 2, taps, 50 * size + taps - 1), (3, 2, taps, taps), steps, pad=(0, 1))
            winograd.SHARED, before = 0, winograd.SHARED
            check_passes(algo, (2, 2, size, size), (3, 2, taps, taps), steps, pad=(taps // 2, taps // 2))
            winograd.SHARED = before
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
