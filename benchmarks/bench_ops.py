"""Every op of the catalogue at a large case, float32: the compiled kernel and its NumPy reference.

pytest benchmarks -n 0                       all of them, a group for each op
pytest benchmarks -n 0 -k conv_forward       one op
"""

import numpy as np
import pytest

from fastcnn.catalogue import FLOORS, OPS, as_tuple, bytes_moved


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("name", OPS)
def bench_op(benchmark, name, floor):
    """The first call, which compiles, is not counted; GFLOP/s and GB/s go into the results' extra_info."""
    op = OPS[name]
    large = [case for level, case in op.cases if level == "thorough"] or op.cases_of("normal")
    arguments = op.arguments(np.random.default_rng(0), large[-1], np.float32)
    function = op.function(floor)
    results = as_tuple(function(**arguments))
    benchmark.group = name
    benchmark(lambda: function(**arguments))
    if benchmark.stats:  # absent with --benchmark-disable
        seconds = benchmark.stats.stats.median
        benchmark.extra_info["GFLOP/s"] = op.flops(arguments) / seconds / 1e9
        benchmark.extra_info["GB/s"] = bytes_moved(arguments, results) / seconds / 1e9
