"""Studies, at a small size: what they measure is told, drawn and kept; exact claims hold at any size."""

import base64
import json
import re

import numpy as np
import pytest

from fastcnn.cli import main
from fastcnn.study import STUDIES, command, find
from fastcnn.study.frame import Finding

SCALE = 0.02
PNG = b"\x89PNG\r\n\x1a\n"

CLAIMS = {  # of the field, as the package promises them
    "tanh-init", "zero-init", "relu-init", "dying-relu", "sigmoid-saturation", "relu-speed", "batchnorm-rates", "undo",
    "momentum", "batch-variance", "hinge-margin", "residual", "ensemble", "gap",
}  # fmt: skip


def test_every_claim_has_a_study():
    assert set(STUDIES) == CLAIMS
    for study in STUDIES.values():
        assert study.claim.endswith(".") and re.search(r"\(\d{4}\)", study.source)


@pytest.fixture(scope="module")
def found():
    """found(name) -> the study's finding at a small size, made once."""
    findings = {}

    def run(name):
        if name not in findings:
            findings[name] = find(name).run(seed=1, scale=SCALE)
        return findings[name]

    return run


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from numbers_in(entry)
    elif not isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_a_study_tells_draws_and_keeps_what_it_measured(name, found, tmp_path):
    finding = found(name)
    verdict, _, text = finding.sentence.partition(": ")
    assert verdict == ("Seen" if finding.seen else "Not seen here") and re.search(r"\d", text) and text.endswith(".")
    assert len(list(numbers_in(finding.numbers))) > 3
    picture = command.keep(find(name), finding, 1, tmp_path)
    assert picture == tmp_path / f"{name}.png" and picture.read_bytes().startswith(PNG)
    record = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert record["seed"] == 1 and record["sentence"] == finding.sentence and record["seen"] == finding.seen
    assert record["numbers"].keys() == finding.numbers.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.png"]


@pytest.mark.parametrize("name", ["zero-init", "momentum", "ensemble"])
def test_the_same_seed_gives_the_same_numbers_and_another_others(name, found):
    again, other = find(name).run(seed=1, scale=SCALE), find(name).run(seed=2, scale=SCALE)
    assert again.numbers == found(name).numbers and again.sentence == found(name).sentence
    assert other.numbers != again.numbers


def test_neurons_that_begin_alike_stay_alike(found):
    assert found("zero-init").numbers["different"] == [1, 1, 24]


def test_gamma_and_beta_undo_a_normalisation(found):
    finding = found("undo")
    assert finding.seen and finding.numbers["error"] < 1e-12


def test_momentum_damps_the_swings(found):
    swings = found("momentum").numbers["swings"]
    assert swings[1] < swings[0] / 2


def test_variance_falls_as_one_over_the_batch_size(found):
    numbers = found("batch-variance").numbers
    assert numbers["slope"] == pytest.approx(-1, abs=0.5)
    assert numbers["with_replacement"][0] > numbers["with_replacement"][-1]


def test_activations_die_saturate_or_live_by_their_initial_weights(found):
    numbers = found("tanh-init").numbers
    assert numbers["small"] < 1e-3 and numbers["large"] > 0.5 and 0.1 < numbers["xavier"] < 0.9


def test_a_claim_that_is_not_seen_says_so():
    finding = Finding(False, "of {n} none", {"n": 3}, None)
    assert finding.sentence == "Not seen here: of 3 none"


def test_the_command_lists_studies(capsys):
    assert main(["study"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in CLAIMS)


def test_the_command_writes_a_page_that_stands_by_itself(tmp_path, capsys):
    assert main(["study", "momentum", "undo", "--out", str(tmp_path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    references = re.findall(r'(?:src|href)="([^"]*)"', page)
    pictures = [r for r in references if r.startswith("data:image/png;base64,")]
    assert len(pictures) == 2 and all(r.startswith(("#", "data:")) for r in references)
    assert {base64.b64decode(r.partition(",")[2]) for r in pictures} == {
        (tmp_path / f"{name}.png").read_bytes() for name in ("momentum", "undo")
    }
    for name in ("momentum", "undo"):
        record = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert record["sentence"] in printed and find(name).source.replace("&", "&amp;") in page
        assert all(np.isfinite(number) for number in numbers_in(record["numbers"]) if number is not None)


def test_an_unknown_study_is_named_with_those_there_are(capsys, tmp_path):
    assert main(["study", "momentun", "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert "'momentun'" in error and "did you mean 'momentum'" in error and "tanh-init" in error
    assert not (tmp_path / "new").exists()
