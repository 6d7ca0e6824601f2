"""The examples run, and say what they should."""

import pathlib
import runpy

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize("strength", ["0", "0.01"])
def test_multi_task(strength, capsys):
    example = runpy.run_path(str(EXAMPLES / "multi_task.py"))
    options = ["--images", "100", "--epochs", "2", "--seeds", "1", "--strength", strength]
    found = example["main"](options)
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows] == list(found) == ["apart", "hard sharing", "soft sharing"]
    assert all(found[way]["class"] > 0.15 and found[way]["kind"] > 0.5 for way in found)
    assert (found["soft sharing"] == found["apart"]) == (strength == "0")
