"""The command line, but for `fastcnn train` (test_train.py)."""

import argparse
import json
import platform
import re

import numba
import numpy as np
import pytest

import fastcnn
import fastcnn.cpu.activation
from fastcnn import info
from fastcnn.catalogue import OPS
from fastcnn.cli import main, parser
from fastcnn.common.convolution import ALGORITHMS

COMMANDS = [
    "check",
    "train",
    "finetune",
    "predict",
    "evaluate",
    "report",
    "validate",
    "bench",
    "study",
    "info",
]
FACTS = [
    "fastcnn", "python", "numpy", "numba", "system", "cpu", "cores", "vectors", "threads", "threading layer", "backend",
    "cache folder", "gpu",
]  # fmt: skip


# ---- help and version


def commands():
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


def test_commands():
    assert set(commands()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")  # no text is wrapped
    monkeypatch.setenv("NO_COLOR", "1")
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for action in commands()[command]._actions:
        said = action.help
        if action.default not in (None, argparse.SUPPRESS) and action.default is not False:
            said += f" (default: {action.default})"
        assert len(said) > 6 and all(f" {option}" in text for option in action.option_strings)
        assert f" {said}" in text
    assert "default: None" not in text and "default: False" not in text


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    out = capsys.readouterr().out
    assert exit.value.code == 0 and all(re.search(rf"^ +{name} ", out, re.M) for name in commands())


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["info", "--fast"], ["validate", "--quick", "--thorough"], ["--vers"]]
)
def test_wrong_use(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and "usage: fastcnn" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--drop", "x"], "--drop: expected a number of at least 0 and below 1, got 'x'"),
        (["finetune", "runs/a", "--lr-factor", "-1"], "--lr-factor: expected a number of at least 0, got '-1'"),
        (["finetune", "runs/a", "--head-drop", "nan"], "--head-drop: expected a number of at least 0 and below 1"),
    ],
)
def test_numbers_that_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and message in capsys.readouterr().err


def test_version_as_a_module(run_python):
    out, err = run_python(
        """
        import runpy, sys

        sys.argv = ["fastcnn", "--version"]
        try:
            runpy.run_module("fastcnn", run_name="__main__", alter_sys=True)
        finally:
            assert "numba" not in sys.modules  # what prints a line must not take a second
        """
    )
    assert (out, err) == (f"fastcnn {fastcnn.__version__}\n", "")


@pytest.mark.parametrize(
    "error, status, message",
    [(KeyboardInterrupt(), 130, "interrupted"), (OSError("no disk"), 2, "no disk"), (MemoryError("full"), 2, "full")],
)
def test_ends_of_a_command(monkeypatch, capsys, error, status, message):
    def fail():
        raise error

    monkeypatch.setattr(info, "collect", fail)
    assert main(["info"]) == status
    assert capsys.readouterr() == ("", f"fastcnn info: {message}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_not_abbreviated(command):
    """As --conf of --config, which is looked for by its name before the parser does."""
    assert not commands()[command].allow_abbrev


# ---- info


def test_info(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = {line[:16].strip(): line[17:] for line in lines}
    assert list(facts) == FACTS and all(facts.values())
    assert main(["info", "--json"]) == 0
    assert {name: str(fact) for name, fact in json.loads(capsys.readouterr().out).items()} == facts


def test_info_is_right():
    facts = info.collect()
    assert facts["fastcnn"] == fastcnn.__version__ and facts["numpy"] == np.__version__
    assert facts["python"].startswith(platform.python_version()) and facts["numba"].startswith(numba.__version__)
    assert facts["threads"] == numba.get_num_threads() and facts["threading layer"] == numba.threading_layer()
    assert re.fullmatch(r"(128|256|512) bits, register block \d+ x \d+ float32", facts["vectors"])
    assert facts["backend"] == fastcnn.get_backend()


def test_info_without_a_cache(run_python, tmp_path):
    (tmp_path / "file").write_text("")
    code = "from fastcnn.cli import main; main(['info'])"
    out, err = run_python(code, FASTCNN_CACHE_DIR=tmp_path / "file" / "cache")
    assert "cache folder     none: kernels are compiled anew" in out and "FASTCNN_CACHE_DIR" in err


def test_info_names_the_cache(run_python, tmp_path):
    out, _ = run_python("from fastcnn.cli import main; main(['info'])", FASTCNN_CACHE_DIR=tmp_path / "kernels")
    assert re.search(rf"^cache folder +{re.escape(str(tmp_path / 'kernels'))}", out, re.M)


# ---- validate


def test_validate(tmp_path, capsys):
    file = tmp_path / "results.json"
    arguments = ["validate", "--quick", "--op", "relu_forward", "--op", "relu_backward", "--json", str(file)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"^relu_(?:for|back)ward +float(?:32|64) .* ok ", out, re.M)) == 4
    assert "4 passed, 0 failed" in out
    results = json.loads(file.read_text())
    assert [(r["op"], r["dtype"], r["passed"]) for r in results] == [
        (op, dtype, True) for op in ("relu_forward", "relu_backward") for dtype in ("float32", "float64")
    ]
    assert all(r["error"] <= r["limit"] and r["reason"] and r["cases"] > 0 for r in results)


def test_validate_names_the_algorithm(tmp_path, capsys):
    file = tmp_path / "results.json"
    arguments = ["validate", "--quick", "--op", "conv_forward", "--dtype", "float32", "--json", str(file)]
    assert main([*arguments, "--backend", "reference"]) == 0
    out = capsys.readouterr().out
    algorithms = ["auto", *ALGORITHMS]
    assert re.findall(r"^conv_forward (\S+) +float32 .* ok ", out, re.M) == algorithms
    assert [(r["op"], r["algo"]) for r in json.loads(file.read_text())] == [("conv_forward", a) for a in algorithms]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_validate_one_dtype(backend, capsys):
    arguments = ["validate", "--quick", "--op", "sgd_update", "--dtype", "float64", "--backend", backend, "--seed", "7"]
    assert main(arguments) == 0
    assert "1 passed, 0 failed" in capsys.readouterr().out


def test_validate_unknown_op(capsys):
    assert main(["validate", "--op", "relu"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fastcnn validate: ") and "'relu'" in err and all(name in err for name in OPS)


def nearly(relu):
    def wrong(x, out=None):
        out = relu(x, out)
        out *= 1.001
        return out

    return wrong


def forgetful(relu):
    def wrong(x, out=None):
        result = relu(x)
        if out is None:
            return result
        out.reshape(-1)[:-1] = result.reshape(-1)[:-1]
        return out

    return wrong


def of_other_dtype(relu):
    return lambda x, out=None: relu(x, out).astype(np.float64)


@pytest.mark.parametrize("wrong", [nearly, forgetful, of_other_dtype])
def test_a_wrong_kernel_fails(wrong, monkeypatch, tmp_path, capsys):
    relu = fastcnn.cpu.activation.relu_forward
    monkeypatch.setattr(fastcnn.cpu.activation, "relu_forward", wrong(relu))
    file = tmp_path / "results.json"
    arguments = ["validate", "--quick", "--op", "relu_forward", "--op", "tanh_forward", "--dtype", "float32"]
    assert main([*arguments, "--json", str(file)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^relu_forward .* FAILED ", out, re.M) and re.search(r"^tanh_forward .* ok ", out, re.M)
    assert "1 passed, 1 failed" in out
    failed, passed = json.loads(file.read_text())
    assert not failed["passed"] and failed["failures"] and passed["passed"] and not passed["failures"]
