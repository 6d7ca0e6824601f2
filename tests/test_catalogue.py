"""Every op of the catalogue: validated, honest about NaN, the same on any number of threads, within its buffers."""

import collections
import sys

import numpy as np
import pytest

from fastcnn import reference
from fastcnn.catalogue import FLOORS, LEVELS, OPS, Floor, as_tuple, bytes_moved
from fastcnn.common.convolution import ALGORITHMS, CHOICES, TENSOR_CORES, applies
from fastcnn.cpu import activation, conv, linear
from fastcnn.validate import gradient_error, relative_error, validate

EACH_OP = pytest.mark.parametrize("name", OPS)

# Where a NaN cannot show in the results: (op, argument): (in how many of the quick cases, why).
BLIND = {
    ("max_pool_backward", "x"): (2, "x only says which pixel gets a gradient; a NaN is the maximum and gets it"),
    ("maxout_backward", "x"): (2, "x only says which piece gets the gradient"),
    ("batchnorm_backward", "beta"): (1, "without ReLU the gradient does not depend on beta"),
    ("batchnorm_inference_backward", "beta"): (1, "without ReLU the gradient does not depend on beta"),
    ("batchnorm_add_backward", "y"): (1, "without ReLU the gradient does not depend on the output"),
    ("batchnorm_add_inference_backward", "y"): (1, "without ReLU the gradient does not depend on the output"),
    ("col2im", "cols"): (4, "an element over the padding goes nowhere"),
    ("warp_images", "x"): (2, "a pixel that the map passes by"),
}


# ---- validation


@EACH_OP
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_agree_with_the_reference(name, dtype):
    verdicts = list(validate([name], dtypes=[dtype], level="normal"))
    assert [verdict.algo for verdict in verdicts] == list(OPS[name].by_algorithm("normal"))
    for verdict in verdicts:
        assert verdict.passed, "\n".join([str(verdict.algo), *verdict.failures])
        assert verdict.cases > 0 and np.isfinite(verdict.error)
        assert (verdict.gradient_error is not None) == (dtype == "float64" and bool(OPS[name].wrt))


def test_the_reference_agrees_with_itself_and_with_numerical_gradients():
    verdicts = list(validate(backend="reference", level="quick"))
    assert [(verdict.op, verdict.failures) for verdict in verdicts if not verdict.passed] == []
    assert len(verdicts) == 2 * sum(len(op.by_algorithm("quick")) for op in OPS.values())


def wrong_value(out):
    out.flat[-1] += np.float32(1e-3)
    return out


def broken_relu(change):
    def relu_forward(x, out=None):
        return change(np.maximum(x, 0), out)

    return relu_forward


@pytest.mark.parametrize(
    "change, failure",
    [
        (lambda y, out: wrong_value(y), "new output: error"),
        (lambda y, out: y if out is None else out, "given output: error inf"),  # forgets to write
        (lambda y, out: y.astype(np.float64), "a result is not float32"),
        (lambda y, out: y.ravel(), "error inf"),
        (lambda y, out: y * np.where(np.arange(y.size).reshape(y.shape) == 2, np.nan, 1), "error inf"),
    ],
)
def test_a_broken_kernel_is_reported(monkeypatch, change, failure):
    monkeypatch.setattr(activation, "relu_forward", broken_relu(change))
    (verdict,) = validate(["relu_forward"], dtypes=["float32"], level="quick")
    assert not verdict.passed
    assert any(failure in message for message in verdict.failures), verdict.failures


def test_a_wrong_gradient_is_reported_though_the_floors_agree(monkeypatch):
    right = reference.activation.tanh_backward
    wrong = lambda dout, y, out=None: right(dout, y * 1.001, out)  # noqa: E731
    monkeypatch.setattr(activation, "tanh_backward", wrong)
    monkeypatch.setattr(reference.activation, "tanh_backward", wrong)
    (verdict,) = validate(["tanh_backward"], dtypes=["float64"], level="quick")
    assert verdict.failures and all(message.startswith("numerical gradient") for message in verdict.failures)
    monkeypatch.setattr(activation, "tanh_backward", lambda dout, y, out=None: right(dout, y * np.nan, out))
    op = OPS["tanh_backward"]
    assert np.isnan(gradient_error(op, Floor("cpu"), op.cases_of("quick")[0], np.random.default_rng(0)))


def test_relative_error():
    assert relative_error([3.0, 4.1], [3.0, 4.0]) == pytest.approx(0.02)
    assert relative_error([1.0, 2.0], [[1.0, 2.0]]) == np.inf
    assert relative_error([np.nan, 1.0], [np.nan, 1.0]) == relative_error([np.inf], [np.inf]) == 0
    for wrong, right in ((np.nan, 1), (1, np.nan), (np.inf, -np.inf), (np.nan, np.inf)):
        assert relative_error([wrong, 1.0], [right, 1.0]) == np.inf
    assert relative_error([1e-3], [0.0]) == 1e-3  # nothing to be relative to
    assert relative_error(np.empty(0), np.empty(0)) == 0


@pytest.mark.parametrize(
    "arguments, what",
    [(dict(names=["relu"]), "op"), (dict(dtypes=["float16"]), "dtype"), (dict(level="fast"), "level")],
)
def test_unknown_names_are_refused(arguments, what):
    with pytest.raises(ValueError, match=f"^{what}: expected one of "):
        validate(**arguments)


# ---- entries


@EACH_OP
def test_entry(name):
    op = OPS[name]
    assert op.name == name
    for algo, limit in {None: op.limit, **op.limits}.items():
        most = 0.05 if algo in TENSOR_CORES else 1e-4
        assert limit.reason and 0 <= limit.float64 <= limit.float32 < most and limit.float64 < 1e-12
    assert op.limit.float32 < 1e-5
    assert [level for level, _ in op.cases] and {level for level, _ in op.cases} <= set(LEVELS)
    case, *_ = op.cases_of("quick")
    assert case in op.cases_of("normal") and case in op.cases_of("thorough")
    arguments = op.arguments(np.random.default_rng(0), case, np.float32)
    again = op.arguments(np.random.default_rng(0), case, np.float32)
    for key, value in arguments.items():
        assert np.array_equal(value, again[key])
        assert not isinstance(value, np.ndarray) or value.dtype == np.float32 or value.dtype.kind in "iu"
    results = op.function("cpu")(**arguments)
    assert op.flops(arguments) >= 0
    assert bytes_moved(arguments, results) > 0
    assert set(op.in_place) <= {None, *arguments} and len(op.buffers) <= len(as_tuple(results))
    if op.derivative_of:
        assert set(op.wrt) <= set(OPS[op.derivative_of].arguments(np.random.default_rng(0), case))


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if op.limits])
def test_each_algorithm_has_cases_and_a_limit(name):
    """Of every level; and a geometry is computed by all algorithms that take it."""
    op = OPS[name]
    assert set(op.limits) <= {*CHOICES, *TENSOR_CORES}
    for level in LEVELS:
        found = op.by_algorithm(level)
        assert set(found) == {"auto", *ALGORITHMS}
        on_gpu = op.by_algorithm(level, "cuda")
        assert set(on_gpu) == {"direct", *TENSOR_CORES} and on_gpu["direct"] == found["direct"]
        assert sum(len(cases) for _, cases in {**on_gpu, **found}.values()) == len(op.cases_of(level))
        assert all(limit is op.limits.get(algo, op.limit) for algo, (limit, _) in found.items())
    for algo, (_, cases) in op.by_algorithm("thorough").items():
        taken = [
            case for case in cases if applies(algo, *(case[k] for k in ("w", "stride", "pad", "dilation", "groups")))
        ]
        assert taken == cases
        networks = {case["w"] for level, case in op.cases if level == "thorough" and case["algo"] == algo}
        assert len(networks) > 10 or not algo.endswith("x3")


def test_the_limits_of_convolution():
    """As promised: the accurate algorithms at 1e-6, and 4 x 4, 6 x 6 and 8 x 8 tiles at so much more."""
    promised = {algo: 1e-6 for algo in ALGORITHMS} | {
        "winograd_f2x3": 2e-6, "winograd_f4x3": 5e-6, "winograd_f2x5": 5e-6,
        "winograd_f6x3": 2e-5, "winograd_f4x5": 2e-5, "winograd_f2x3s2": 2e-6, "winograd_f4x3s2": 5e-6,
        "auto": 2e-5,
    }  # fmt: skip
    for name in ("conv_forward", "conv_backward_input", "conv_backward_filter"):
        limits = {algo: limit for algo, (limit, _) in OPS[name].by_algorithm("quick").items()}
        assert {algo: limit.float32 for algo, limit in limits.items()} == promised
        assert all(limit.float64 <= 1e-8 * limit.float32 for limit in limits.values())
        on_gpu = {algo: limit.float32 for algo, (limit, _) in OPS[name].by_algorithm("quick", "cuda").items()}
        assert on_gpu == {"direct": 1e-6, "tf32": 2e-3, "bf16": 2e-2}


def test_every_derivative_is_checked_numerically():
    gradients = [name for name in OPS if "_backward" in name or name.endswith("_loss") or name == "col2im"]
    assert [name for name in gradients if not OPS[name].wrt] == []


# ---- NaN


def floating(arguments):
    return [key for key, value in arguments.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]


@EACH_OP
@pytest.mark.parametrize("floor", [floor for floor in FLOORS if floor != "cuda"])
def test_a_nan_comes_out(name, floor):
    """One NaN in each input in turn: some result is NaN. That of the CUDA floor is in test_cuda_values.py."""
    op = OPS[name]
    blind = collections.Counter()
    for case in op.cases_of("quick"):
        for key in floating(op.arguments(np.random.default_rng(0), case)):
            arguments = op.arguments(np.random.default_rng(0), case, np.float32)
            array = arguments[key]
            array.flat[2 * array.size // 3] = np.nan
            if not any(np.isnan(result).any() for result in as_tuple(op.function(floor)(**arguments))):
                blind[name, key] += 1
    assert blind == {(op, key): count for (op, key), (count, _) in BLIND.items() if op == name}


# ---- threads


def test_results_do_not_depend_on_threads(run_python):
    """Bit for bit, on 1 to 4 threads and without any, as in a forked child."""
    run_python(
        """
        import numpy as np
        import fastcnn
        from fastcnn.catalogue import OPS, as_tuple
        from fastcnn.cpu import jit

        def bits(op, case):
            arguments = op.arguments(np.random.default_rng(1), case, np.float32)
            return [np.asarray(result).tobytes() for result in as_tuple(op.function("cpu")(**arguments))]

        assert fastcnn.get_num_threads() == 4
        for op in OPS.values():
            for case in op.cases_of("normal"):
                results = []
                for threads in (1, 2, 3, 4):
                    fastcnn.set_num_threads(threads)
                    assert fastcnn.get_num_threads() == threads
                    results.append(bits(op, case))
                free, jit._launch.free, jit._launch.serial = jit._launch.free, False, True
                results.append(bits(op, case))
                jit._launch.free, jit._launch.serial = free, False
                assert all(result == results[0] for result in results), (op.name, case)
        """,
        NUMBA_NUM_THREADS=4,
        timeout=500,  # most of it for compiling, where this test is the first
    )


# ---- memory


@pytest.mark.skipif(sys.platform == "win32", reason="guard pages are made with mprotect")
def test_kernels_stay_within_their_buffers(run_python):
    """Every input and output flush against a guard page."""
    run_python(
        """
        import numpy as np
        from guarded import SIDES, guarded
        from fastcnn.catalogue import OPS, as_tuple

        for op in OPS.values():
            for case in op.cases_of("normal"):
                for side in SIDES:
                    arguments = op.arguments(np.random.default_rng(1), case, np.float32)
                    expected = as_tuple(op.function("cpu")(**arguments))
                    guards = {key: guarded(value, side) for key, value in arguments.items()}
                    if op.buffers:
                        guards["out"] = op.out([guarded(np.full_like(expected[i], np.nan), side) for i in op.buffers])
                    for got, value in zip(as_tuple(op.function("cpu")(**guards)), expected):
                        assert np.array_equal(got, value), (op.name, case)
        """,
        timeout=500,
    )


def test_weights_changed_in_place_are_seen():
    """Nothing about a weight is remembered: neither by its id nor by its address."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 5, 5)), rng.standard_normal((4, 3, 3, 3))
    dout, matrix = np.ones((2, 4, 5, 5)), rng.standard_normal((5, 7))
    for function, weight in (
        (lambda: conv.conv_forward(x, w, None, (1, 1), (1, 1)), w),
        (lambda: conv.conv_backward_input(dout, w, x.shape, (1, 1), (1, 1)), w),
        (lambda: linear.affine_forward(x[0, 0], matrix, None), matrix),
    ):
        before = function()
        weight *= 2
        np.testing.assert_array_equal(function(), 2 * before)
