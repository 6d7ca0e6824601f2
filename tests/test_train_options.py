"""What the options of `fastcnn train` stand for, on the command line and in files."""

import json
import re
import shutil
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import TESTS
from numpy.testing import assert_allclose, assert_array_equal
from train_support import digest, images, metrics_of, save

from fastcnn import cli, data, layers, nn, optim
from fastcnn.cli import main
from fastcnn.train import load_run, progress, recipe
from fastcnn.train.evaluation import checkpoints

PROJECT = TESTS.parent


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save(tmp_path_factory.mktemp("data") / "toy.npz")


@pytest.fixture
def train(toy, tmp_path):
    """train(name, *options) -> folder of a short run that must succeed."""

    def run(name, *options, path=toy):
        folder = tmp_path / name
        quick = ["--epochs", "2", "--batch-size", "16", "--no-progress"]
        assert main(["train", "--data", str(path), *quick, "--out", str(folder), *map(str, options)]) == 0
        return folder

    return run


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_names_of_the_command_line():
    """Which is quick to show its help, and thus imports none of these."""
    assert set(cli.options.NETWORKS) == set(nn.NETWORKS)
    assert cli.options.PREPROCESSING == tuple(data.PREPROCESSING)
    assert cli.train.OPTIMIZERS == tuple(recipe.RATES)
    assert all(f"{name}[=" in cli.train.AUGMENT for name in recipe.TRANSFORMS)
    arguments = cli.parse(["train"])
    assert recipe.schedule(arguments.schedule, arguments.epochs, arguments.warm_up) is optim.SCHEDULES["cosine"]


# ---- augmentation


def test_transforms():
    made = recipe.transforms("mixup=0.3,flip,scale=0.9:1.1,color=0.1:0.2,crop=2,cutout,noise", 3)
    kinds = [type(transform).__name__ for transform in made]
    assert kinds == ["RandomFlip", "Scale", "PadAndCrop", "ColorJitter", "Noise", "Cutout", "Mixup"]
    by_kind = dict(zip(kinds, made, strict=True))
    assert (by_kind["Mixup"].alpha, by_kind["Mixup"].classes) == (0.3, 3)
    assert (by_kind["Scale"].lowest, by_kind["Scale"].highest) == (0.9, 1.1)
    assert by_kind["ColorJitter"].amounts == [0.1, 0.2, 0.0] and by_kind["RandomFlip"].p == 0.5
    assert by_kind["PadAndCrop"].pad == 2 and by_kind["Cutout"].size == (8, 8)
    x, y = images(6, 0)
    x, y = data.Compose(made, dtype=np.float32)(x[:, None], y)
    assert x.shape == (6, 1, 8, 9) and y.shape == (6, 3)
    for name in recipe.TRANSFORMS:  # with the numbers that are usual
        assert len(recipe.transforms(name, 3)) == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("flop", "expected some of flip, crop, .*, got 'flop'"),
        ("", "got ''"),
        ("flip,flip=0.2", "flip stands there twice"),
        ("scale=0.9:1.1:1.2", "at most 2 numbers for scale, got 'scale=0.9:1.1:1.2'"),
        ("scale=a", "expected numbers such as scale=0.8:1.25, got 'scale=a'"),
        ("crop=1.5", "expected a whole number for crop, got 1.5"),
        ("crop=nan", "expected a whole number for crop, got nan"),
        ("cutout=inf", "expected a whole number for cutout, got inf"),
        ("flip=2", "p: expected"),
    ],
)
def test_transforms_refuse(text, message):
    with pytest.raises(ValueError, match=message):
        recipe.transforms(text, 3)


# ---- nets, optimizers, schedules


def test_networks():
    assert recipe.network("small_cnn", (1, 8, 9), {"width": 3, "drop": None}) == {
        "name": "small_cnn", "options": {"width": 3, "drop": 0.3},
    }  # fmt: skip
    described = recipe.network("mlp", (1, 8, 9), {"width": None}, ["hidden=[7,6]", "batch_norm=true", "drop=0.5"])
    assert described["options"] == {"hidden": [7, 6], "batch_norm": True, "drop": 0.5}
    assert recipe.network("vgg11", (3, 32, 32), {}, ["head=imagenet"])["options"]["head"] == "imagenet"
    with pytest.raises(ValueError, match="lenet has no option 'width'"):
        recipe.network("lenet", (1, 28, 28), {"width": 3})
    with pytest.raises(ValueError, match="--net-option: expected key=value, got 'hidden'"):
        recipe.network("mlp", (1, 8, 9), {}, ["hidden"])


@pytest.mark.parametrize(
    "name, kind",
    [
        ("sgd", optim.SGD),
        ("momentum", optim.SGD),
        ("nesterov", optim.SGD),
        ("adagrad", optim.Adagrad),
        ("rmsprop", optim.RMSProp),
        ("adam", optim.Adam),
        ("adamw", optim.AdamW),
    ],
)
def test_optimizers(name, kind):
    flat = nn.FlatParameters(nn.small_cnn((1, 8, 8), 3, 2))
    made = recipe.optimizer(name, flat, 0.02, weight_decay=0.1, l1=0.2, clip_norm=3.0)
    assert type(made) is kind and (made.lr, made.weight_decay, made.l1, made.clip_norm) == (0.02, 0.1, 0.2, 3)
    if kind is optim.SGD:
        assert (made.momentum, made.nesterov) == (0.0 if name == "sgd" else 0.9, name == "nesterov")
    if name in ("momentum", "nesterov"):
        assert recipe.optimizer(name, flat, 0.02, 0.5).momentum == 0.5
    else:
        with pytest.raises(ValueError, match=f"--momentum: the optimizer {name} has none"):
            recipe.optimizer(name, flat, 0.02, 0.5)


def test_vectors_need_not_decay():
    """Without gradients the weights alone shrink."""
    net = nn.small_cnn((1, 8, 8), 3, 2)
    made = recipe.optimizer("sgd", nn.FlatParameters(net), 0.5, decay_vectors=False, weight_decay=0.5, l1=0.0)
    before = {name: np.copy(parameter.data) for name, parameter in net.named_parameters()}
    made.step()
    for name, parameter in net.named_parameters():
        assert_array_equal(parameter.data, before[name] * (1 if parameter.data.ndim == 1 else np.float32(0.75)))


# ---- whole runs


@pytest.mark.parametrize(
    "options, net",
    [
        (["--net", "mlp", "--net-option", "hidden=[5]", "--drop", 0.1], dict(hidden=[5], batch_norm=False, drop=0.1)),
        (["--net", "resnet20", "--width", 2, "--optimizer", "adam", "--augment", "flip,crop=1"], dict(width=2)),
        (["--width", 2, "--loss", "hinge", "--optimizer", "sgd", "--no-decay-vectors"], dict(width=2, drop=0.3)),
        (["--width", 2, "--preprocess", "StandardizeEach", "--label-smoothing", 0.2], dict(width=2, drop=0.3)),
        (["--augment", "mixup", "--prefetch", 0, "--l1", 1e-4, "--clip-norm", 1], dict(width=24, drop=0.3)),
        (["--width", 2, "--clip-value", 0.05], dict(width=2, drop=0.3)),
    ],
)  # fmt: skip
def test_runs(train, options, net):
    """Of any net by any rule; what is left says enough to build it again."""
    folder = train("run", *options)
    run = load_run(folder)
    assert run.config["net"]["options"] == net and len(run.metrics) == 2
    limit = run.config["optimizer"]["clip_value"]
    assert limit == run.config["options"]["clip_value"] == (0.05 if "--clip-value" in options else None)
    assert run.config["options"]["lr"] == run.config["optimizer"]["lr"] == (1e-3 if "adam" in options else 0.01)
    before = digest(folder)
    assert main(["train", "--resume", str(folder)]) == 0 and digest(folder) == before


def test_evaluation_is_by_the_plain_loss(train, toy):
    """Hinge loss where that is learned, and no smoothing of labels."""
    dataset = data.load(toy)
    for options, loss in ((["--loss", "hinge"], layers.svm_loss), (["--label-smoothing", 0.3], layers.softmax_loss)):
        folder = train(str(options[1]), "--width", 2, *options)
        run = load_run(folder)
        scores = run.net(run.preprocess.apply(dataset.x_test))
        assert_allclose(run.metrics[-1].eval_loss, loss(scores, dataset.y_test)[0], rtol=1e-6)


def test_prefetching_changes_nothing(train):
    """By default batches are made ahead where images are augmented."""
    options = ["--width", 2, "--augment", "flip,rotate=20,mixup"]
    assert digest(train("default", *options)) == digest(train("none", *options, "--prefetch", 0))


def test_keep_checkpoints(train):
    folder = train("run", "--width", 2, "--epochs", 4, "--keep-checkpoints", 2)
    kept = sorted(file.name for file in folder.glob("weights-*"))
    assert kept == ["weights-epoch-003.safetensors", "weights-epoch-004.safetensors"]
    assert (folder / kept[1]).read_bytes() == (folder / "weights.safetensors").read_bytes()
    assert (folder / kept[0]).read_bytes() != (folder / kept[1]).read_bytes()


def test_checkpoints_come_in_the_order_of_their_epochs(train):
    folder = train("run", "--epochs", 1)
    for epoch in (999, 1000, 1001, 7):
        shutil.copy(folder / "weights.safetensors", folder / f"weights-epoch-{epoch:03d}.safetensors")
    run = load_run(folder)
    names = [file.name for file, _ in checkpoints(run, 3)]
    assert names == [f"weights-epoch-{epoch}.safetensors" for epoch in (999, 1000, 1001)]


def test_bootstrap(train, toy):
    """The training images are drawn by the seed; what is held out before is not among them."""
    drawn = train("drawn", "--bootstrap", "--seed", 3, "--validation", 0.2)
    dataset, *_ = data.load(toy).split_validation(0.2, 3)
    expected = data.Standardize.fit(dataset.bootstrap(3).x_train).mean
    assert_array_equal(load_run(drawn).preprocess.mean, expected)
    assert config_of(drawn)["dataset"]["training_images"] == len(dataset.x_train)
    assert digest(drawn) != digest(train("whole", "--seed", 3, "--validation", 0.2))
    assert main(["train", "--resume", str(drawn), "--no-progress"]) == 0


def test_early_stopping(train, capsys):
    folder = train(
        "run", "--width", 2, "--epochs", 30, "--lr", 0.3, "--patience", 2, "--validation", 0.3, "--keep-checkpoints", 9
    )
    out, metrics = capsys.readouterr().out, metrics_of(folder)
    best = min(metrics, key=lambda epoch: epoch["eval_loss"])["epoch"]
    assert len(metrics) == best + 2 < 30
    assert f"best validation loss after epoch {best} of {best + 2} (stopped early)" in out
    of_best = folder / f"weights-epoch-{best:03d}.safetensors"
    assert (folder / "weights.safetensors").read_bytes() == of_best.read_bytes()


def test_tensorboard(train):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    folder = train("run", "--width", 2, "--tensorboard", "--seed", 3)
    assert main(["train", "--resume", str(folder)]) == 0  # of which there is nothing to write
    (file,) = folder.glob("events.out.tfevents.*")
    content, found, at = file.read_bytes(), {}, 0
    while at < len(content):  # records: length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", content[at : at + 8])
        event = Event.FromString(content[at + 12 : at + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += 16 + length
    for epoch in metrics_of(folder):
        for tag, name in (
            ("loss/training", "train_loss"), ("accuracy/training", "train_accuracy"), ("loss/evaluation", "eval_loss"),
            ("accuracy/evaluation", "eval_accuracy"), ("learning_rate", "lr"),
            ("images_per_second", "images_per_second"),
        ):  # fmt: skip
            assert_allclose(found.pop((tag, epoch["epoch"])), epoch[name], rtol=1e-6)
    assert not found


def test_images_that_cannot_be_decoded(train, tmp_path, capsys):
    from PIL import Image

    for i, (image, label) in enumerate(zip(*images(24, 0), strict=True)):
        file = tmp_path / "images" / f"class{label}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    bad = tmp_path / "images" / "class1" / "bad.png"
    bad.write_bytes(b"no image")
    assert main(["train", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "refused")]) == 2
    assert f"fastcnn train: {bad}: cannot be decoded" in capsys.readouterr().err
    folder = train("run", "--width", 2, "--on-bad-image", "skip", path=tmp_path / "images")
    assert capsys.readouterr().err.startswith(f"fastcnn: {bad} is skipped: cannot be decoded")
    described = config_of(folder)["dataset"]
    assert described["training_images"] + described["test_images"] == 24


def test_an_estimate_of_the_time(train, monkeypatch, capsys):
    monkeypatch.setattr(progress.Lines, "SECONDS", 0)
    train("run", "--width", 2)
    out = capsys.readouterr().out
    assert re.findall(r"^step (\d) of epoch (\d)   \d:\d\d:\d\d left$", out, re.M) == [("2", "1")]


def test_time_that_is_left_is_never_none():
    assert [progress._left(seconds) for seconds in (0.2, 59.9, 61.0, 0)] == [
        "   0:00:01 left", "   0:01:00 left", "   0:01:01 left", "",
    ]  # fmt: skip


def test_options_that_a_run_does_not_know_are_those_by_default(train, monkeypatch):
    """As of a run that began before there was the option; what the command line has is compared with that."""
    folder = train("run", "--width", 2)
    config = config_of(folder)
    del config["options"]["schedule"]
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", str(folder), "--schedule", "constant"]) == 2
    assert main(["train", "--resume", str(folder)]) == 0
    assert config_of(folder)["options"]["schedule"] == "cosine"


def test_the_readme(tmp_path, monkeypatch, capsys):
    """Its training in Python, on a few of the images and for fewer epochs; twice, as it goes on from its checkpoint."""
    text = (PROJECT / "README.md").read_text().split("## Training")[1]
    code = text.split("```python")[1].split("```")[0].replace("epochs=20", "epochs=2")
    dataset = data.load_fashion_mnist()
    few = replace(dataset, x_train=dataset.x_train[:400], y_train=dataset.y_train[:400])
    monkeypatch.setattr(data, "load_fashion_mnist", lambda: few)
    monkeypatch.chdir(tmp_path)
    for lines in (2, 0):
        exec(code, {})
        assert len(re.findall("^epoch ./2 .*validation loss", capsys.readouterr().out, re.M)) == lines


@pytest.mark.parametrize(
    "options, message",
    [
        (["--patience", "3"], "--patience: needs --validation FRACTION"),
        (["--best-by", "accuracy", "--validation", "0.2"], "--best-by: needs --patience EPOCHS"),
        (
            ["--net", "mlp", "--net-option", "hidden=500"],
            "--net-option hidden: expected a list of whole numbers, as in [500,100], got '500'",
        ),
        (["--net", "mlp", "--net-option", "hidden=abc"], "--net-option hidden: expected a list"),
        (["--net", "mlp", "--net-option", "hidden=[5,0]"], "--net-option hidden: expected a list"),
        (
            ["--net", "mlp", "--net-option", "batch_norm=maybe"],
            "--net-option batch_norm: expected true or false, got 'maybe'",
        ),
        (["--net-option", "width=2.5"], "--net-option width: expected a whole number of at least 1, got '2.5'"),
        (["--net-option", "width=true"], "--net-option width: expected a whole number of at least 1, got 'true'"),
        (["--net-option", "drop=half"], "--net-option drop: expected a number, got 'half'"),
        (["--net", "vgg11", "--net-option", "head=3"], "--net-option head: expected a word, got '3'"),
        (["--net", "lenet", "--width", "3"], "lenet has no option 'width'"),
        (["--net", "lenet"], "expected images of at least 12 x 12, got 8 x 9"),
        (["--net-option", "size=3"], "small_cnn has no option 'size'"),
        (["--augment", "flop"], "--augment: expected some of"),
        (["--augment", "color=0.1:0.1:0.5"], "images of one channel have neither saturation nor hue"),
        (["--loss", "hinge", "--augment", "mixup"], "--loss hinge: has no soft labels"),
        (["--loss", "hinge", "--label-smoothing", "0.1"], "label_smoothing: the loss 'hinge' has none"),
        (["--label-smoothing", "2"], "label_smoothing: expected"),
        (["--optimizer", "adam", "--momentum", "0.5"], "--momentum: the optimizer adam has none"),
        (["--clip-norm", "0"], "clip_norm: expected"),
        (["--clip-value", "0"], "clip_value: expected"),
        (["--l1", "-1"], "l1: expected"),
    ],
)
def test_refused(toy, tmp_path, capsys, options, message):
    assert main(["train", "--data", str(toy), "--no-progress", "--out", str(tmp_path / "run"), *options]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("fastcnn train: ") and message in err
    if "color" not in options[1]:  # which shows in the first batch
        assert out == "" and not (tmp_path / "run").exists()


# ---- files

TOML = """
epochs = 3
no-progress = true
tensorboard = false

[net]
net = "mlp"
net-option = { hidden = [6, 5], batch_norm = true }

[learning]
lr = 1e-2
batch_size = 16
augment = ["flip", "crop=1"]
optimizer = "adam"
"""
YAML = """
epochs: 3
no-progress: yes
tensorboard: off
net: {net: mlp, net-option: ["hidden=[6, 5]", batch_norm=true]}
learning:
  lr: 1e-2
  batch_size: 16
  augment: flip,crop=1
  optimizer: adam
  clip-norm: ~
"""


def test_files_of_options(toy, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "a.toml").write_text(TOML)
    (tmp_path / "b.yaml").write_text(YAML)
    plain = [
        "train", "--epochs", "3", "--no-progress", "--net", "mlp", "--net-option", "hidden=[6, 5]", "--net-option",
        "batch_norm=true", "--lr", "0.01", "--batch-size", "16", "--augment", "flip,crop=1", "--optimizer", "adam",
    ]  # fmt: skip
    expected = vars(cli.parse(plain))
    for name in ("a.toml", "b.yaml"):
        found = vars(cli.parse(["train", "--config", str(tmp_path / name)]))
        assert found.pop("config") == str(tmp_path / name) and found.pop("given").keys() >= {"epochs", "augment"}
        assert found == {k: v for k, v in expected.items() if k not in ("config", "given")}
    for options in (["--epochs", "5", "--config"], ["--epochs=5", "--config"]):  # the command line wins
        assert cli.parse(["train", *options, str(tmp_path / "a.toml")]).epochs == 5
    assert cli.parse(["train", f"--config={tmp_path / 'a.toml'}", "--epochs", "5"]).epochs == 5


def test_a_run_again_from_its_own_settings(train, tmp_path):
    first = train("first", "--width", 3, "--augment", "flip", "--seed", 5, "--validation", 0.2)
    assert main(["train", "--config", str(first / "config.json"), "--out", str(tmp_path / "again")]) == 0
    assert digest(tmp_path / "again") == digest(first)


def test_what_is_of_one_run_alone_is_not_of_the_next(tmp_path):
    options = {"out": "here", "weights": "/there", "resume": "here", "epochs": 3}
    (tmp_path / "config.json").write_text(json.dumps({"net": {}, "options": options}))
    assert cli.parse(["train", "--config", str(tmp_path / "config.json")]).given.keys() == {"config", "epochs"}
    arguments = cli.parse(["finetune", "weights", "--config", str(tmp_path / "config.json")])
    assert arguments.weights.endswith("weights") and arguments.out is None and arguments.epochs == 3


@pytest.mark.parametrize("suffix", ["toml", "yaml", "json"])
def test_files_are_utf_8(tmp_path, capsys, suffix):
    pytest.importorskip("yaml")
    file = tmp_path / f"a.{suffix}"
    text = {"toml": 'data = "\N{SNOWMAN}"', "yaml": "data: \N{SNOWMAN}", "json": '{"data": "\N{SNOWMAN}"}'}[suffix]
    file.write_bytes(text.encode())
    assert cli.parse(["train", "--config", str(file)]).data == "\N{SNOWMAN}"
    file.write_bytes(text.encode("utf-16"))
    assert main(["train", "--config", str(file)]) == 2
    assert f"fastcnn train: {file}: 'utf-8' codec" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.toml", "epoch = 3", "train has no option 'epoch' for a file; did you mean 'epochs'?"),
        ("a.toml", "[part]\nresume = 'x'", "train has no option 'resume' for a file"),
        ("a.toml", "zzz = 3", "train has no option 'zzz' for a file\n"),
        ("a.toml", "epochs = ", "a.toml: "),
        ("a.toml", "epochs = 0", "a.toml: argument --epochs: expected a whole number of at least 1, got '0'"),
        ("a.toml", "net = 'cnn'", "a.toml: argument --net: invalid choice: 'cnn'"),
        ("a.toml", "tensorboard = 1", "tensorboard: expected true or false, got 1"),
        ("a.toml", "data = true", "a.toml: data: expected a value of its own, not true"),
        ("a.yaml", "epochs: off", "a.yaml: epochs: expected a value of its own, not false"),
        ("a.toml", "validation = 1.5", "argument --validation: expected a number of at least 0 and below 1, got '1.5'"),
        ("a.toml", "image-size = [1, 2, 3]", "a.toml: "),
        ("a.yaml", "epochs: [", "a.yaml: not readable as YAML"),
        ("a.yaml", "- epochs", "a.yaml: expected names with values, got list"),
        ("a.json", "{", "a.json: "),
        ("a.ini", "", "a.ini: expected a file whose name ends with .toml, .yaml, .yml or .json"),
        (None, None, "No such file"),
    ],
)
def test_files_that_are_refused(tmp_path, capsys, name, text, message):
    file = tmp_path / (name or "missing.toml")
    if name:
        file.write_text(text)
    assert main(["train", "--config", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fastcnn train: ") and message in err


@pytest.mark.parametrize("module, suffix, package", [("yaml", ".yaml", "PyYAML"), ("tomllib", ".toml", "tomli")])
def test_missing_libraries(tmp_path, capsys, monkeypatch, module, suffix, package):
    for name in (module, "tomli"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / f"a{suffix}").write_text("")
    assert main(["train", "--config", str(tmp_path / f"a{suffix}")]) == 2
    message = f"fastcnn train: {package} is not installed; install it with: pip install 'fastcnn[train]'\n"
    assert capsys.readouterr().err == message
