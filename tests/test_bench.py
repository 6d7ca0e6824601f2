"""The benchmarks' measuring code: statistics, cases, workers, results, targets, page and plots."""

import itertools
import json
import math
import time

import numpy as np
import pytest

import fastcnn
from fastcnn import layers, nn, optim
from fastcnn.bench import cases, ceilings, measure, nets, report, runners, table, targets, timer, worker
from fastcnn.bench.families.data import PIPELINES
from fastcnn.bench.results import Results
from fastcnn.catalogue import OPS
from fastcnn.cpu import ceilings as kernels

# ---- statistics


def test_spread_is_median_and_quartiles():
    assert timer.spread([5]) == (5, 5, 5, 1)
    assert timer.spread([1, 2, 3, 4, 5]) == (3, 2, 4, 5)
    numbers = np.random.default_rng().random(100)
    assert timer.spread(numbers)[:3] == pytest.approx(np.percentile(numbers, [50, 25, 75]))
    with pytest.raises(ValueError, match="at least one"):
        timer.spread([])


def test_alternation_and_ratios():
    order, clock = [], itertools.count(1)

    def contestant(name, factor):
        def once():
            order.append(name)
            return factor * next(clock)

        return once

    times = timer.alternate({"a": contestant("a", 1), "b": contestant("b", 10)}, 3)
    assert order == ["a", "b"] * 3 and times == {"a": [1, 3, 5], "b": [20, 40, 60]}
    assert timer.ratios(times["a"], times["b"]) == timer.spread([20, 40 / 3, 12])
    with pytest.raises(ValueError):
        timer.ratios([1, 2], [1])


def test_a_drift_of_the_clock_does_not_change_ratios():
    speed = itertools.count(1)
    times = timer.alternate({"a": lambda: next(speed) / 1, "b": lambda: 3 * (next(speed) - 1)}, 20)
    assert timer.ratios(times["a"], times["b"]).median == pytest.approx(3, rel=1e-6)


class Clock:
    """A clock that only moves when told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timer.time, "perf_counter", lambda: self.now)

    def work(self, seconds):
        self.now += seconds


def test_call_time_is_the_median_of_the_calls(monkeypatch):
    clock, durations = Clock(monkeypatch), iter([9.0, 1.0, 3.0, 2.0, 100.0])
    assert timer.call_time(lambda: clock.work(next(durations)), 6) == 2.0  # 9 not counted, 100 not reached
    assert next(durations) == 100.0


@pytest.mark.parametrize("last, calls", [(None, 2), (timer.WARM / 2, 2), (timer.WARM, 1)])
def test_short_calls_are_made_once_untimed(monkeypatch, last, calls):
    clock, made = Clock(monkeypatch), []
    assert timer.call_time(lambda: (made.append(1), clock.work(1)), 0.5, last) == 1
    assert len(made) == calls


def test_compare_times_callables():
    times = timer.compare({"short": lambda: None, "long": lambda: time.sleep(0.01)}, 3, 0.001)
    assert timer.ratios(times["short"], times["long"]).low > 10 and len(times["long"]) == 3


# ---- ceilings


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multiply_adds_are_what_was_counted(dtype):
    lanes = kernels.VECTOR_BYTES // np.dtype(dtype).itemsize
    assert kernels.multiply_adds(3, 10, dtype) == 3 * 10 * kernels.CHAINS * lanes * 2
    sums = np.random.default_rng().random(2 * kernels.CHAINS * lanes).astype(dtype)
    factors = np.repeat(np.array([0.5, 1.0], dtype), lanes)
    expected, before = sums.astype(float), sums.copy()
    for _ in range(7):
        expected = expected * 0.5 + 1
    kernels._multiply_adds(2, 7, factors, sums, kernels.CHAINS * lanes)
    np.testing.assert_allclose(sums, expected, rtol=4 * np.finfo(dtype).eps)
    for task in range(2):
        kernels._multiply_add_chains_python(7, factors, before, task * kernels.CHAINS * lanes)
    np.testing.assert_allclose(before, sums, rtol=4 * np.finfo(dtype).eps)


def test_multiply_adds_stay_within_their_buffer(run_python):
    run_python("""
        import numpy as np
        from guarded import SIDES, guarded
        from fastcnn.cpu import ceilings

        lanes = ceilings.VECTOR_BYTES // 4
        for side in SIDES:
            sums = guarded(np.ones(2 * ceilings.CHAINS * lanes, np.float32), side)
            factors = guarded(np.ones(2 * lanes, np.float32), side)
            ceilings._multiply_adds(2, 3, factors, sums, ceilings.CHAINS * lanes)
            assert (sums == 4).all()
    """)


@pytest.mark.parametrize("size, tasks", [(1000, 1), (1001, 4), (3, 7)])
def test_copy_copies(size, tasks):
    source, target = np.random.default_rng().random(size), np.full(size, np.nan)
    assert kernels.copy(source, target, tasks) == 16 * size
    assert np.array_equal(source, target)


def test_products_of_panels_are_what_was_counted():
    from fastcnn.cpu.microkernel import ROWS, columns

    assert kernels.multiply_panels_in_cache(2, 3, 5, np.float32) == 2 * 2 * 3 * 5 * ROWS * columns(np.float32)


def test_ceilings():
    found = ceilings.measure(0.02, 1 << 20)
    assert found.gflops > 0 and found.gbytes > 0 and found.threads == fastcnn.get_num_threads()
    limits = ceilings.Ceilings(gflops=100, gbytes=10, threads=1)
    assert limits.binding(2e9, 1e9) == (0.1, "copy") and limits.binding(2e11, 1e9) == (2, "FMA")


# ---- cases


@pytest.fixture(scope="module")
def every():
    return cases.select()


def test_every_family_has_cases_and_quick_ones(every):
    assert {case.family for case in every} == set(cases.FAMILIES)
    assert {case.family for case in cases.select(quick=True)} == set(cases.FAMILIES) - {"memory"}  # takes long
    names = [case.name for case in every]
    assert len(names) == len(set(names))
    assert json.loads(json.dumps([case.params for case in every]))


def test_every_case_can_be_run_by_us(every):
    for case in every:
        if case.kind != "process":
            assert "fastcnn" in runners.contestants(case.work, []), case.name
            assert case.flops or case.nbytes or case.family == "ops"


def test_inputs_are_float32_and_the_same_in_every_process(every):
    for case in cases.select(quick=True):
        if case.kind == "time" and case.family != "ops":
            first, second = case.inputs(), case.inputs()
            assert first.keys() == second.keys()
            for name, array in first.items():
                assert np.array_equal(array, second[name])
                kinds = {np.int64} if name == "y" else {np.float32, np.uint8} if case.family == "data" else {np.float32}
                assert array.dtype.type in kinds


def test_operations_of_a_convolution():
    (case,) = cases.select(["conv"], ["conv_forward resnet18.conv2 n8"])
    assert case.flops == 2 * 8 * 64 * 56 * 56 * 64 * 9
    assert case.nbytes == 4 * (2 * 8 * 64 * 56 * 56 + 64 * 64 * 9)
    assert {"3x3s1", "resnet18", "resnet18.conv2", "resnet50.conv2"} & set(case.tags) >= {"3x3s1", "resnet18"}


def test_multiply_adds_of_nets():
    found = {name: nets.cost(name) / 1e6 for name in nets.NETS}
    assert found == pytest.approx({"resnet20": 41.2, "vgg11": 152.8, "resnet18": 555.4}, rel=0.01)


def test_select():
    assert [case.name for case in cases.select(["optim"], ["*Adam"])] == ["optimizer_step Adam"]
    assert {case.work for case in cases.select(["loss", "pool"], ["cross_entropy", "max_pool_*"])} == {
        "cross_entropy", "max_pool_forward", "max_pool_training",
    }  # fmt: skip
    with pytest.raises(ValueError, match="family: expected one of .*conv.*got 'convolution'"):
        cases.select(["convolution"])
    with pytest.raises(ValueError, match="no case fits nothing; there are .*conv_forward"):
        cases.select(None, ["nothing"])


def test_peers():
    assert runners.peers("none") == []
    assert set(runners.peers("auto")) <= set(runners.PEERS)
    with pytest.raises(ValueError, match="peers: expected auto, none, or some of torch.*got 'tensorflow'"):
        runners.peers("tensorflow")


def test_a_missing_peer_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(runners.PEERS, "torch", ("no_such_library",))
    assert "torch" not in runners.peers("auto")
    with pytest.raises(ImportError, match=r"no_such_library is not installed; .*fastcnn\[peers\]"):
        runners.peers("torch")


@pytest.mark.parametrize("file", [*runners.PEERS, "ours", "reference"])
def test_runners_know_only_works_that_exist(file, every):
    assert {work for work, _ in runners.works(file)} <= {case.work for case in every}
    assert {name for _, name in runners.works(file)} <= set(runners.CONTESTANTS)


SMALL = {
    "conv_training": dict(x=(2, 3, 8, 8), w=(4, 3, 3, 3), stride=(1, 1), pad=(1, 1), out=(2, 4, 8, 8)),
    "max_pool_forward": dict(x=(2, 3, 8, 8), size=(2, 2), stride=(2, 2), pad=(0, 0), out=(2, 3, 4, 4)),
    "max_pool_training": dict(x=(2, 3, 9, 9), size=(3, 3), stride=(2, 2), pad=(1, 1), out=(2, 3, 5, 5)),
    "avg_pool_training": dict(x=(2, 3, 8, 8), size=(2, 2), stride=(2, 2), pad=(0, 0), out=(2, 3, 4, 4)),
    "global_avg_pool_training": dict(x=(2, 3, 8, 8), out=(2, 3)),
    "batchnorm_relu_forward": dict(x=(4, 6, 5, 5), eps=1e-5),
    "batchnorm_relu_training": dict(x=(4, 6, 5, 5), eps=1e-5),
    "groupnorm_training": dict(x=(4, 6, 5, 5), eps=1e-5, groups=3),
    **{f"activation_training {name}": dict(name=name, shape=(3, 50)) for name in ("relu", "elu", "gelu", "tanh")},
    "add_relu_training": dict(name="residual", shape=(3, 50)),
    "dropout_training": dict(shape=(3, 50), drop=0.5),
    "cross_entropy": dict(n=6, classes=10),
    "affine_training": dict(n=6, d=7, m=5),
    "training_step": dict(net="resnet20", batch=2, lr=1e-4, momentum=0.9),
    "inference": dict(net="resnet20", batch=2),
    **{f"augment_batch {name}": dict(pipeline=name, x=(3, 3, 31, 33), seed=1) for name in PIPELINES},
}  # fmt: skip
COMPETITORS = ("reference", "torch", "torch channels_last", "onnxruntime", "jax")  # in float32, not slow to compile


def run(case, contestant, inputs):
    with fastcnn.backend("reference" if contestant == "reference" else "cpu"):
        return runners.works(runners.CONTESTANTS[contestant])[case.work, contestant](inputs, case.params, contestant)()


@pytest.mark.parametrize("name", SMALL)
def test_everyone_does_the_same_work(name, every):
    """Ours, the reference, and the peers that are installed (but for compiled nets, which take long)."""
    work, params = name.split()[0], SMALL[name]
    family = next(case.family for case in every if case.work == work)
    case = cases.Case(name, family, work, params, comparable=work != "dropout_training")
    installed = {"reference", *runners.peers("auto")}
    for file in installed - {"reference"}:
        runners.load(file).start(1)
    inputs = case.inputs()
    ours = worker.looks(run(case, "fastcnn", inputs))
    for contestant in COMPETITORS:
        file = runners.CONTESTANTS[contestant]
        if file in installed and (work, contestant) in runners.works(file) and case.comparable:
            assert worker.agree(ours, worker.looks(run(case, contestant, inputs))), contestant


def test_steps_beside_the_input_pipeline():
    """All contestants do their work as often as the case says, on the batches that the seed gives."""
    params = dict(pipeline="flip, crop, cutout and mixup", x=(12, 3, 32, 32), batch=4, steps=3, prefetch=2, seed=1,
                  net="resnet20", lr=1e-4, momentum=0.9)  # fmt: skip
    works, found = runners.works("ours"), {}
    for work, contestant in (("input_pipeline", "fastcnn"), ("training_with_input", "fastcnn"),
                             ("training_with_input", "step alone"), ("input_pipeline", "step alone")):  # fmt: skip
        case = cases.Case(work, "data", work, params)
        found[work, contestant] = works[work, contestant](case.inputs(), params, contestant)
    x, y = found["input_pipeline", "fastcnn"]()  # the last batch of the first epoch
    again = works["input_pipeline", "fastcnn"](case.inputs(), {**params, "prefetch": 0, "steps": 1}, "fastcnn")
    epoch = [again() for _ in range(3)]
    assert x.shape == (4, 3, 32, 32) and y.shape == (4, 10) and np.array_equal(x, epoch[2][0])
    net = nets.NETS["resnet20"]()
    optimizer, losses = optim.SGD(nn.FlatParameters(net), params["lr"], momentum=0.9), []
    for x, y in epoch:
        losses.append(layers.softmax_loss(net.forward(x), y))
        net.backward(losses[-1][1], need_dx=False)
        optimizer.step()
    assert found["training_with_input", "fastcnn"]() == losses[2][0]
    alone = found["training_with_input", "step alone"]
    assert alone() == found["input_pipeline", "step alone"]() and np.isfinite(alone())


@pytest.mark.parametrize("rule", ["SGD", "momentum", "Adagrad", "RMSProp", "Adam", "AdamW"])
def test_every_optimizer_takes_the_same_step(rule, every):
    case = next(case for case in every if case.params.get("rule") == rule)
    rng = np.random.default_rng()
    inputs = {name: rng.standard_normal(1000, dtype=np.float32) for name in ("w", "dw")}
    ours = worker.looks(run(case, "fastcnn", inputs))
    assert worker.agree(ours, worker.looks(run(case, "reference", inputs)), 1e-6)
    if "torch" in runners.peers("auto"):
        assert worker.agree(ours, worker.looks(run(case, "torch", inputs)), 1e-5)


# ---- workers


def test_looks_tell_results_apart():
    rng = np.random.default_rng()
    a, b = rng.standard_normal((300, 700)), rng.standard_normal(7)
    same = worker.looks((np.asfortranarray(a.astype(np.float32)), b.astype(np.float32)))
    assert worker.agree(worker.looks((a, b)), same)
    assert worker.agree(worker.looks([1.5]), worker.looks(1.5))
    for other in ((a * 1.01, b), (-a, b), (a.T, b), (a,), (a, b[::-1]), (a, b * np.nan)):
        assert not worker.agree(worker.looks((a, b)), worker.looks(other))


@pytest.fixture(scope="module")
def pool():
    with worker.Pool(1, spin=False) as pool:
        yield pool


def test_a_worker_prepares_and_measures(pool):
    (case,) = cases.select(["loss"], ["cross_entropy cifar"])
    first = pool.ask("ours", "prepare", case, "fastcnn")
    assert first["first"] > 0 and worker.agree(first["looks"], worker.looks(run(case, "fastcnn", case.inputs())))
    assert 0 < pool.ask("ours", "measure", "fastcnn", 0.01) < 1
    assert len(pool.ask("ours", "repeat", "fastcnn", 3)) == 3
    most, before = pool.ask("ours", "peak")
    assert most >= before >= 0
    assert pool.versions["fastcnn"] == fastcnn.__version__


def test_a_worker_says_what_went_wrong_and_goes_on(pool):
    with pytest.raises(worker.WorkerError, match="KeyError.*'nobody'"):
        pool.ask("ours", "measure", "nobody", 0.1)
    assert pool.ask("ours", "peak")


def test_a_dead_worker_is_started_anew():
    with worker.Pool(1, spin=False) as pool:
        pool.ask("reference", "peak")
        pool._workers["reference"]._process.kill()
        pool._workers["reference"]._process.wait()
        assert pool.ask("reference", "peak")


def test_a_library_that_cannot_be_used():
    with worker.Pool(1, spin=False) as pool:
        for _ in range(2):
            with pytest.raises(worker.WorkerError, match="No module named 'fastcnn.bench.runners.nothing'"):
                pool.ask("nothing", "peak")
        assert list(pool.broken) == ["nothing"]


def test_environment(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    spinning, passive = worker.environment(3, True), worker.environment(2, False)
    assert "OMP_WAIT_POLICY" not in spinning and passive["OMP_WAIT_POLICY"] == "passive"
    assert spinning["OMP_NUM_THREADS"] == spinning["NUMBA_NUM_THREADS"] == "3"


def test_a_row(pool):
    (case,) = cases.select(["loss"], ["cross_entropy cifar"])
    row = measure.measure(case, pool, [], measure.Settings(rounds=3, seconds=0.01))
    assert row["name"] == case.name and list(row["results"]) == ["fastcnn", "reference"]
    ours, reference = row["results"].values()
    assert ours["rounds"] == 3 and ours["low"] <= ours["seconds"] <= ours["high"] and "ratio" not in ours
    assert reference["agrees"] and reference["ratio"]["median"] > 0
    json.dumps(row, allow_nan=False)


def test_an_op_of_the_catalogue(pool):
    (case,) = cases.select(None, ["relu_forward"])
    row = measure.measure(case, pool, [], measure.Settings(rounds=1, seconds=0.01))
    assert row["nbytes"] == 2 * 4 * 32 * 64 * 32 * 32 and row["flops"] == row["nbytes"] / 8
    assert row["results"]["reference"]["agrees"]


def test_every_op_of_the_catalogue_is_measured(every):
    assert {case.params["op"] for case in every if case.family == "ops"} == set(OPS)


def test_a_contestant_that_is_left_out(pool):
    (case,) = cases.select(["loss"], ["cross_entropy cifar"])
    row = measure.measure(case, pool, [], measure.Settings(rounds=1, seconds=0.01, left_out=("reference",)))
    assert list(row["results"]) == ["fastcnn"]


def test_large_work_is_not_given_to_the_reference(pool):
    (case,) = cases.select(["linear"], ["affine_forward classes"])
    row = measure.measure(case, pool, [], measure.Settings(rounds=1, seconds=0.01, reference_flops=case.flops / 2))
    assert list(row["results"]) == ["fastcnn"]


# ---- results

RUN = {
    "date": "2024-01-01T00:00:00+00:00", "threads": 2, "waiting": "passive", "settings": {},
    "machine": {"cpu": "a CPU", "cores": "2 usable", "vectors": "512 bits", "system": "Linux", "python": "3.11"},
    "versions": {"fastcnn": "0.1.0"}, "ceilings": {"gflops": 200.0, "gbytes": 20.0},
    "load": {"before": {"average": 0.1, "busy": 0.02}, "after": None},
}  # fmt: skip


def a_row(name, seconds=1.0, torch=2.0, **changes):
    ratio = {"median": torch / seconds, "low": 0.9 * torch / seconds, "high": 1.1 * torch / seconds}
    row = {
        "name": name, "family": "conv", "work": "conv_forward", "params": {}, "flops": 1e11, "nbytes": 1e9, "images": 0,
        "tags": ["3x3s1", "training batch", "resnet20"], "quick": False, "kind": "time", "comparable": True,
        "results": {
            "fastcnn": {"seconds": seconds, "low": seconds, "high": seconds, "rounds": 3},
            "torch": {"seconds": torch, "low": torch, "high": torch, "rounds": 3, "ratio": ratio, "agrees": True},
        },
    }  # fmt: skip
    return {**row, **changes}


def test_results_are_merged(tmp_path):
    first = Results(tmp_path / "folder")
    first.begin(dict(RUN))
    first.add(a_row("a")), first.add(a_row("b"))
    second = Results(tmp_path / "folder")
    assert list(second.cases) == ["a", "b"]
    second.begin(dict(RUN, threads=1))
    second.add(a_row("b", 3.0))
    content = json.loads((tmp_path / "folder" / "results.json").read_text())
    assert content["schema"] == 1 and [run["id"] for run in content["runs"]] == [1, 2]
    assert {name: row["run"] for name, row in content["cases"].items()} == {"a": 1, "b": 2}
    assert second.run_of(second.cases["b"])["threads"] == 1
    second.add(a_row("a"))
    assert [run["id"] for run in Results(tmp_path / "folder").runs] == [2]  # nothing is left of the first
    assert not list(tmp_path.rglob("*.part"))


def test_results_of_another_form(tmp_path):
    (tmp_path / "results.json").write_text('{"schema": 7}')
    with pytest.raises(ValueError, match="expected schema 1, got 7"):
        Results(tmp_path)


def test_targets():
    target = targets.TARGETS["cpu"][0]
    rows = [a_row("a", 1.0, 4.0), a_row("b", 1.0, 1.0), a_row("other", tags=["1x1s1", "training batch"])]
    verdict = targets.judge(target, rows, None)
    assert verdict.mean == pytest.approx(2) and verdict[1:] == (1.0, "b", 2, True)
    assert not targets.judge(target, [*rows, a_row("c", 1.0, 0.9)], None).met  # a layer below 1.0
    assert not targets.judge(target, [a_row("a", 1.0, 1.5)], None).met  # the mean below 1.6
    assert targets.judge(target, [], None) == (None, None, "", 0, False)
    rows[0]["results"]["torch channels_last"] = {"ratio": {"median": 0.5}}
    assert targets.best_ratio(rows[0], targets.EAGER) == (0.5, "torch channels_last")
    assert targets.judge(target, rows[:1], None).mean == 0.5


def test_targets_in_seconds_and_shares():
    train = next(target for target in targets.TARGETS["cpu"] if "cold" in target.text)
    row = a_row("cold_train", 50.0, work="cold_train", tags=[])
    assert targets.judge(train, [row], None).met
    assert not targets.judge(train, [a_row("cold_train", 61.0, work="cold_train")], None).met
    share = next(target for target in targets.TARGETS["cpu"] if "FMA" in target.text)
    verdict = targets.judge(share, [a_row("m", 0.5, work="multiply_panels")], lambda row: table.share(row, RUN))
    assert verdict.mean == pytest.approx(1) and verdict.met  # 1e11 operations in 0.5 s at 200 GFLOP/s


def test_every_case_of_a_target_exists(every):
    import dataclasses

    rows = [{**dataclasses.asdict(case), "results": {}} for case in every]
    assert [target.text for target in targets.TARGETS["cpu"] if not any(target.fits(row) for row in rows)] == []


def test_lines_and_cells():
    row = a_row("a case", 0.5, 1.0)
    line = table.line(row, RUN)
    assert line.split() == ["a", "case", "500", "ms", "200.0", "2.0", "100%", "2.00x"]
    row["results"]["torch"]["agrees"] = False
    assert "2.00x!" in table.line(row, RUN)
    row["results"]["fastcnn"] = {"error": "no"}
    assert table.cells(row, RUN)[0] == "failed"
    durations = [table.duration(s) for s in (2.5e-6, 1.5e-3, 0.25, 12.3, 123.4)]
    assert durations == ["2.5 us", "1.5 ms", "250 ms", "12.3 s", "123 s"]


def test_page_and_plots(tmp_path):
    pytest.importorskip("matplotlib")
    from fastcnn.bench import plots

    results = Results(tmp_path)
    results.begin(dict(RUN, unavailable={"jax": "no such library"}))
    results.add(a_row("conv_forward resnet20.conv2 n128"))
    memory = {
        "fastcnn": {"bytes": 5e8, "before": 1e8},
        "torch": {"bytes": 1e9, "before": 2e8, "ratio": {"median": 2.0}},
    }
    results.add(a_row("step_memory resnet20 n128", family="memory", work="step_memory", kind="memory", results=memory))
    failed = {"fastcnn": {"seconds": 0.1, "low": 0.1, "high": 0.1, "rounds": 1}, "torch": {"error": "out of memory"}}
    results.add(a_row("training_step vgg11 n128", family="step", work="training_step", results=failed, images=128))
    plots.draw(results)
    report.write(results)
    text = (tmp_path / "README.md").read_text()
    assert {file.name for file in tmp_path.iterdir()} == {"README.md", "results.json", "roofline.png", "speedup.png"}
    assert "| conv_forward resnet20.conv2 n128 | 1 s | 100.0 | 1.0 | 50% | 2.00x (1.80-2.20) |" in text
    assert "| step_memory resnet20 n128 | 500 MB | 2.00x |" in text and "fastcnn 1,280" in text
    assert "torch: out of memory" in text and "jax could not be used: no such library" in text
    assert (
        "2%, 0.1 | interrupted |" in text
        and "a CPU" in text
        and "200 GFLOP/s" in text
        and "| met |" in text
        and "not measured" in text
    )
    assert (tmp_path / "speedup.png").read_bytes()[:4] == b"\x89PNG"


def test_geometric_means():
    rows = [a_row(str(i), 1.0, ratio) for i, ratio in enumerate((2.0, 8.0))]
    assert targets.judge(targets.TARGETS["cpu"][0], rows, None).mean == pytest.approx(math.sqrt(16))
