"""Benchmarks on pytest-benchmark: the cases of `fastcnn.bench`, each contestant timed by itself in this process.

pytest benchmarks -n 0                                     a few cases of each family
pytest benchmarks/bench_conv.py -n 0 --all-cases           all cases of one
pytest benchmarks -n 0 --peers torch -k max_pool           beside PyTorch
pytest benchmarks -n 0 --benchmark-autosave, then --benchmark-compare      against an earlier state

For ratios to other libraries use `fastcnn bench`: it lets them take turns, in processes of their own.
"""

import os

import pytest

import fastcnn
from fastcnn.bench import cases, runners

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # libraries share this process: threads of one must not use up cores


def pytest_addoption(parser):
    parser.addoption("--all-cases", action="store_true", help="all cases, not only those of `fastcnn bench --quick`")
    parser.addoption("--peers", default="none", help="other libraries to time: torch,onnxruntime,jax; or auto")


def pytest_generate_tests(metafunc):
    """`bench_FAMILY(timed)` is made for every case of the family and everyone who can do its work."""
    family = metafunc.function.__name__.removeprefix("bench_")
    peers = runners.peers(metafunc.config.getoption("--peers"))
    chosen = cases.select([family], quick=not metafunc.config.getoption("--all-cases"))
    pairs = [(case, name) for case in chosen for name in runners.contestants(case.work, peers)]
    metafunc.parametrize("timed", pairs, indirect=True, ids=[f"{case.name}-{name}" for case, name in pairs])


@pytest.fixture
def timed(request, benchmark):
    """A function that times the work; the first call, which compiles, is not counted."""
    case, contestant = request.param
    file = runners.CONTESTANTS[contestant]
    benchmark.group = case.name

    def run():
        with fastcnn.backend("reference" if contestant == "reference" else "cpu"):
            if file != "reference":
                runners.load(file).start(fastcnn.get_num_threads())
            function = runners.works(file)[case.work, contestant](case.inputs(), case.params, contestant)
            function()
            benchmark(function)
        if benchmark.stats:  # absent with --benchmark-disable
            seconds = benchmark.stats.stats.median
            benchmark.extra_info |= {"GFLOP/s": case.flops / seconds / 1e9, "GB/s": case.nbytes / seconds / 1e9}

    return run
