"""Kernels from several threads and in forked and spawned processes, on every threading layer that this machine has."""

import os
import textwrap

import numba
import pytest

from fastcnn.cpu import jit

LAYERS = ("omp", "tbb", "workqueue")
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

WORK = textwrap.dedent("""
    import faulthandler, multiprocessing, os, signal, sys, threading, traceback
    import numpy as np
    from numpy.testing import assert_allclose
    import fastcnn.reference.activation, fastcnn.reference.conv, fastcnn.reference.linear
    from fastcnn import reference
    from fastcnn.cpu import activation, conv, jit, linear

    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in ((4, 3, 20, 20), (8, 3, 3, 3)))

    def compute(activation, conv, linear):
        yield activation.relu_forward(x)
        yield conv.conv_forward(x, w, None, (1, 1), (1, 1))
        yield linear.affine_forward(x[0, 0], x[1, 0], None)

    EXPECTED = list(compute(reference.activation, reference.conv, reference.linear))

    def work(_=None):
        # Several kernels, each with several tasks.
        for result, expected in zip(compute(activation, conv, linear), EXPECTED):
            assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
        return True

    if hasattr(signal, "SIGALRM"):
        faulthandler.register(signal.SIGALRM, chain=True)

    def forked(function=work):
        # Run in a forked child; a child that fails or hangs fails the test.
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(40)
                function()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0

    def in_threads(function, count=8):
        failures = []
        def guarded():
            try:
                function()
            except BaseException:
                failures.append(traceback.format_exc())
        threads = [threading.Thread(target=guarded) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]
""")


@pytest.fixture(scope="module")
def missing_layers():
    """{layer: reason} for those that numba cannot start here."""
    return {}


@pytest.fixture(params=LAYERS)
def on_layer(request, run_python, missing_layers):
    """on_layer(code): run `code` after WORK in a fresh process on one threading layer, with 4 threads."""
    layer = request.param
    if layer not in missing_layers:
        stdout, _ = run_python(
            "import numba\ntry:\n    numba.get_num_threads()\nexcept ValueError as error:\n    print(error)",
            NUMBA_THREADING_LAYER=layer,
        )
        missing_layers[layer] = stdout.split("\n")[0]
    if missing_layers[layer]:
        pytest.skip(f"{layer}: {missing_layers[layer]}")

    def run(code, **environment):
        environment = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": 4, **environment}
        # Guarded, so that a spawned child may import it.
        main = "if __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(code), "    ")
        stdout, stderr = run_python(WORK + main, **environment)
        assert "Terminating" not in stderr

    return run


def test_many_threads_at_once(on_layer):
    """From the first call on, and with settings of their own for the number of threads."""
    on_layer("""
        def several():
            barrier.wait()
            for i in range(10):
                jit.set_num_threads(i % 4 + 1)
                work()  # some kernels have fewer tasks than that: the setting stays
                assert jit.get_num_threads() == i % 4 + 1

        barrier = threading.Barrier(8)
        in_threads(several)
        assert jit.get_num_threads() == 4
    """)


@FORKS
def test_fork_after_use(on_layer):
    on_layer("""
        work()
        forked()
        forked(lambda: (work(), forked()))  # a grandchild
        forked(lambda: in_threads(work))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work, range(4)) == [True] * 4
        work()
        forked(lambda: (jit.set_num_threads(2), work()))
        assert jit.get_num_threads() == 4
    """)


@FORKS
def test_fork_before_use(on_layer):
    """The child starts threads of its own, and so does the parent after it."""
    on_layer("""
        forked(lambda: (work(), in_threads(work), forked()))
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work, range(4)) == [True] * 4
        work()
        forked()
    """)


@FORKS
def test_fork_after_somebody_else_used_threads(on_layer):
    on_layer("""
        import numba

        @numba.njit(parallel=True)
        def somebody_elses(x):
            total = 0.0
            for i in numba.prange(x.size):
                total += x[i]
            return total

        assert somebody_elses(np.ones(1000)) == 1000
        forked()
        work()
        assert somebody_elses(np.ones(1000)) == 1000
    """)


@FORKS
def test_fork_while_other_threads_compute_and_compile(on_layer):
    """The locks that another thread holds at that moment do not stay closed in the child."""
    on_layer("""
        import warnings
        import numba
        import numpy.ma  # numba does at the first call; Python itself leaves the lock of an import closed in the child
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python itself, which does not like such forks

        def works():
            while not done.is_set():
                work()

        def compiles():
            while not done.is_set():
                numba.njit(lambda x: x + 1)(1)

        def forks():
            try:
                for _ in range(4):
                    forked(lambda: (activation.elu_forward(x), work()))
            finally:
                done.set()

        done, jobs = threading.Event(), iter([works, compiles, forks])
        in_threads(lambda: next(jobs)(), count=3)
    """)


def test_spawn(on_layer):
    on_layer("""
        work()
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(work, range(4)) == [True] * 4
        work()
    """)


def test_one_thread(on_layer):
    on_layer(
        """
        assert jit.get_num_threads() == 1
        work()
        in_threads(work)
        if hasattr(os, "fork"):
            forked()
        """,
        NUMBA_NUM_THREADS=1,
    )


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2", None, numba.config.NUMBA_NUM_THREADS + 1])
def test_set_num_threads_says_what_it_takes(n):
    before = jit.get_num_threads()
    with pytest.raises(ValueError, match=f"^n: .* from 1 to {numba.config.NUMBA_NUM_THREADS} .*NUMBA_NUM_THREADS"):
        jit.set_num_threads(n)
    assert jit.get_num_threads() == before


def test_set_num_threads():
    import fastcnn

    before = fastcnn.get_num_threads()
    try:
        fastcnn.set_num_threads(1)
        assert fastcnn.get_num_threads() == jit.get_num_threads() == 1
    finally:
        fastcnn.set_num_threads(before)


def test_a_task_that_fails_makes_its_kernel_fail(run_python):
    """On whichever thread, with what numba can report: here an index out of bounds."""
    run_python(
        """
        import numpy as np
        from fastcnn.cpu import jit

        @jit.parallel
        def fails(i, x, out):
            out[i] = x[i]

        fails._run._cache.disable()
        for serial in (False, True):
            if serial:
                jit._launch.free, jit._launch.serial = False, True
            out = np.zeros(1000)
            fails(5, np.ones(5), out)
            try:
                fails(1000, np.ones(999), out)
            except RuntimeError as error:
                assert "index out of bounds" in str(error)
            else:
                raise AssertionError("nothing was raised")
            assert out[:999].all()
        """,
        NUMBA_BOUNDSCHECK=1,
        NUMBA_NUM_THREADS=4,
    )
