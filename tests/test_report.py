"""The report of a run: what is on the page, that it stands by itself, and that each of its sources may be missing."""

import base64
import dataclasses
import html.parser
import io
import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from train_support import QUICK, digest, save

from fastcnn import data, nn, optim
from fastcnn.cli import main
from fastcnn.train import EpochMetrics, Monitor, RunFolder, Trainer, load_run, report, write_report

SECTIONS = [name for name, _ in report._SECTIONS]
NAMES = ("cat & <dog>", "owl", "fox")


class Page(html.parser.HTMLParser):
    """A parsed page: whether its tags are balanced, its text by section, its pictures, what it refers to."""

    VOID = {"meta", "img", "br"}

    def __init__(self, file):
        super().__init__()
        self.open, self.references, self.pictures, self.ids, self.section, self.text = [], [], [], [], None, {}
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        self.references += [
            attributes[name] for name in ("src", "href", "srcset", "data", "action") if name in attributes
        ]
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img":
            self.pictures.append(attributes["src"])
        if tag == "h2":
            self.section = attributes["id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text[self.section] = self.text.get(self.section, "") + text


def page_of(folder):
    """The page, checked to stand by itself."""
    from PIL import Image

    page = Page(folder / "report.html")
    for reference in page.references:
        assert reference.startswith(("#", "data:image/png;base64,")), reference[:80]
        assert not reference.startswith("#") or reference[1:] in page.ids
    assert "url(" not in page.source and "@import" not in page.source and "http" not in page.source
    for source in page.pictures:
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2], validate=True))) as picture:
            picture.load()
    shown = re.sub("<li.*?</li>", "", page.source)  # all but what is said in words
    assert not re.search(r"\bnan\b|\binf\b", shown), "no number that is none"
    for name in SECTIONS:
        assert report._anchor(name) in page.ids
    return page


def images(n, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % len(NAMES)
    x = rng.integers(0, 120, (n, 1, 8, 9), np.uint8)
    for image, label in zip(x, y, strict=True):
        image[:, 2 * label : 2 * label + 2] += 120
    return x, y


def make_run(folder, path, epochs=4, name="small_cnn", evaluation=True, lr=0.02, watch=True, **options):
    """A run on a small data set, as `fastcnn train` leaves it."""
    (x_train, y_train), (x_test, y_test) = images(60, 0), images(30, 1)
    np.savez(path, x_train=x_train[:, 0], y_train=y_train, x_test=x_test[:, 0], y_test=y_test, class_names=NAMES)
    dataset, shape = data.load(path), (1, 8, 9)
    net = nn.build(name, shape, len(NAMES), **options)
    optimizer, preprocess = optim.SGD(nn.FlatParameters(net), lr, 0.9), data.Standardize.fit(dataset.x_train)
    config = {
        "fastcnn": "1.0",
        "net": {"name": name, "options": options},
        "parameters": optimizer.parameters.data.size,
        "optimizer": {"name": "SGD", "lr": lr, "momentum": 0.9},
        "preprocess": {"name": "Standardize"},
        "dataset": {"name": "toy", "path": str(path), "classes": list(NAMES), "image_shape": shape,
                    "training_images": 60, "test_images": 30, "digest": ""},
        "options": {"epochs": epochs, "batch_size": 16, "schedule": "constant", "seed": 0, "image_size": None,
                    "find_lr": False},
    }  # fmt: skip
    run = RunFolder(folder, config)
    batches = data.Batches(dataset.x_train, dataset.y_train, 16)
    callbacks = [Monitor(folder)] if watch else []
    trainer = Trainer(net, optimizer, batches, preprocess, lambda progress: 1.0, epochs, np.float32, callbacks)
    try:
        trainer.fit((dataset.x_test, dataset.y_test) if evaluation else None)
    finally:
        for metrics in trainer.metrics:
            run.add(metrics)
        run.save_weights(net, preprocess)
    return folder


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return make_run(folder / "run", folder / "toy.npz", width=2)


@pytest.fixture
def run(complete, tmp_path):
    """A copy of a complete run, to be damaged."""
    return shutil.copytree(complete, tmp_path / "run")


def test_complete(run):
    file, statements = write_report(run)
    page = page_of(run)
    assert file == run / "report.html"
    assert "small_cnn on toy" in page.text[None] and "4 of 4 epochs are complete" in page.text[None]
    for statement in statements:
        assert statement.text in page.text["reading"]
    rules = {statement.rule for statement in statements}
    assert {"first loss", "updates"} <= rules and "incomplete" not in rules
    facts = page.text["reading"]
    metrics = load_run(run).metrics
    best = max(metrics, key=lambda m: m.eval_accuracy)
    for fact in ("small_cnn (width 2)", "SGD (lr 0.02, momentum 0.9)", "constant", "Standardize", "1 x 8 x 9",
                 "60 training, 30 test", f"{best.eval_accuracy:.2%} accuracy, after epoch {best.epoch}"):  # fmt: skip
        assert fact in facts
    assert f"{metrics[-1].eval_accuracy:.2%} of 30 test images" in page.text["mistakes"]
    assert NAMES[0] in page.text["mistakes"] and "cat & <dog>" not in page.source
    assert "The 2 filters of the first layer, 3 x 3 pixels" in page.text["first-layer-filters"]
    for name in ("0 Conv2d", "1 BatchNorm2d", "8 Linear"):
        assert name in page.text["activations"]
    assert "8.weight" in page.text["gradients"] and "healthy" in page.text["updates"]
    assert page.source.count("<svg") == 4 + (1 + 5) + (1 + 3) + 1 and len(page.pictures) >= 1


def test_the_same_again(run):
    write_report(run)
    first = (run / "report.html").read_bytes()
    write_report(run)
    assert (run / "report.html").read_bytes() == first


def test_confusion_and_worst_images(run):
    """Of a net that takes every image for an owl."""
    net = load_run(run)
    net.net.layers[-1].weight.data[:], net.net.layers[-1].bias.data[:] = 0, [0, 5, 0]
    RunFolder.save_weights(SimpleNamespace(path=run), net.net, net.preprocess)
    write_report(run)
    text = page_of(run).text["mistakes"]
    assert "33.33% of 30 test images" in text
    assert f"fox (0.7%), taken for owl ({1 / (1 + 2 * math.exp(-5)):.1%})" in text
    assert len(page_of(run).pictures) == 1 + 16


@pytest.mark.parametrize(
    "gone, section, message",
    [
        ("metrics.jsonl", "curves", "No epoch is complete yet"),
        ("monitor.jsonl", "gradients", "has no monitor.jsonl"),
        ("weights.safetensors", "first-layer-filters", "weights.safetensors does not exist"),
    ],
)
def test_a_file_is_missing(run, gone, section, message):
    (run / gone).unlink()
    write_report(run)
    assert message in page_of(run).text[section]


@pytest.mark.parametrize("damaged", ["metrics.jsonl", "monitor.jsonl", "weights.safetensors"])
def test_a_file_is_damaged(run, damaged):
    (run / damaged).write_text("{]\n")
    write_report(run)
    assert f"{damaged}: damaged" in "".join(page_of(run).text.values())


def test_nothing_but_settings(run):
    for file in run.iterdir():
        if file.name != "config.json":
            file.unlink()
    _, statements = write_report(run)
    assert [statement.rule for statement in statements] == ["incomplete"]
    assert "0 of 4 epochs" in page_of(run).text[None]


def test_data_that_are_gone(run):
    config = json.loads((run / "config.json").read_text())
    config["dataset"]["path"] = "/nowhere/to/be/found"
    (run / "config.json").write_text(json.dumps(config))
    write_report(run)
    page = page_of(run)
    assert "does not exist" in page.text["mistakes"]
    x, y = images(12, 1)
    write_report(run, data.Dataset(x, y, x, y, NAMES, "given"))
    assert "of 12 test images" in page_of(run).text["mistakes"]


def test_dead_and_saturated(run):
    """The largest shares are named, and drawn over time; without any a sentence says so."""
    write_report(run)
    plots = page_of(run).source.count("<svg")
    file = run / "monitor.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        for layer in record["layers"]:
            layer["dead"], layer["saturated"] = {"0": (None, 0.625), "1": (0.0, None)}.get(layer["name"], (None, None))
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_report(run)
    page = page_of(run)
    text = page.text["dead-and-saturated-units"]
    assert "they learn nothing. There were none." in text and "largest share is 62.5%, that of 0 Conv2d" in text
    assert page.source.count("<svg") == plots + 1 and "62% of layer 0" in page.text["reading"]


def test_validation(run):
    """The mistakes are those on the images that the curves follow."""
    config = json.loads((run / "config.json").read_text())
    config["options"] |= {"validation": 0.2, "seed": 3}
    (run / "config.json").write_text(json.dumps(config))
    write_report(run)
    text = page_of(run).text
    assert "of 12 validation images" in text["mistakes"] and "best validation" in text["reading"]
    x, y = report._held_out(report._gather(run, None))
    _, x_val, y_val = data.load(config["dataset"]["path"]).split_validation(0.2, 3)
    assert_array_equal(x, x_val), assert_array_equal(y, y_val)


def test_large_nets_classify_fewer_images(run, empty_weights):
    small = load_run(run)
    assert report._affordable(small) == 10_000
    large = dataclasses.replace(small, net=nn.build("resnet18", (3, 224, 224), 10), image_shape=(3, 224, 224))
    flops = sum(row.flops for row in large.net.summary(large.image_shape).rows)
    assert 100 < report._affordable(large) == int(2e12 / flops) < 1000


def test_other_data(run):
    x = np.zeros((3, 1, 5, 5), np.uint8)
    write_report(run, data.Dataset(x, [0, 1, 2], x, [0, 1, 2], NAMES, "other"))
    assert "no test images for this net" in page_of(run).text["mistakes"]
    write_report(run, data.Dataset(x, [0, 1, 2], x[:0], np.zeros(0, int), NAMES, "none"))
    assert "no test images for this net" in page_of(run).text["mistakes"]


def test_units_that_were_dead_for_a_while(run):
    """In the last record no unit is dead, and some layers have none that could be."""
    lines = [json.loads(line) for line in (run / "monitor.jsonl").read_text().splitlines()]
    for record, dead in ((lines[0], 0.5), (lines[-1], 0.0)):
        assert record["layers"][0]["dead"] is None
        for layer in record["layers"]:
            layer["dead"] = None if layer["dead"] is None else dead
    (run / "monitor.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(run)
    assert "largest share is 0.0%, that of 1 BatchNorm2d" in page_of(run).source


def test_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run in this folder"):
        write_report(tmp_path)
    (tmp_path / "config.json").write_text("{]")
    with pytest.raises(ValueError, match="config.json: damaged"):
        write_report(tmp_path)


@pytest.mark.parametrize("options", [{"epochs": 1}, {"evaluation": False}, {"watch": False}, {"name": "mlp"}])
def test_other_runs(tmp_path, options):
    write_report(make_run(tmp_path / "run", tmp_path / "toy.npz", **options))
    page = page_of(tmp_path / "run")
    if options.get("name") == "mlp":
        assert "64 of the 100 filters of the first layer, 8 x 9 pixels" in page.text["first-layer-filters"]
    if "evaluation" in options:
        assert "test accuracy" not in page.text["reading"]


def test_a_run_that_diverged(tmp_path):
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
        make_run(tmp_path / "run", tmp_path / "toy.npz", lr=1e30)
    _, statements = write_report(tmp_path / "run")
    assert "of 30 test images the scores of the net are no numbers" in page_of(tmp_path / "run").text["mistakes"]
    assert "incomplete" in {statement.rule for statement in statements}


def test_metrics_that_are_no_numbers(run):
    with open(run / "metrics.jsonl", "a") as file:
        lost = EpochMetrics(5, 4, math.nan, math.nan, 0.3, math.inf, 0.3, 1.0, 60.0)
        file.write(json.dumps(lost.as_dict()) + "\n")
    _, statements = write_report(run)
    assert "diverged" in {statement.rule for statement in statements}
    assert "is no number from epoch 5 on" in Page(run / "report.html").text["reading"]


# ---- after a training


@pytest.fixture
def train(tmp_path):
    """train(name, *options) -> exit status and folder of a short run."""

    def run(name, *options):
        arguments = ["train", "--data", str(save(tmp_path / "toy.npz")), *QUICK, "--out", str(tmp_path / name)]
        return main([*arguments, *map(str, options)]), tmp_path / name

    return run


def test_training_ends_with_a_report(train):
    status, folder = train("run", "--validation", 0.3, "--augment", "flip", "--loss", "hinge")
    page = page_of(folder)
    assert status == 0 and "2 of 2 epochs are complete" in page.text[None]
    assert "equal scores give 3 - 1 = 2" in page.text["reading"] and "of 21 validation images" in page.text["mistakes"]


def test_without_monitor_the_weights_are_the_same(train):
    (_, watched), (_, plain) = train("watched"), train("plain", "--no-monitor")
    assert digest(watched) == digest(plain) and not (plain / "monitor.jsonl").exists()
    assert "has no monitor.jsonl" in page_of(plain).text["activations"]


def test_a_range_test_is_no_run_under_way(train, capsys):
    status, folder = train("run", "--find-lr")
    assert status == 0 and main(["report", str(folder)]) == 0
    page, out = page_of(folder), capsys.readouterr().out
    proposed = re.search(r"--lr (\S+)", out)[1]
    assert "good: A range test: over" in out and "under way" not in out
    assert "a range test of learning rates, instead of training" in page.text[None]
    assert f"--lr {proposed}." in page.text["reading"] and "smoothed" in page.text["curves"]
    assert page.source.count("<svg") == 1
    (folder / "rates.json").write_text("{")
    write_report(folder)
    assert "rates.json: damaged" in page_of(folder).text["curves"]
    (folder / "rates.json").unlink()
    write_report(folder)
    assert "The range test is not complete." in page_of(folder).text["reading"]


def test_training_that_diverges_leaves_a_report(train):
    status, folder = train("run", "--lr", "1e30")
    message = (folder / "error.txt").read_text().strip()
    assert status == 2 and "training has diverged" in message and message in page_of(folder).text["reading"]
    write_report(folder)
    assert message in page_of(folder).text["reading"]


# ---- the command


def test_command(run, capsys):
    assert main(["report", str(run)]) == 0
    *said, last = capsys.readouterr().out.splitlines()
    assert last == str(run / "report.html") and any(line.startswith("good: The first loss is") for line in said)
    page_of(run)


def test_command_with_data_that_moved(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    shutil.copy(config["dataset"]["path"], tmp_path / "moved.npz")
    config["dataset"]["path"] = "/nowhere/to/be/found"
    (run / "config.json").write_text(json.dumps(config))
    assert main(["report", str(run), "--data", str(tmp_path / "moved.npz")]) == 0
    assert "of 30 test images" in page_of(run).text["mistakes"]


@pytest.mark.parametrize(
    "options, message", [([], "no run in this folder"), (["--data", "/nowhere"], "does not exist")]
)
def test_refused(tmp_path, run, capsys, options, message):
    folder = run if options else tmp_path
    assert main(["report", str(folder), *options]) == 2
    assert message in capsys.readouterr().err


# ---- fine-tuning


def test_layers_that_are_learned_later_are_drawn_at_their_places(run):
    """The first record has one weight of the last alone, as where the head is learned at first."""
    file = run / "monitor.jsonl"
    first, *others = (json.loads(line) for line in file.read_text().splitlines())
    head = first["weights"][-1]
    drawn = report._plot_over_depth([first, others[-1]], "weights", "gradient_norm", "norm")
    assert len(first["weights"]) > 1
    first["weights"] = [head]
    alone = report._plot_over_depth([first, others[-1]], "weights", "gradient_norm", "norm")
    value = f"{head['gradient_norm']:.3g}"
    place = rf'<circle cx="([\d.]+)" [^>]*><title>[^<]*{re.escape(head["name"])}[^<]*{re.escape(value)}'
    assert re.search(place, alone)[1] == re.search(place, drawn)[1]
    file.write_text("".join(json.dumps(record) + "\n" for record in (first, *others)))
    write_report(run)
    page_of(run)


@pytest.mark.parametrize("head", ["keep", "linear"])
def test_a_head_that_was_trained_may_know_the_classes(run, head):
    config = json.loads((run / "config.json").read_text())
    config["options"] |= {"weights": "/some/run", "head": head}
    (run / "config.json").write_text(json.dumps(config))
    _, statements = write_report(run)
    assert ("first loss" in [statement.rule for statement in statements]) == (head == "linear")


def test_facts_name_the_head_beside_an_option_of_that_name(run):
    config = json.loads((run / "config.json").read_text())
    options = {"batch_norm": True, "head": "cifar", "width": 4}
    config["net"] = {"name": "vgg11", "options": options, "head": {"hidden": [6, 5], "drop": 0.25}}
    (run / "config.json").write_text(json.dumps(config))
    write_report(run)
    said = "vgg11 (batch norm, head cifar, width 4), with a head of 6 and 5 hidden neurons (drop 0.25)"
    assert said in page_of(run).text["reading"]


# ---- filters


def test_first_filters():
    net = nn.build("small_cnn", (3, 8, 8), 4, width=5)
    filters = report.first_filters(net, (3, 8, 8))
    assert filters.shape == (5, 3, 3, 3)
    assert_array_equal(filters[2, :, :, 1], net.layers[0].weight.data[2, 1])
    net = nn.build("mlp", (3, 4, 5), 4)
    assert_array_equal(
        report.first_filters(net, (3, 4, 5))[7, 2, 3], net.layers[1].weight.data.T[7].reshape(3, 4, 5)[:, 2, 3]
    )
    assert report.first_filters(nn.Sequential(nn.Linear(7, 3)), (3, 4, 5)) is None
    assert report.first_filters(nn.Sequential(nn.ReLU()), (3, 4, 5)) is None


def test_stretched():
    images = np.stack([np.linspace(-3, 5, 12).reshape(2, 2, 3), np.full((2, 2, 3), 7.0)])
    stretched = report._stretched(images)
    assert stretched.dtype == np.uint8 and stretched[0, 0, 0, 0] == 0 and stretched[0, -1, -1, -1] == 255
    assert (stretched[1] == 0).all()


@pytest.mark.parametrize("seconds, text", [(3.4, "3 s"), (75, "1 min 15 s"), (3725, "1 h 2 min"), (59.7, "1 min 0 s")])
def test_duration(seconds, text):
    assert report._duration(seconds) == text


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 500, 300), (2, 9, 9)])
def test_thumbnails_have_one_size(shape):
    size = re.search(r'width="(\d+)"', report._thumbnail(np.zeros(shape, np.uint8)))
    assert 75 <= int(size.group(1)) <= 150
