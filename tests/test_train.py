"""`fastcnn train` and the loop behind it, on small synthetic data; one run on the images that ship with the package."""

import functools
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from train_support import FILES, QUICK, digest, images, metrics_of, save, weights_of, without_times

import fastcnn
from fastcnn import cli, data, layers, nn, optim
from fastcnn.cli import main
from fastcnn.train import Callback, Trainer, command, evaluate, load_run, range_test
from fastcnn.train.extras import need


@pytest.fixture
def toy(tmp_path):
    """The path of a small data set."""
    return save(tmp_path / "toy.npz")


@pytest.fixture
def train(toy, tmp_path):
    """train(name, *options) -> folder of a short run that must succeed; options win over those of a quick run."""

    def run(name, *options, path=toy):
        folder = tmp_path / name
        assert main(["train", "--data", str(path), *QUICK, "--out", str(folder), *map(str, options)]) == 0
        return folder

    return run


@pytest.fixture(autouse=True)
def threads():
    """`--threads` is for the process: put it back."""
    before = fastcnn.get_num_threads()
    yield
    fastcnn.set_num_threads(before)


def restored(folder, shape, classes, width, dtype=np.float32):
    """The net and the preprocessing that a run left."""
    tensors = weights_of(folder)
    state = {k.removeprefix("preprocess."): tensors.pop(k) for k in list(tensors) if k.startswith("preprocess.")}
    net = nn.small_cnn(shape, classes, width, dtype=dtype)
    net.load_state_dict(tensors)
    return net, data.Standardize.from_state(state)


# ---- a run and what it leaves behind


def test_run_folder(train, toy, capsys):
    folder = train("run", "--epochs", 3, "--seed", 4)
    assert {file.name for file in folder.iterdir()} == FILES
    dataset = data.load(toy)

    config = json.loads((folder / "config.json").read_text())
    assert config["fastcnn"] == fastcnn.__version__ and config["numpy"] == np.__version__
    assert config["dataset"]["training_images"] == 70 and config["dataset"]["image_shape"] == [1, 8, 9]
    assert config["options"]["epochs"] == 3 and config["options"]["seed"] == 4 and config["options"]["lr"] == 0.01
    assert config["parameters"] == sum(
        value.size for name, value in weights_of(folder).items() if "running" not in name and "preprocess" not in name
    )

    metrics = metrics_of(folder)
    assert [epoch["epoch"] for epoch in metrics] == [1, 2, 3] and all(epoch["steps"] == 5 for epoch in metrics)
    rates = [0.01 * optim.SCHEDULES["cosine"]((epoch + 4 / 5) / 3) for epoch in range(3)]
    assert_allclose([epoch["lr"] for epoch in metrics], rates)
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]
    for epoch in metrics:
        assert 0 <= epoch["train_accuracy"] <= 1 and 0 <= epoch["eval_accuracy"] <= 1
        assert_allclose(epoch["images_per_second"] * epoch["seconds"], 70)

    net, preprocess = restored(folder, (1, 8, 9), 3, 2)
    assert_array_equal(preprocess.mean, data.Standardize.fit(dataset.x_train).mean)
    assert_array_equal(preprocess.std, data.Standardize.fit(dataset.x_train).std)
    loss, accuracy = evaluate(net, dataset.x_test, dataset.y_test, preprocess)
    assert (loss, accuracy) == (metrics[-1]["eval_loss"], metrics[-1]["eval_accuracy"])

    out = capsys.readouterr().out
    assert "70 training and 30 test images of 1 x 8 x 9, 3 classes" in out and str(folder) in out
    assert len(re.findall(r"epoch \d/3 .*loss .*accuracy .*test accuracy .*images/s", out)) == 3
    assert f"test accuracy {accuracy:.2%}" in out and all(file in out for file in FILES)


def test_load_run(train, toy, tmp_path):
    dataset = data.load(toy)
    for dtype in ("float32", "float64"):
        folder = train(dtype, "--dtype", dtype, "--width", 3, "--drop", 0.1, "--seed", 7)
        run = load_run(str(folder))
        assert run.path == folder and run.config == json.loads((folder / "config.json").read_text())
        assert run.config["net"] == {"name": "small_cnn", "options": {"width": 3, "drop": 0.1}}
        assert run.config["preprocess"] == {"name": "Standardize"} and run.config["dataset"]["path"] == str(toy)
        assert run.config["optimizer"]["momentum"] == 0.9
        assert run.class_names == dataset.class_names and run.image_shape == (1, 8, 9) and run.dtype == dtype
        assert [metrics.as_dict() for metrics in run.metrics] == metrics_of(folder)
        assert not run.net.training
        found = evaluate(run.net, dataset.x_test, dataset.y_test, run.preprocess, run.dtype.type)
        assert found == (run.metrics[-1].eval_loss, run.metrics[-1].eval_accuracy)


def edit_config(change):
    def edit(folder):
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def cut(name):
    def damage(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])

    return damage


@pytest.mark.parametrize(
    "damage, error, message",
    [
        (lambda folder: folder.rename(folder.with_name("moved")), FileNotFoundError, "run: there is no such folder"),
        (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, r"there is no run in .* \(no config"),
        (lambda folder: (folder / "weights.safetensors").unlink(), FileNotFoundError, "weights.* does not exist"),
        (cut("config.json"), ValueError, "config.json: damaged"),
        (cut("metrics.jsonl"), ValueError, "metrics.jsonl: damaged"),
        (cut("weights.safetensors"), ValueError, "weights.safetensors: damaged, or no .safetensors file"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b""), ValueError, "weights.safetensors: damaged"),
        (lambda folder: (folder / "config.json").write_text("[]"), ValueError, "config.json: damaged"),
        (edit_config(lambda c: c.pop("net")), ValueError, "config.json: 'net' is missing"),
        (edit_config(lambda c: c["net"]["options"].update(width=3)), ValueError, "together: .*expected shape"),
        (edit_config(lambda c: c["net"].update(name="lenet", options={})), ValueError, "not belong together"),
        (edit_config(lambda c: c["net"].update(name="cnn")), ValueError, "no network 'cnn'"),
        (edit_config(lambda c: c["preprocess"].update(name="Fourier")), ValueError, "no preprocessing 'Fourier'"),
    ],
)  # fmt: skip
def test_load_run_refuses(train, damage, error, message):
    folder = train("run", "--epochs", 1)
    damage(folder)
    with pytest.raises(error, match=message):
        load_run(folder)


def test_curves_are_a_picture(train):
    from PIL import Image

    with Image.open(train("run") / "curves.png") as picture:
        assert picture.format == "PNG" and picture.width >= 800 and picture.height >= 300
        pixels = np.asarray(picture.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_it_learns(train):
    assert metrics_of(train("run", "--epochs", 10, "--width", 8))[-1]["eval_accuracy"] > 0.9


def test_schedules_of_the_command_line(train, monkeypatch):
    assert cli.train.SCHEDULES == tuple(optim.SCHEDULES)
    rates, step = [], optim.SGD.step
    monkeypatch.setattr(optim.SGD, "step", lambda self: (rates.append(self.lr), step(self))[1])
    train("run", "--epochs", 4, "--warm-up", 2, "--schedule", "linear")  # of 5 steps
    assert_allclose(rates, 0.01 * np.concatenate([np.arange(10) / 10, 1 - np.arange(10) / 10]), atol=1e-12)


def test_range_test_of_the_command_line(train, capsys):
    folder = train("run", "--find-lr", "--width", 4)
    assert {file.name for file in folder.iterdir()} == {"config.json", "rates.json", "rates.png"}
    found = json.loads((folder / "rates.json").read_text())
    assert len(found["rates"]) == len(found["losses"]) == len(found["smoothed"])
    assert f"--lr {found['high']:.2g}\n" in capsys.readouterr().out
    assert (folder / "rates.png").read_bytes().startswith(b"\x89PNG")


def test_progress_bar(toy, tmp_path, monkeypatch, capsys):
    tqdm = functools.partial(need("tqdm").tqdm, mininterval=0, miniters=1)
    tqdm.write = need("tqdm").tqdm.write
    monkeypatch.setattr(command, "need", lambda module: SimpleNamespace(tqdm=tqdm))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    options = [option for option in QUICK if option != "--no-progress"]
    assert main(["train", "--data", str(toy), *options, "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    bars = re.split(r"[\r\n]+", err)
    assert (
        any(re.search(r"epochs: .*1/2 .*epoch", bar) for bar in bars) and len(re.findall("^epoch ./2", out, re.M)) == 2
    )
    for epoch in (1, 2):
        assert any(
            re.search(rf"epoch {epoch}/2: .*70/70 .*images/s, loss \d+\.\d+, accuracy \d+\.\d%", bar) for bar in bars
        )


def test_default_run_folder(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", str(toy), *QUICK]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-toy", folder.name) and {file.name for file in folder.iterdir()} == FILES


def test_shipped_images(tmp_path, capsys):
    """Two epochs; the full ten take a net to about 90 %."""
    folder = tmp_path / "run"
    assert main(["train", "--epochs", "2", "--width", "16", "--no-progress", "--out", str(folder)]) == 0
    assert metrics_of(folder)[-1]["eval_accuracy"] > 0.8
    assert "fashion-mnist-10k: 8000 training and 2000 test images of 1 x 28 x 28, 10 classes" in capsys.readouterr().out


# ---- the same seed, the same result


def test_same_seed_same_result(train):
    first, again, other = train("first"), train("again"), train("other", "--seed", 1)
    assert digest(first) == digest(again) != digest(other)
    assert without_times(metrics_of(first)) == without_times(metrics_of(again))
    first, other = weights_of(first), weights_of(other)
    assert not (first["0.weight"] == other["0.weight"]).any()


def test_results_do_not_depend_on_threads(tmp_path, run_python):
    # Larger than the toy set: what is to be shared among threads must be worth it.
    path = save(tmp_path / "set.npz", 80, 20, shape=(20, 17))
    code = f"""
        import hashlib, pathlib
        from fastcnn.cli import main

        for threads in "1234":
            folder = pathlib.Path({str(tmp_path)!r}) / threads
            options = ["--epochs", "2", "--width", "12", "--batch-size", "32", "--no-progress", "--threads", threads]
            assert main(["train", "--data", {str(path)!r}, "--out", str(folder), *options]) == 0
    """
    run_python(code, NUMBA_NUM_THREADS=4)
    folders = [tmp_path / threads for threads in "1234"]
    assert len({digest(folder) for folder in folders}) == 1
    assert all(without_times(metrics_of(f)) == without_times(metrics_of(folders[0])) for f in folders)


def test_the_reference_trains_alike(train):
    backend = fastcnn.get_backend()
    double = train("cpu", "--dtype", "float64")
    reference = train("reference", "--dtype", "float64", "--backend", "reference")
    assert fastcnn.get_backend() == backend
    for name, value in weights_of(reference).items():
        assert value.dtype == np.float64
        assert_allclose(weights_of(double)[name], value, rtol=1e-8, atol=1e-10, err_msg=name)
    for name, value in weights_of(train("single")).items():
        assert value.dtype == (np.float64 if name.startswith("preprocess.") else np.float32)


# ---- the loop


def trainer(epochs=2, drop=0.3, dtype=np.float64, lr=0.05, n=50, batch_size=16):
    x, y = images(n, 0)
    x = x[:, None]
    net = nn.small_cnn(x.shape[1:], 3, 2, drop, seed=6, dtype=dtype)
    optimizer = optim.SGD(nn.FlatParameters(net), lr, 0.9, nesterov=True, weight_decay=1e-3)
    batches = data.Batches(x, y, batch_size, seed=6)
    return Trainer(net, optimizer, batches, data.Standardize.fit(x), optim.SCHEDULES["linear"], epochs, dtype)


def test_trainer_does_what_the_loop_says():
    ours, seen = trainer(), []

    class Averages(Callback):
        def after_step(self, trainer, step, loss):
            seen.append(trainer.averages)

    ours.callbacks = [Averages()]
    metrics = ours.fit()

    by_hand, losses, hits, expected = trainer(), [], [], []
    net, optimizer = by_hand.net, by_hand.optimizer
    for epoch in range(2):
        losses, hits = [], []
        for step, (x, y) in enumerate(by_hand.batches.epoch(epoch)):
            optimizer.lr = 0.05 * (1 - (epoch + step / 4) / 2)
            scores = net(by_hand.preprocess.apply(x, np.float64))
            loss, dscores = layers.softmax_loss(scores, y)
            net.backward(dscores)
            optimizer.step()
            losses += [loss] * len(x)
            hits += list(scores.argmax(axis=1) == y)
            expected.append((np.mean(losses), np.mean(hits), len(hits)))
        assert_allclose(metrics[epoch].train_loss, np.mean(losses))
        assert_allclose(metrics[epoch].train_accuracy, np.mean(hits))
        assert metrics[epoch].eval_loss is None and metrics[epoch].eval_accuracy is None
        assert (metrics[epoch].epoch, metrics[epoch].steps, metrics[epoch].lr) == (epoch + 1, 4, optimizer.lr)
    assert_allclose(seen, expected)
    for name, value in net.state_dict().items():
        assert_array_equal(ours.net.state_dict()[name], value)


def test_optimizers_that_do_not_update_the_net_are_refused():
    ours, other = trainer(), trainer()
    ours.optimizer = other.optimizer
    with pytest.raises(ValueError, match="^optimizer: expected one over this net's parameters .*not update 0.weight"):
        ours.fit()
    stale = trainer()
    nn.replace_head(stale.net, 3)
    head = list(stale.net.state_dict())[-2]
    with pytest.raises(ValueError, match=f"optimizer: .* it does not update {head}, which is not frozen"):
        stale.fit()
    stale.net.layers[-1].freeze()  # which then need not be updated
    assert len(stale.fit()) == 2


class Watcher(Callback):
    """Writes down what it is told, and looks at everything."""

    def __init__(self):
        self.events = []

    def on_start(self, trainer):
        self.events.append("start")

    def after_backward(self, trainer, step, x, y, loss):
        flat = trainer.optimizer.parameters
        self.events.append(("backward", trainer.epoch, step, len(x), len(y), float(loss), flat.data.copy()))
        assert flat.grad.any() and x.dtype == trainer.dtype

    def after_step(self, trainer, step, loss):
        *_, before = self.events[-1]
        moved = trainer.optimizer.parameters.data - before
        assert moved.any() and trainer.averages[2] == min(16 * (step + 1), 50)
        self.events.append(("step", trainer.epoch, step, loss))

    def after_epoch(self, trainer, metrics):
        assert trainer.metrics[-1] is metrics and metrics.epoch == trainer.epoch
        self.events.append("epoch")

    def on_stop(self, trainer):
        self.events.append("stop")


def test_callbacks():
    alone, watched, watcher = trainer(), trainer(), Watcher()
    watched.callbacks = (watcher,)
    assert without_times([m.as_dict() for m in alone.fit()]) == without_times([m.as_dict() for m in watched.fit()])
    for name, value in alone.net.state_dict().items():
        assert_array_equal(watched.net.state_dict()[name], value)
    kinds = [event if isinstance(event, str) else event[:4] for event in watcher.events]
    losses = [event[5] for event in watcher.events if event[0] == "backward"]
    epochs = [[(("backward", e, i, n), ("step", e, i)) for i, n in enumerate((16, 16, 16, 2))] for e in range(2)]
    flat = [[event for pair in epoch for event in pair] for epoch in epochs]
    assert [kind if isinstance(kind, str) or kind[0] == "backward" else kind[:3] for kind in kinds] == [
        "start", *flat[0], "epoch", *flat[1], "epoch", "stop",
    ]  # fmt: skip
    assert losses == [event[3] for event in watcher.events if event[0] == "step"]
    assert watched.fit() == watched.metrics and len(watched.metrics) == 2  # nothing is left to do


def test_callbacks_hear_of_the_end():
    class Fails(Watcher):
        def after_epoch(self, trainer, metrics):
            raise OSError("no disk")

    ours, watcher = trainer(), Fails()
    ours.callbacks = (watcher,)
    with pytest.raises(OSError, match="no disk"):
        ours.fit()
    assert watcher.events[-1] == "stop"


def test_augmented_batches_come_preprocessed():
    """Without any transform training is as before; and with soft labels a hit is one of the most likely class."""
    plain, prepared, mixed = trainer(), trainer(), trainer()
    prepared.batches.augment = data.Compose([], prepared.preprocess, dtype=np.float64)
    prepared.batches.prefetch = 2
    metrics, same = plain.run_epoch(), prepared.run_epoch()
    assert_allclose((same.train_loss, same.train_accuracy), (metrics.train_loss, metrics.train_accuracy), rtol=1e-9)
    transforms = [data.RandomFlip(), data.PadAndCrop(1), data.Mixup(1e-6, 3)]  # weights of 0 and 1
    mixed.batches.augment = data.Compose(transforms, mixed.preprocess, dtype=np.float64)
    mixed.batches.prefetch = 2
    accuracy = [mixed.run_epoch().train_accuracy for _ in range(2)][-1]
    assert_allclose(accuracy * 50, round(accuracy * 50))
    assert 0 < accuracy < 1


def test_range_test_touches_nothing():
    ours = trainer()
    ours.run_epoch()
    before = {name: value.tobytes() for name, value in ours.net.state_dict().items()}
    state = {name: np.copy(value) for name, value in ours.optimizer.state_dict().items()}
    lr, data, grad = ours.optimizer.lr, ours.optimizer.parameters.data, ours.optimizer.parameters.grad.copy()
    found = range_test(ours.net, ours.optimizer, ours.batches, ours.preprocess, 1e-5, 1e-2, 12, np.float64)
    assert {name: value.tobytes() for name, value in ours.net.state_dict().items()} == before
    assert all(np.array_equal(ours.optimizer.state_dict()[name], value) for name, value in state.items())
    assert ours.optimizer.lr == lr and ours.optimizer.parameters.data is data
    assert_array_equal(ours.optimizer.parameters.grad, grad)
    again = range_test(ours.net, ours.optimizer, ours.batches, ours.preprocess, 1e-5, 1e-2, 12, np.float64)
    assert again == found
    whole = trainer()
    whole.run_epoch()
    assert ours.run_epoch().train_loss == whole.run_epoch().train_loss


def test_range_test_does_what_the_loop_says():
    """Three epochs of four steps, whose rates rise by one factor; dropout goes on as it would."""
    ours, by_hand = trainer(), trainer()
    found = range_test(ours.net, ours.optimizer, ours.batches, ours.preprocess, 1e-4, 1e-2, 12, np.float64)
    losses, steps = [], [batch for epoch in range(3) for batch in by_hand.batches.epoch(epoch)]
    for i, (x, y) in enumerate(steps):
        by_hand.optimizer.lr = 1e-4 * 100 ** (i / 11)
        loss, dscores = layers.softmax_loss(by_hand.net(by_hand.preprocess.apply(x, np.float64)), y)
        by_hand.net.backward(dscores)
        by_hand.optimizer.step()
        losses.append(loss)
    assert_allclose(found.rates, 1e-4 * 100 ** (np.arange(12) / 11))
    assert_allclose(found.losses, losses)
    weights = 0.8 ** np.arange(12)
    assert_allclose(found.smoothed[0], weights @ losses / weights.sum())
    assert not found.diverged and 1e-4 <= found.low <= found.high <= 1e-2


class Bowl(nn.Module):
    """A weight that falls to 0 while the rate is below 1/2, and grows without bounds above; so does the loss."""

    def __init__(self):
        self.weight = nn.Parameter(np.full(1, 3.0))

    def forward(self, x):
        return np.tile([0.0, 1.0], (len(x), 1)) * abs(self.weight.data)

    def backward(self, dscores, need_dx=True):
        self.weight.grad[...] = self.weight.data * 4


@pytest.mark.parametrize("steps", [60, 150])
def test_bounds_of_a_range_test(steps):
    net = Bowl()
    batches = data.Batches(np.zeros((8, 1, 2, 2)), np.zeros(8, int), 4)
    optimizer = optim.SGD(nn.FlatParameters(net), 0.1)
    found = range_test(
        net, optimizer, batches, SimpleNamespace(apply=lambda x, dtype: x), 1e-4, 100, steps, dtype=np.float64
    )
    assert found.diverged and len(found.rates) < steps and found.rates[-1] > 0.5
    assert 1e-3 < found.low < found.high < 0.5


def test_range_test_refuses():
    ours = trainer()
    for options, message in (
        (dict(low=0), "low: expected"),
        (dict(low=1, high=0.1), "high: expected"),
        (dict(steps=9), "steps: expected"),
        (dict(low=1e3, high=1e6), "the loss falls at none of the learning rates"),
    ):
        with pytest.raises(ValueError, match=message):
            range_test(ours.net, ours.optimizer, ours.batches, ours.preprocess, dtype=np.float64, **options)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 256])
def test_evaluate(batch_size):
    t = trainer()
    t.run_epoch()
    x, y = images(30, 5)
    x = x[:, None]
    loss, accuracy = evaluate(t.net, x, y, t.preprocess, np.float64, batch_size)
    scores = t.net.eval()(t.preprocess.apply(x, np.float64))
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert_allclose(loss, -log_p[np.arange(30), y].mean())
    assert accuracy == np.mean(scores.argmax(axis=1) == y)


def test_evaluation_changes_no_training():
    """Neither the statistics, nor the order of dropout masks, nor the buffers that a step works in."""
    alone, watched = trainer(), trainer()
    x, y = images(300, 5)
    for _ in range(2):
        alone.run_epoch()
        watched.run_epoch((x[:, None], y))
    for name, value in alone.net.state_dict().items():
        assert_array_equal(watched.net.state_dict()[name], value)


# ---- data


def test_validation(train, toy, capsys):
    folder = train("run", "--validation", 0.2, "--seed", 3)
    split, x_val, y_val = data.load(toy).split_validation(0.2, 3)
    assert json.loads((folder / "config.json").read_text())["dataset"]["training_images"] == len(split.x_train) < 70
    net, preprocess = restored(folder, (1, 8, 9), 3, 2)
    assert_array_equal(preprocess.mean, data.Standardize.fit(split.x_train).mean)
    last = metrics_of(folder)[-1]
    assert evaluate(net, x_val, y_val, preprocess) == (last["eval_loss"], last["eval_accuracy"])
    _, accuracy = evaluate(net, split.x_test, split.y_test, preprocess)
    out = capsys.readouterr().out
    assert "validation accuracy" in out and f"\ntest accuracy {accuracy:.2%}" in out


def test_without_test_images(train, tmp_path, capsys):
    path = save(tmp_path / "no-test.npz", n_test=0)
    arguments = ["train", "--data", str(path), *QUICK, "--out", str(tmp_path / "refused")]
    assert main(arguments) == 2
    assert "no test images; give --validation" in capsys.readouterr().err
    assert {file.name for file in train("run", "--validation", 0.2, path=path).iterdir()} == FILES


def write_idx(folder, part, x, y):
    for kind, array in (("images-idx3", x), ("labels-idx1", y)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"{part}-{kind}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def idx(tmp_path):
    folder = tmp_path / "idx"
    folder.mkdir()
    write_idx(folder, "train", *images(40, 0))
    write_idx(folder, "t10k", *images(20, 1))
    return folder


def test_idx_files(train, idx):
    config = json.loads((train("run", path=idx) / "config.json").read_text())
    assert config["dataset"]["training_images"] == 40 and config["dataset"]["test_images"] == 20


def test_image_folder(train, tmp_path):
    from PIL import Image

    for part, n in (("train", 24), ("test", 12)):
        for i, (image, label) in enumerate(zip(*images(n, 0, shape=(10, 11)), strict=True)):
            file = tmp_path / "images" / part / f"class{label}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.stack([image, image // 2, 255 - image], axis=-1)[: 9 + i % 2]).save(file)
    folder = train("run", "--image-size", 8, 12, path=tmp_path / "images")
    described = json.loads((folder / "config.json").read_text())["dataset"]
    assert described["image_shape"] == [3, 8, 12] and described["classes"] == ["class0", "class1", "class2"]


# ---- what is refused


def refused(arguments, capsys):
    """The line on stderr of a run that must be refused before anything is printed or written."""
    assert main(["train", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fastcnn train: ") and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--lr", "-1"], "lr: expected a number"),
        (["--lr", "nan"], "lr: expected a number"),
        (["--momentum", "2"], "momentum: expected a number"),
        (["--weight-decay", "-1"], "weight_decay: expected a number"),
        (["--threads", "1000"], "number of threads from 1 to .*got 1000"),
        (["--image-size", "8", "8"], "size is for folders of images"),
        (["--width", "1000000000"], "[Aa]llocate|memory"),
        (["--epochs", "3", "--warm-up", "3"], "--warm-up: expected fewer than the 3 epochs, got 3"),
        (["--warm-up", "-1"], "--warm-up: expected .*, got -1"),
    ],
)
def test_refused_options(toy, tmp_path, capsys, options, message):
    out = tmp_path / "run"
    assert re.search(message, refused(["--data", toy, "--out", out, *options], capsys))
    assert not out.exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--epochs", "0"], "--epochs: expected a whole number of at least 1, got '0'"),
        (["--batch-size", "-3"], "--batch-size: expected a whole number of at least 1, got '-3'"),
        (["--epochs", "two"], "--epochs: expected a whole number"),
        (["--drop", "1"], "--drop: expected a number of at least 0 and below 1, got '1'"),
        (["--validation", "1.5"], "--validation: expected a number of at least 0 and below 1, got '1.5'"),
        (["--validation", "-0.1"], "--validation: expected a number of at least 0 and below 1, got '-0.1'"),
        (["--threads", "0"], "--threads: expected a whole number"),
        (["--dtype", "float16"], "--dtype: invalid choice: 'float16'"),
        (["--backend", "gpu"], "--backend: invalid choice: 'gpu'"),
        (["--schedule", "exponential"], "--schedule: invalid choice"),
        (["--seed", "x"], "--seed: invalid int value"),
        (["--rate", "1"], "unrecognized arguments: --rate"),
    ],
)
def test_refused_by_the_parser(capsys, options, message):
    with pytest.raises(SystemExit) as exit:
        main(["train", *options])
    assert exit.value.code == 2 and message in capsys.readouterr().err


def damage_labels(folder):
    file = folder / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1])


def damage_magic(folder):
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(b"\x00\x00\x0d" + file.read_bytes()[3:])


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda folder: (folder / "t10k-images-idx3-ubyte").unlink(), "t10k-images-idx3-ubyte is missing"),
        (damage_labels, "t10k-labels-idx1-ubyte: 27 bytes, expected 28"),
        (damage_magic, "train-images-idx3-ubyte: not an IDX file"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "an empty folder. Understood are:"),
    ],
)
def test_damaged_data(idx, tmp_path, capsys, damage, message):
    damage(idx)
    assert message in refused(["--data", idx, "--out", tmp_path / "run"], capsys)
    assert not (tmp_path / "run").exists()


def test_missing_data(tmp_path, capsys):
    assert "nowhere does not exist" in refused(["--data", tmp_path / "nowhere"], capsys)


def test_truncated_npz(toy, capsys):
    toy.write_bytes(toy.read_bytes()[:-100])
    assert f"{toy}: not a readable .npz file" in refused(["--data", toy], capsys)


def test_images_that_are_too_small(tmp_path, capsys):
    path = save(tmp_path / "small.npz", shape=(3, 9), classes=1)
    assert "expected images of at least 4 x 4, got 3 x 9" in refused(["--data", path], capsys)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_folder_with_a_run_is_not_touched(toy, tmp_path, capsys, name):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_text("precious")
    assert f"{folder} already holds a run; choose another folder" in refused(["--data", toy, "--out", folder], capsys)
    assert [(file.name, file.read_text()) for file in folder.iterdir()] == [(name, "precious")]


def test_out_is_a_file(toy, capsys):
    assert str(toy) in refused(["--data", toy, "--out", toy], capsys)


@pytest.mark.parametrize("library", ["tqdm", "matplotlib", "safetensors"])
def test_missing_library(toy, tmp_path, capsys, monkeypatch, library):
    for name in [library, "safetensors.numpy", "matplotlib.pyplot"]:
        if name.startswith(library):
            monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "run"
    message = refused(["--data", toy, "--out", out], capsys)
    assert message == (f"fastcnn train: {library} is not installed; install it with: pip install 'fastcnn[train]'\n")
    assert not out.exists()
    if library == "tqdm":  # which only the progress bar needs
        assert main(["train", "--data", str(toy), *QUICK, "--out", str(out)]) == 0


@pytest.mark.parametrize("batch_size, where", [(16, "in epoch 1, step 2"), (70, "after epoch 1")])
def test_divergence(toy, tmp_path, capsys, batch_size, where):
    out = tmp_path / "run"
    options = [*QUICK, "--lr", "1e30", "--batch-size", str(batch_size), "--out", str(out)]
    assert main(["train", "--data", str(toy), *options]) == 2
    assert re.search(
        rf"fastcnn train: the loss is \S+ {where}: training has diverged "
        r"\(.* layer \d \(\w+\)\); a lower learning rate than 1e\+30",
        capsys.readouterr().err,
    )
    assert not (out / "metrics.jsonl").exists()
