"""`fastcnn bench`, and the benchmarks on pytest-benchmark."""

import json
import subprocess
import sys

import pytest
from conftest import TESTS

from fastcnn.bench import measure
from fastcnn.cli import main

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")
QUICK = ["bench", "--quick", "--peers", "none", "--passive", "--rounds", "2", "--seconds", "0.01", "--no-progress"]
RUN = {
    "id",
    "date",
    "backend",
    "threads",
    "waiting",
    "settings",
    "machine",
    "versions",
    "ceilings",
    "load",
    "unavailable",
}
ROW = {
    "name", "family", "work", "params", "flops", "nbytes", "images", "tags", "quick", "kind", "comparable", "results",
    "run",
}  # fmt: skip


def test_bench(tmp_path, capsys):
    folder = tmp_path / "results"
    assert main([*QUICK, "--op", "cross_entropy*", "--threads", "1", "--output", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "1 cases, 1 threads, peers: none" in out and "\ncross_entropy imagenet " in out
    content = json.loads((folder / "results.json").read_text())
    assert set(content) == {"schema", "runs", "cases"}
    (run,), (row,) = content["runs"], content["cases"].values()
    assert set(run) == RUN and set(row) == ROW
    assert run["threads"] == 1 and run["ceilings"]["gflops"] > 0 and run["ceilings"]["gbytes"] > 0
    assert run["load"]["after"].keys() == run["load"]["before"].keys() == {"average", "busy"}
    assert sys.executable not in json.dumps(run)  # nothing that names folders of this machine
    assert row["results"]["reference"]["agrees"] and row["results"]["fastcnn"]["rounds"] == 2
    assert {file.name for file in folder.iterdir()} == {"results.json", "README.md", "speedup.png", "roofline.png"}
    # Results of other cases stay, those that are there can be left out.
    assert main([*QUICK, "--family", "loss", "--family", "microkernel", "--resume", "--output", str(folder)]) == 0
    assert "1 cases," in capsys.readouterr().out
    assert [row["run"] for row in json.loads((folder / "results.json").read_text())["cases"].values()] == [1, 2]


def test_an_interrupted_run_leaves_what_it_has(tmp_path, capsys, monkeypatch):
    done = []

    def interrupted(case, *others):
        if done:
            raise KeyboardInterrupt
        done.append(case)
        return measure_case(case, *others)

    measure_case = measure.measure
    monkeypatch.setattr(measure, "measure", interrupted)
    assert main([*QUICK, "--op", "cross_entropy*", "--op", "relu_forward", "--output", str(tmp_path)]) == 130
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(content["cases"]) == ["cross_entropy imagenet"] and content["runs"][0]["load"]["after"] is None
    assert "interrupted" in (tmp_path / "README.md").read_text()


def test_minutes_that_are_over(tmp_path, capsys):
    assert main([*QUICK, "--op", "cross_entropy*", "--minutes", "1e-9", "--output", str(tmp_path)]) == 0
    assert "1e-09 minutes are over: 1 cases not measured; --resume goes on" in capsys.readouterr().out
    assert json.loads((tmp_path / "results.json").read_text())["cases"] == {}


def test_progress(tmp_path, capsys):
    arguments = [argument for argument in QUICK if argument != "--no-progress"]
    assert main([*arguments, "--op", "cross_entropy*", "--output", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "cross_entropy imagenet" in captured.out and "0/1" in captured.err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--op", "relu"], "op: no case fits relu"),
        (["--family", "convolution"], "family: expected one of"),
        (["--peers", "tensorflow"], "peers: expected auto, none, or some of torch"),
    ],
)
def test_wrong_wishes(arguments, message, tmp_path, capsys):
    assert main(["bench", "--no-progress", "--output", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"fastcnn bench: {message}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", ["--seconds 0", "--seconds soon", "--rounds 0", "--minutes -1"])
def test_wrong_numbers(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["bench", *arguments.split()])
    assert exit.value.code == 2 and "usage: fastcnn bench" in capsys.readouterr().err


def test_benchmarks_run(tmp_path):
    """As `pytest benchmarks` does, without timing."""
    pytest.importorskip("pytest_benchmark")
    folder = TESTS.parent / "benchmarks"
    files = [str(folder / f"bench_{family}.py") for family in ("loss", "pool")]
    options = ["-n", "0", "-q", "--benchmark-disable", "-p", "no:cacheprovider", "-k", "fastcnn or cross_entropy"]
    command = [sys.executable, "-m", "pytest", *files, *options]
    done = subprocess.run(command, cwd=TESTS.parent, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout + done.stderr
