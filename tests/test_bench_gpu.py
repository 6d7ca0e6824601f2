"""Commands on a GPU, as far as they can be tested without one: with none, on a made-up one, on the simulator."""

import dataclasses
import json
import math
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from conftest import TESTS
from test_bench import SMALL, a_row, run
from test_cuda_values import simulate

import fastcnn
from fastcnn.bench import cases, gpu, report, runners, table, targets, worker
from fastcnn.bench.results import Results
from fastcnn.cli import main
from fastcnn.common.convolution import CHOICES

NOT_SIMULATED = ("training_step", "inference", "augment_batch")  # whole nets take minutes; the last is the host's
SIMULATED = [name for name in SMALL if name.split()[0] not in NOT_SIMULATED]


# ---- on a machine without a GPU


@pytest.fixture
def no_gpu(monkeypatch):
    """No CUDA floor can be used; the fixture is the reason given."""
    from fastcnn.cuda import arrays, errors, jit

    reason = "no CUDA device was found (the driver\nreports none)"

    def fail():
        raise errors.CudaUnavailableError(reason)

    for module in (arrays, jit):
        monkeypatch.setattr(module, "require_device", fail)
    return " ".join(reason.split())


@pytest.mark.parametrize("command, verb", [("bench", "measure"), ("validate", "validate")])
def test_without_a_gpu_a_line_says_so(command, verb, no_gpu, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([command, "--backend", "cuda"]) == 0
    assert capsys.readouterr() == (f"nothing to {verb}: {no_gpu}\n", "")
    assert not list(tmp_path.iterdir())


def test_training_needs_a_gpu(no_gpu, capsys, tmp_path):
    arguments = ["train", "--backend", "cuda", "--no-progress", "--out", str(tmp_path / "run")]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("fastcnn train: no CUDA device was found")
    assert not (tmp_path / "run").exists()


def test_info_says_why_there_is_none(no_gpu, capsys, monkeypatch):
    from fastcnn import info

    monkeypatch.setattr(info, "_ask_driver", lambda fields: None)
    assert info.collect()["gpu"] == f"none: {no_gpu}"
    monkeypatch.setattr(info, "_ask_driver", lambda fields: "NVIDIA H100, 9.0, 80 GiB, 580.1")
    assert info.collect()["gpu"] == f"NVIDIA H100, 9.0, 80 GiB, 580.1, not in use: {no_gpu}"


def test_info_describes_a_gpu(monkeypatch):
    from fastcnn import info
    from fastcnn.cuda import gpu as own

    found = own.Gpu("NVIDIA H100", "9.0", 1, 80 << 30, 50 << 20)
    monkeypatch.setattr(info, "unavailable", lambda: None)
    monkeypatch.setattr(own, "describe", lambda: found)
    monkeypatch.setattr(info, "_ask_driver", {"driver_version": "580.1"}.get)
    assert info.collect()["gpu"] == "NVIDIA H100, compute capability 9.0, 80 GiB, driver 580.1"


def test_the_script_for_a_gpu(tmp_path):
    """Without one it says so; every option that it gives to a command exists."""
    script = TESTS.parent / "benchmarks" / "gpu.sh"
    if fastcnn.layers.device.unavailable():
        done = subprocess.run(["bash", script, tmp_path / "results"], text=True, capture_output=True, timeout=120,
                              env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable})  # fmt: skip
        assert done.returncode == 0 and done.stdout.startswith("nothing to do: "), done.stderr
        assert not list(tmp_path.iterdir())
    text = script.read_text()
    assert script.stat().st_mode & 0o111 and "set -euo pipefail" in text
    limits = re.search(r"VALIDATION=(\d+) MEASURING=(\d+) SANITIZING=(\d+)", text).groups()
    assert sum(map(int, limits)) < 8 * 60


# ---- the clock


class FakeDevice(gpu.Device):
    """A GPU that computes in zero time of the host, and copies 1 ms; both have clocks that move when told to."""

    def __init__(self, monkeypatch):
        self.host = self.queued = 0.0
        self.copies = 0
        monkeypatch.setattr(gpu.time, "perf_counter", lambda: self.host)

    def work(self, launching, computing):
        self.host += launching
        self.queued = max(self.queued, self.host) + computing

    def mark(self):
        return max(self.queued, self.host)

    def seconds_between(self, start, end):
        self.host = max(self.host, end)
        return end - start

    def copy(self):
        self.copies += 1
        self.work(1e-6, 1e-3)


def test_launching_does_not_count(monkeypatch):
    """A kernel that takes less than its launch is measured all the same; and both times are told."""
    device = FakeDevice(monkeypatch)
    rotation = gpu.Rotation([lambda: device.work(20e-6, 5e-6)] * 3, device)
    computing, launching = rotation.measure(0.02)
    assert (computing, launching) == pytest.approx((5e-6, 20e-6), rel=0.02) and device.copies


def test_calls_as_they_come(monkeypatch):
    device = FakeDevice(monkeypatch)
    rotation = gpu.Rotation([lambda: device.work(20e-6, 5e-6)], device, ahead=False)
    assert rotation.measure(0.02) == pytest.approx((20e-6, 20e-6), rel=0.3) and not device.copies


def test_sets_take_turns_and_results_live_until_the_next(monkeypatch):
    device, called = FakeDevice(monkeypatch), []

    def function(i):
        def call():
            called.append(i)
            device.work(1e-4, 1e-4)
            return len(called)

        return call

    rotation = gpu.Rotation([function(i) for i in range(3)], device)
    rotation.measure(0.01)
    assert called == [i % 3 for i in range(len(called))] and len(called) > 9
    assert sorted(rotation._results) == [len(called) - 2, len(called) - 1, len(called)]


def test_sets_exceed_the_cache():
    arrays = {"x": np.zeros(250, np.float32), "n": 3}
    assert gpu.sets(arrays, [(50, 5)], 10_000) == 16  # 2000 bytes each: 32,000 are more than three times the cache
    assert gpu.sets(arrays, [(10**6,)], 10_000) == 1 and gpu.sets(arrays, [], 10**9) == gpu.SETS


# ---- cases and runners


def test_cases_of_a_gpu():
    every = cases.select(backend="cuda")
    assert {case.family for case in every} == set(cases.ON_GPU)
    assert {case.family for case in cases.select(quick=True, backend="cuda")} == set(cases.ON_GPU)
    assert len({case.name for case in every}) == len(every)
    for case in every:
        assert "fastcnn" in runners.contestants(case.work, [], "cuda"), case.name
    with pytest.raises(ValueError, match="family: expected one of activation.*got 'microkernel'"):
        cases.select(["microkernel"], backend="cuda")


@pytest.mark.parametrize("family", [name for name, options in cases.ON_GPU.items() if "larger" in options])
def test_larger_batches_have_their_operations_and_bytes(family):
    module, options = cases.family(family), cases.ON_GPU[family]
    own, larger = module.cases(), module.cases(larger=options["larger"])
    assert [case.name.split(" n")[0] for case in own] == [case.name.split(" n")[0] for case in larger]
    for small, large in zip(own, larger):
        factor = 1 if "one image" in small.tags else options["larger"]
        assert large.flops == factor * small.flops
        weights = 0 if family != "conv" else large.nbytes - factor * small.nbytes
        assert large.nbytes == factor * small.nbytes + weights and weights <= 0
        assert {k: v for k, v in vars(small).items() if k in ("work", "tags", "quick")} == {
            k: v for k, v in vars(large).items() if k in ("work", "tags", "quick")
        }


def test_two_passes_of_batch_norm():
    one, two = (cases.family("norm").cases(passes=passes) for passes in (1, 2))
    grown = {a.work: b.nbytes / a.nbytes for a, b in zip(one, two)}
    assert grown == {"batchnorm_relu_forward": 1.5, "batchnorm_relu_training": 1.6, "groupnorm_training": 1}


def test_every_target_of_a_gpu_has_cases():
    rows = [{**dataclasses.asdict(case), "results": {}} for case in cases.select(backend="cuda")]
    found = {target.text for target in targets.TARGETS["cuda"] if any(target.fits(row) for row in rows)}
    possible = {target.text for target in targets.TARGETS["cuda"] if "TF32" not in target.text or "tf32" in CHOICES}
    assert found == possible


def test_who_competes():
    assert runners.contestants("conv_forward", ["torch", "cupy"], "cuda") == ["fastcnn", "torch", "torch channels_last"]
    assert runners.contestants("affine_training", ["cupy"], "cuda") == ["fastcnn", "cupy"]
    assert "cupy" not in runners.contestants("affine_training", ["cupy"])
    with pytest.raises(ValueError, match="peers: expected auto, none, or some of torch,cupy; got 'jax'"):
        runners.peers("jax", "cuda")
    with pytest.raises(ValueError, match="or some of torch,onnxruntime,jax; got 'cupy'"):
        runners.peers("cupy")


@pytest.fixture
def numpy_as_cupy(monkeypatch):
    """NumPy has what the runner takes of CuPy, but for the normal distribution."""
    special = types.ModuleType("cupyx.scipy.special")
    special.ndtr = np.vectorize(lambda x: 0.5 * (1 + math.erf(x / 2**0.5)), otypes=[np.float32])
    modules = {"cupy": np, "cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy")}
    for name, module in {**modules, "cupyx.scipy.special": special}.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("name", [n for n in SIMULATED if (n.split()[0], "cupy") in runners.works("cupy")])
def test_cupy_does_the_same_work(name, numpy_as_cupy):
    work, params = name.split()[0], SMALL[name]
    case = cases.Case(name, next(c.family for c in cases.select() if c.work == work), work, params)
    inputs = case.inputs()
    with fastcnn.backend("cpu"):
        ours = worker.looks(run(case, "fastcnn", inputs))
    assert worker.agree(ours, worker.looks(run(case, "cupy", inputs)))


@pytest.mark.parametrize("name", ["leaky_relu", "sigmoid"])
def test_cupy_knows_every_activation(name, numpy_as_cupy):
    case = cases.Case(name, "activation", "activation_training", dict(name=name, shape=(3, 50)))
    inputs = case.inputs()
    assert worker.agree(worker.looks(run(case, "fastcnn", inputs)), worker.looks(run(case, "cupy", inputs)))


# ---- on the simulator


def test_ceilings_on_the_simulator(run_python):
    """Kernels compute what they count; sizes that are no multiples of a vector or a block."""
    simulate(
        run_python,
        """
        import numpy as np
        from fastcnn.cuda import ceilings
        from fastcnn.cuda.arrays import filled, to_device, to_host

        rng = np.random.default_rng()
        for size in (1, 5):
            sums = filled(size, np.nan, np.float32)
            factor, summand = rng.random(2)
            count = ceilings.multiply_adds(3, factor, summand, sums)
            assert count == 2 * 3 * ceilings.STEPS * ceilings.CHAINS * size
            chains = np.arange(ceilings.CHAINS, dtype=float)
            for _ in range(3 * ceilings.STEPS):
                chains = factor * chains + summand
            np.testing.assert_allclose(to_host(sums), np.full(size, chains.sum()), rtol=1e-5)
        for dtype in (np.float32, np.float64):
            for size in (3, 1031):
                x = rng.standard_normal(size).astype(dtype)
                source = to_device(x)
                for copy in (ceilings.copy, ceilings.copy_by_driver):
                    target = filled(size, np.nan, dtype)
                    assert copy(source, target) == 2 * x.nbytes and np.array_equal(to_host(target), x)
    """,
    )


def test_our_runner_computes_on_the_device(run_python):
    """The works of `ours`, with arrays of the CUDA floor, give what they give on the CPU."""
    simulate(
        run_python,
        f"""
        import fastcnn
        from fastcnn.bench import cases, runners, worker
        from fastcnn.layers.device import is_device
        from test_bench import SMALL

        ours, families = runners.load("ours"), {{case.work: case.family for case in cases.select()}}
        gpu = None
        for name in {SIMULATED!r}:
            work, params = name.split()[0], SMALL[name]
            case = cases.Case(name, families[work], work, params)
            inputs = case.inputs()
            with fastcnn.backend("cpu"):
                host = worker.looks(ours.WORKS[work, "fastcnn"](inputs, params, "fastcnn")())
            gpu = gpu or ours.Gpu()
            results = ours.WORKS[work, "fastcnn"](gpu.put(inputs), params, "fastcnn")()
            assert is_device(results[-1] if isinstance(results, tuple) else results), name
            assert worker.agree(host, worker.looks(results)), name
    """,
    )


def test_bench_on_the_simulator(run_python, tmp_path):
    """The whole command; what it measures is said to be a simulation, and not judged."""
    pytest.importorskip("matplotlib")
    out, _ = simulate(
        run_python,
        f"""
        from fastcnn.bench import cases
        from fastcnn.cli import main

        params = dict(name="relu", shape=(3, 50))
        tiny = cases.Case("relu", "activation", "activation_training", params, nbytes=3000)
        cases.select = lambda families, patterns, quick, backend: [tiny]
        options = "--peers none --passive --rounds 2 --seconds 0.01 --no-progress --output".split()
        assert main(["bench", "--backend", "cuda", *options, {str(tmp_path)!r}]) == 0
    """,
    )
    assert "1 cases, numba's CUDA simulator, peers: none" in out and " launch " in out
    content = json.loads((tmp_path / "results.json").read_text())
    (run_,), (row,) = content["runs"], content["cases"].values()
    assert run_["backend"] == "cuda" and run_["ceilings"].keys() == {"gflops", "gbytes"}
    ours = row["results"]["fastcnn"]
    assert ours["rounds"] == 2 and ours["seconds"] > 0 and ours["launching"] > 0
    page = (tmp_path / "README.md").read_text()
    assert "A simulation on a CPU" in page and "## Targets" not in page


# ---- the page

RUN = {
    "date": "2024-01-01T00:00:00+00:00", "backend": "cuda", "threads": 2, "waiting": "passive", "settings": {},
    "machine": {"gpu": "NVIDIA H100, compute capability 9.0, 80 GiB, driver 580.1", "cpu": "a CPU"},
    "versions": {"fastcnn": "0.1.0", "cuDNN": 91000}, "ceilings": {"gflops": 50_000.0, "gbytes": 3000.0},
    "load": {"before": {"average": 0.1, "busy": 0.02}, "after": {"average": 0.2, "busy": None}},
}  # fmt: skip


def gpu_row(name, seconds, torch, **changes):
    row = a_row(name, seconds, torch, **changes)
    row["results"]["fastcnn"]["launching"] = 25e-6
    return row


def test_page(tmp_path):
    results = Results(tmp_path)
    results.begin(dict(RUN, unavailable={"cupy": "no such library"}))
    norm = dict(family="norm", work="batchnorm_relu_training", flops=0, nbytes=2.7e9, tags=["vgg11.bn1"])
    results.add(gpu_row("batchnorm_relu_training vgg11.bn1", 1e-3, 1.6e-3, **norm))
    results.add(gpu_row("conv_forward resnet20.conv2 n512", 1e-3, 0.5e-3, flops=25e9))
    tf32 = gpu_row("conv_forward resnet20.conv2 n512 tf32", 1e-3, 0.55e-3, flops=25e9, params={"algo": "tf32"})
    results.add(tf32)
    assert table.line(tf32, RUN).split()[-3:] == ["25", "us", "0.55x"]
    report.write(results)
    page = (tmp_path / "README.md").read_text()
    assert "NVIDIA H100, compute capability 9.0, 80 GiB, driver 580.1" in page and "50000 GFLOP/s | 3000.0 GB/s" in page
    assert "cuDNN 91000" in page and "cupy could not be used: no such library" in page
    assert "| conv_forward resnet20.conv2 n512 | 1 ms | 25000.0 | 1000.0 | 50% | 25 us | 0.50x (0.45-0.55) |" in page
    judged = {line.split(" | ")[0][2:]: line for line in page.splitlines() if line.endswith(("met |", "**missed** |"))}
    assert "90%" in judged["norms, share of copy bandwidth"] and "| met |" in judged["norms, share of copy bandwidth"]
    assert "1.60x" in judged["batchnorm + ReLU, forward and backward"]
    assert "**missed**" in judged["convolution in float32"] and "| met |" in judged["convolution in TF32"]
    assert "two events" in page and "onnxruntime" not in page and "A simulation" not in page


def test_results_of_a_cpu_and_a_gpu_do_not_mix(tmp_path):
    results = Results(tmp_path)
    results.begin(dict(RUN))
    with pytest.raises(ValueError, match="its results are of the backend 'cuda'; choose another folder"):
        results.begin(dict(RUN, backend="cpu"))


def test_folders():
    from fastcnn.bench.command import folder

    assert folder(RUN["machine"]) == "benchmarks/results/cuda-nvidia-h100" and folder({"cpu": "x"}) == "runs/bench"
