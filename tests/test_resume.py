"""Runs that are stopped, by signals, kill -9 or a failing disk, and go on: bit for bit as if nothing had happened."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import PACKAGE, TESTS, start_python
from numpy.testing import assert_array_equal
from train_support import QUICK, images, metrics_of, save, without_times

import fastcnn
from fastcnn import data, nn, optim
from fastcnn.cli import main
from fastcnn.train import Callback, Interrupted, Trainer, files
from fastcnn.train import checkpoint as checkpoints

# All that a training can depend on, at once: 6 steps an epoch.
EVERYTHING = (
    "--epochs", "6", "--batch-size", "16", "--width", "2", "--drop", "0.4", "--validation", "0.2", "--patience", "2",
    "--augment", "flip,crop=1,rotate=10,noise=4,cutout=3,mixup=0.3", "--prefetch", "3", "--schedule", "cosine",
    "--warm-up", "1", "--optimizer", "momentum", "--clip-norm", "3", "--label-smoothing", "0.1",
    "--keep-checkpoints", "2", "--no-progress", "--checkpoint-minutes", "1e-9", "--lr", "0.3",
)  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save(tmp_path_factory.mktemp("data") / "toy.npz", n_train=110)


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """The folder of a run with everything that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", "--data", str(toy), *EVERYTHING, "--out", str(folder)]) == 0
    assert len(metrics_of(folder)) == 5  # the best epoch is the third: patience ends it, and brings that back
    return folder


def same_result(folder, whole):
    """Asserts that a run left the same as another, times apart."""
    assert {file.name for file in folder.iterdir()} == {file.name for file in whole.iterdir()}
    for file in whole.glob("weights*"):
        assert (folder / file.name).read_bytes() == file.read_bytes(), file.name
    assert without_times(metrics_of(folder)) == without_times(metrics_of(whole))
    assert (folder / "monitor.jsonl").read_bytes() == (whole / "monitor.jsonl").read_bytes()
    ours, theirs = (checkpoints.load(f / "checkpoint.safetensors")[0] for f in (folder, whole))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert_array_equal(ours[name], theirs[name], err_msg=name)


def start(arguments):
    """A process of the command, which the caller ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "fastcnn", "train", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (PACKAGE.parent, TESTS)))},
        cwd=TESTS,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


# ---- kill -9

KILLED_AT = """
    import os, signal, sys
    from fastcnn.cli import main
    from fastcnn.train import Callback, files, command

    place, count = {place!r}, {count}

    def die(*arguments):
        global count
        count -= 1
        if count == 0:
            os.kill(os.getpid(), {signal})

    def dying(function, before):
        def wrapped(*arguments):
            if before:
                die()
            result = function(*arguments)
            if not before:
                die()
            return result
        return wrapped

    if place == "rename":
        os.replace = dying(os.replace, True)
    elif place == "renamed":
        os.replace = dying(os.replace, False)
    elif place == "half a file":
        sync = files._sync
        def half(path):
            global count
            if path.is_file() and count == 1:
                with open(path, "r+b") as file:
                    file.truncate(path.stat().st_size // 2)
            die()
            sync(path)
        files._sync = half
    else:
        setattr(command._Records, place, dying(getattr(command._Records, place), True))
    sys.exit(main(["train", *{arguments!r}]))
"""


def killed(script, place, count, arguments, number=signal.SIGKILL):
    """Run the command in a process that dies by a signal when it comes to a place for the n-th time; its status."""
    code = KILLED_AT.format(place=place, count=count, signal=int(number), arguments=list(map(str, arguments)))
    process = start_python(script, code)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out, err


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
@pytest.mark.parametrize(
    "places",
    [
        # config.json is the first file, one checkpoint a step follow; an epoch ends with metrics, weights, checkpoint
        [("after_backward", 1), ("after_step", 2), ("rename", 4)],
        [("renamed", 2), ("half a file", 9), ("after_step", 9), ("renamed", 9)],
        [("rename", 8), ("rename", 2), ("half a file", 3), ("after_backward", 21), ("after_step", 4)],
    ],
)
def test_killed_at_chosen_places(toy, whole, tmp_path, places):
    folder, arguments = tmp_path / "run", ["--data", toy, *EVERYTHING, "--out", tmp_path / "run"]
    for place, count in places:
        status, _, err = killed(tmp_path / "script.py", place, count, arguments)
        assert status == -signal.SIGKILL, err
        arguments = ["--resume", folder]
    assert main(["train", *map(str, arguments)]) == 0
    same_result(folder, whole)


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_what_was_written_too_early_is_dropped(toy, tmp_path):
    """Killed when the metrics of the first epoch were there, but no checkpoint; and again before it is over."""
    folder, options = tmp_path / "run", ["--data", toy, *QUICK, "--no-monitor", "--out", tmp_path / "run"]
    status, _, err = killed(tmp_path / "script.py", "renamed", 2, options)  # config.json is the first file
    assert status == -signal.SIGKILL and len(metrics_of(folder)) == 1, err
    status, _, err = killed(tmp_path / "script.py", "after_backward", 1, ["--resume", folder])
    assert status == -signal.SIGKILL and not (folder / "metrics.jsonl").exists(), err


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_killed_at_random_moments(toy, whole, tmp_path):
    folder, arguments = tmp_path / "run", ["--data", toy, *EVERYTHING, "--out", tmp_path / "run"]
    kills, seed = 0, random.SystemRandom().randrange(2**32)
    draw = random.Random(seed)
    while True:
        process = start(arguments)
        if kills < 3:
            for line in process.stdout:  # what comes after the folder: compiled kernels are loaded, training begins
                if line.startswith("run folder"):
                    break
            time.sleep(draw.expovariate(3))
            process.kill()
        out, err = process.communicate(timeout=120)
        assert process.returncode in (-signal.SIGKILL, 0), (seed, out, err)
        if process.returncode == 0:
            break
        kills, arguments = kills + 1, ["--resume", folder]
    same_result(folder, whole)


# ---- Ctrl-C and SIGTERM


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("place, count", [("after_backward", 1), ("after_step", 9), ("after_epoch", 4)])
def test_signals(toy, whole, tmp_path, number, status, place, count):
    folder = tmp_path / "run"
    arguments = ["--data", toy, *EVERYTHING[:-4], "--lr", "0.3", "--out", folder]  # a checkpoint in 5 minutes
    found, _, err = killed(tmp_path / "script.py", place, count, arguments, number)
    assert found == status and f"--resume {folder}" in err and "interrupted in epoch" in err
    epoch, step = {"after_backward": (0, 1), "after_step": (1, 3), "after_epoch": (4, 0)}[place]
    _, state = checkpoints.load(folder / "checkpoint.safetensors")
    assert (state["epoch"], state["step"]) == (epoch, step) and len(state["metrics"]) == epoch
    assert main(["train", "--resume", str(folder), "--checkpoint-minutes", "1e-9"]) == 0
    same_result(folder, whole)


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_a_second_signal_ends_at_once(toy, whole, tmp_path):
    """In the middle of a step, whose half is thrown away."""
    folder = tmp_path / "run"
    code = f"""
        import os, signal, sys
        from fastcnn.cli import main
        from fastcnn.train import Callback, command

        def twice(self, trainer, step, *batch):
            if (trainer.epoch, step) == (1, 3):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent made of it
        command._Records.after_backward = twice
        sys.exit(main(["train", "--data", {str(toy)!r}, *{EVERYTHING!r}, "--out", {str(folder)!r}]))
    """
    process = start_python(tmp_path / "script.py", code)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "stopped at once" in err and "Traceback" not in err, err
    _, state = checkpoints.load(folder / "checkpoint.safetensors")
    assert (state["epoch"], state["step"]) == (1, 3)
    assert main(["train", "--resume", str(folder)]) == 0
    same_result(folder, whole)


# ---- other ends


def test_a_full_disk(toy, whole, tmp_path, monkeypatch, capsys):
    """The files that there are stay whole, and the run goes on when there is room."""
    folder, syncs, sync = tmp_path / "run", iter(range(1000)), files._sync

    def full(path):
        if next(syncs) == 34:
            assert path.is_file()
            path.write_bytes(b"half")
            raise OSError("no space left")
        sync(path)

    monkeypatch.setattr(files, "_sync", full)
    assert main(["train", "--data", str(toy), *EVERYTHING, "--out", str(folder)]) == 2
    assert re.search(r"fastcnn train: .*run.\S+: not written \(no space left\)\n$", capsys.readouterr().err)
    assert not list(folder.glob("part.*"))
    monkeypatch.undo()
    assert main(["train", "--resume", str(folder)]) == 0
    same_result(folder, whole)


@pytest.mark.skipif(os.name == "nt", reason="there are no such limits there")
def test_a_disk_that_takes_no_checkpoint(toy, tmp_path):
    """By the system itself, which cuts off what is written beyond a size; smaller files are."""
    folder = tmp_path / "run"
    code = f"""
        import resource, sys
        from fastcnn.cli import main

        def limited(*arguments):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            return save(*arguments)

        from fastcnn.train import checkpoint
        save, checkpoint.save = checkpoint.save, limited
        sys.exit(main(["train", "--data", {str(toy)!r}, *{QUICK!r}, "--width", "9", "--out", {str(folder)!r}]))
    """
    process = start_python(tmp_path / "script.py", code)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "Traceback" not in err, err
    assert re.search(r"fastcnn train: .*run.checkpoint.safetensors: not written \(.+\)\n$", err)
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "monitor.jsonl",
        "weights.safetensors",
    }
    assert main(["train", "--resume", str(folder)]) == 0


def test_a_run_that_diverges_keeps_its_last_checkpoint(toy, tmp_path, capsys):
    folder = tmp_path / "run"
    options = [*QUICK, "--lr", "1e30", "--checkpoint-minutes", "1e-9", "--out", str(folder)]
    assert main(["train", "--data", str(toy), *options]) == 2
    assert "the weights are not finite in epoch 1 after step 2: training has diverged" in capsys.readouterr().err
    tensors, state = checkpoints.load(folder / "checkpoint.safetensors")
    assert (state["epoch"], state["step"]) == (0, 1)
    assert all(np.isfinite(array).all() for name, array in tensors.items() if name.startswith("net."))


def test_a_finished_run(toy, whole, tmp_path, capsys):
    """Says that it is; and makes anew what a late end may have left undone."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "curves.png").unlink()
    (folder / "weights.safetensors").write_bytes(b"")
    assert main(["train", "--resume", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"the run is finished, after {len(metrics_of(whole))} epochs" in out and "\nepoch" not in out
    same_result(folder, whole)


# ---- what is refused


@pytest.mark.skipif(os.name == "nt", reason="there are no such locks there")
def test_two_processes_at_one_run(toy, whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "error.txt").write_text("the other's")
    edit(folder / "config.json", f'"{fastcnn.__version__}"', '"0.0"')  # a resumed run gets a new one
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with files.held(folder):
        assert main(["train", "--resume", str(folder)]) == 2
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert f"{folder}: another process is at work on this run" in capsys.readouterr().err
    assert main(["train", "--resume", str(folder)]) == 0


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def save_other_data(folder, toy):
    other = dict(np.load(toy))
    other["x_test"][0, 0, 0] += 1
    np.savez(folder / "other.npz", **other)


def settings(**changed):
    """What changes entries of config.json."""

    def change(folder, toy=None):
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))

    return change


def with_options(**changed):
    """The same of its options."""

    def change(folder, toy=None):
        settings(options={**json.loads((folder / "config.json").read_text())["options"], **changed})(folder)

    return change


def cut_checkpoint(folder, toy):
    file = folder / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def of_another_net(folder, toy):
    file = folder / "checkpoint.safetensors"
    tensors, state = checkpoints.load(file)
    checkpoints.save(file, {name.replace("net.0.", "net.9."): array for name, array in tensors.items()}, state)


def of_another_size(folder, toy):
    file = folder / "checkpoint.safetensors"
    tensors, state = checkpoints.load(file)
    checkpoints.save(file, tensors | {"optimizer.velocity": np.zeros(3)}, state)


@pytest.mark.parametrize(
    "change, options, message",
    [
        (None, ["--lr", "0.5"], r"--lr: the run in .*run has 0.3, not 0.5; leave --lr out, or begin a new run"),
        (None, ["--net", "mlp"], "--net: the run in .* has 'small_cnn', not 'mlp'"),
        (None, ["--drop", "0.3"], "--drop: the run in .* has 0.4, not 0.3"),
        (None, ["--seed", "1"], "--seed: the run in .* has 0, not 1"),
        (None, ["--augment", "flip"], "--augment: the run in .* has 'flip,crop=1.*', not 'flip'"),
        (None, ["--epochs", "4"], "--epochs: the run in .* has 6, and cannot have fewer"),
        (None, ["--epochs", "7"], "learning rate was 0.* only one whose past does not depend on the number of epochs"),
        (save_other_data, ["--data", "other.npz"], "other.npz: the data are not what they were when the run in"),
        (lambda f, _: (f / "config.json").unlink(), [], "there is no run in this folder"),
        (
            lambda f, _: edit(f / "config.json", '"find_lr": false', '"find_lr": true'),
            [],
            "a range test is not",
        ),
        (
            lambda f, _: edit(f / "config.json", '"batch_size": 16', '"batch_size": 8'),
            [],
            "batch_size was 16 there",
        ),
        (lambda f, _: (f / "config.json").write_text("{}"), [], "config.json: 'fastcnn' is missing"),
        (settings(options={}), [], "config.json: 'options.epochs' is missing"),
        (settings(dataset=[]), [], r"config.json: 'dataset' cannot be \[\]"),
        (with_options(epochs="x"), [], "config.json: 'options.epochs' cannot be 'x'"),
        (with_options(weight_decay="x"), [], "config.json has 'x' for the option 'weight_decay'"),
        (with_options(optimizer="x"), [], "--optimizer: expected .*got 'x'"),
        (with_options(schedule="x"), [], "--schedule: expected .*got 'x'"),
        (cut_checkpoint, [], "checkpoint.safetensors: damaged"),
        (of_another_net, [], r"checkpoint.safetensors is of another training: .*unknown \['9.weight'\]"),
        (of_another_size, [], "is of another training: .*velocity.*: expected shape"),
        (
            lambda f, _: shutil.copy(f / "weights.safetensors", f / "checkpoint.safetensors"),
            [],
            "holds weights, but is no checkpoint",
        ),
    ],
)
def test_refused(toy, whole, tmp_path, monkeypatch, capsys, change, options, message):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    if change:
        change(folder, toy)
    monkeypatch.chdir(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["train", "--resume", str(folder), *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fastcnn train: ") and re.search(message, err), err
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_there_is_nothing_to_resume(tmp_path, capsys):
    assert main(["train", "--resume", str(tmp_path / "nowhere")]) == 2
    assert "there is no run in this folder" in capsys.readouterr().err


def test_the_same_options_may_be_given_again(toy, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    moved = shutil.copy(toy, tmp_path / "moved.npz")
    threads = str(fastcnn.get_num_threads())
    again = ["--lr", "0.3", "--epochs", "6", "--data", str(moved), "--threads", threads, "--no-progress"]
    again += ["--prefetch", "0", "--keep-checkpoints", "1", "--no-monitor", "--tensorboard"]  # none changes results
    assert main(["train", "--resume", str(folder), *again]) == 0
    same_result(folder, whole)


def test_more_epochs_at_a_constant_rate(toy, tmp_path):
    long, short = tmp_path / "long", tmp_path / "short"
    options = ["--data", str(toy), *QUICK, "--schedule", "constant", "--warm-up", "1"]
    assert main(["train", *options, "--epochs", "3", "--out", str(long)]) == 0
    assert main(["train", *options, "--epochs", "2", "--out", str(short)]) == 0
    assert main(["train", "--resume", str(short), "--epochs", "3"]) == 0
    assert len(metrics_of(short)) == 3
    np.testing.assert_allclose([m["lr"] for m in metrics_of(short)], [m["lr"] for m in metrics_of(long)], rtol=1e-12)
    assert json.loads((short / "config.json").read_text())["options"]["epochs"] == 3


# ---- the trainer itself


class Signal(Callback):
    """Sends the process a signal in a step."""

    def __init__(self, epoch, step, number=signal.SIGINT):
        self.at, self.number = (epoch, step), number

    def after_backward(self, trainer, step, *batch):
        if (trainer.epoch, step) == self.at:
            os.kill(os.getpid(), self.number)


TRANSFORMS = data.RandomFlip(), data.Mixup(0.3, 3)


def trainer(
    path=None, optimizer=optim.Adam, epochs=3, seed=3, callbacks=(), dtype=np.float64, lr=0.01, kind=data.Standardize,
    transforms=TRANSFORMS, weight_decay=1e-3, clip_norm=None, **options,
):  # fmt: skip
    x, y = images(70, 0)
    x = x[:, None]
    net = nn.small_cnn(x.shape[1:], 3, 2, 0.3, seed, dtype)
    preprocess = kind.fit(x)
    augment = data.Compose(transforms, preprocess, dtype=dtype)
    batches = data.Batches(x, y, 16, seed=seed, augment=augment, prefetch=2)
    rule = optimizer(nn.FlatParameters(net), lr, weight_decay=weight_decay, clip_norm=clip_norm)
    callbacks = list(callbacks)
    return Trainer(
        net, rule, batches, preprocess, optim.SCHEDULES["linear"], epochs, dtype, callbacks, checkpoint=path, **options
    )


def evaluation():
    x, y = images(300, 1)
    return x[:, None], y


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adagrad, optim.RMSProp, optim.Adam, optim.AdamW])
def test_trainer_goes_on(tmp_path, optimizer):
    path = tmp_path / "training.safetensors"
    alone = trainer(None, optimizer)
    alone.fit(evaluation())
    for epoch, step in ((0, 0), (0, 4), (1, 2), (2, 4)):
        stopped = trainer(path, optimizer, callbacks=[Signal(epoch, step)])
        stopped.resume()
        with pytest.raises(Interrupted, match="interrupted by SIGINT") as interrupt:
            stopped.fit(evaluation())
        assert interrupt.value.status == 130
    resumed = trainer(path, optimizer)
    assert not resumed.finished and resumed.resume() and (resumed.epoch, resumed.step) == (2, 5)
    resumed.fit(evaluation())
    assert resumed.finished
    for name, value in alone.net.state_dict().items():
        assert_array_equal(resumed.net.state_dict()[name], value, err_msg=name)
    assert without_times(m.as_dict() for m in resumed.metrics) == without_times(m.as_dict() for m in alone.metrics)
    assert resumed.net.counts() == alone.net.counts() == {"6.step": 15}


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_the_same_trainer_goes_on(tmp_path):
    """As in a notebook, where nothing is made anew; without a file, too."""
    alone, stopped = trainer(), trainer(callbacks=[Signal(1, 2, signal.SIGTERM)])
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as interrupt:
        stopped.fit()
    assert interrupt.value.status == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    stopped.callbacks = ()
    assert without_times(m.as_dict() for m in stopped.fit()) == without_times(m.as_dict() for m in alone.fit())
    assert_array_equal(stopped.optimizer.parameters.data, alone.optimizer.parameters.data)


@pytest.mark.parametrize("moment", ["after_backward", "after_step"])
def test_back_to_the_checkpoint(tmp_path, moment):
    """What breaks off in the middle of a step, any exception, leaves a trainer that can go back."""

    class Break(Callback):
        def at(self, trainer, step, *batch):
            if (trainer.epoch, step) == (1, 2):
                raise OSError("no disk")

    setattr(Break, moment, Break.at)
    alone = trainer()
    broken = trainer(tmp_path / "checkpoint.safetensors", callbacks=[Break()], checkpoint_minutes=0)
    with pytest.raises(OSError, match="no disk"):
        broken.fit(evaluation())
    broken.callbacks = ()
    assert broken.resume() and (broken.epoch, broken.step) == (1, 2)
    broken.fit(evaluation())
    alone.fit(evaluation())
    assert_array_equal(broken.optimizer.parameters.data, alone.optimizer.parameters.data)
    assert without_times(m.as_dict() for m in broken.metrics) == without_times(m.as_dict() for m in alone.metrics)


def test_in_a_thread(tmp_path):
    """Where there are no signals to be heard of."""
    alone, other = trainer(), trainer(tmp_path / "checkpoint.safetensors")
    thread = threading.Thread(target=other.fit)
    thread.start()
    thread.join()
    alone.fit()
    assert_array_equal(other.optimizer.parameters.data, alone.optimizer.parameters.data)


def test_nothing_to_resume(tmp_path):
    assert not trainer().resume() and not trainer(tmp_path / "none.safetensors").resume()


class Shifted(data.Standardize):
    """Of the same name, with other statistics."""

    @classmethod
    def fit(cls, x):
        fitted = data.Standardize.fit(x)
        return data.Standardize(fitted.mean + 1e-9, fitted.std)


@pytest.mark.parametrize(
    "other, message",
    [
        (dict(seed=4), "seed was 3 there, and is 4 here"),
        (dict(lr=0.02), "lr was 0.01 there, and is 0.02 here"),
        (dict(dtype=np.float32), "dtype was 'float64' there, and is 'float32' here"),
        (dict(optimizer=optim.RMSProp), "optimizer was 'Adam' there, and is 'RMSProp' here"),
        (dict(weight_decay=0.1), "weight_decay was 0.001 there, and is 0.1 here"),
        (dict(clip_norm=2), "clip_norm was None there, and is 2.0 here"),
        (dict(kind=data.SubtractMean), "preprocess was 'Standardize [0-9a-f]+' there, and is 'SubtractMean"),
        (dict(kind=Shifted), "preprocess was 'Standardize [0-9a-f]+' there, and is 'Standardize"),
        (dict(transforms=[data.Mixup(0.3, 3)]), r"augment was .*RandomFlip\(p=0.5.*there, and is 'Compose\(\[Mixup"),
        (dict(transforms=[data.RandomFlip(0.4), data.Mixup(0.3, 3)]), r"augment was .*RandomFlip\(p=0.4"),
        (dict(learned_stages=lambda epoch: 1 + (epoch > 1)), r"learned_stages was None there, and is \[1, 1, 2\] here"),
        (dict(epochs=4), "the learning rate was .* and .* is what the schedule, laid out for 4 epochs, gives"),
        (dict(label_smoothing=0.1), "label_smoothing was 0.* there, and is 0.1 here"),
        (dict(patience=1), "patience was None there, and is 1 here"),
    ],
)
def test_another_training_is_refused(tmp_path, other, message):
    path = tmp_path / "training.safetensors"
    trainer(path).fit()
    with pytest.raises(ValueError, match=message):
        trainer(path, **other).resume()


def test_what_a_user_wrote_is_the_same_in_another_process(tmp_path):
    """Functions and objects that show no more than where they lie; a preprocessing that keeps no statistics."""

    class Halve:
        def apply(self, x, dtype):
            return (x / 2).astype(dtype)

    def made():
        x, y = images(40, 0)
        net = nn.mlp((1, 8, 9), 3, (4,))

        def augment(x, y, seed, epoch, chosen):
            return Halve().apply(x, np.float32), y

        batches = data.Batches(x[:, None], y, 16, augment=augment)
        rule, path = optim.SGD(nn.FlatParameters(net), 1e-3), tmp_path / "training.safetensors"
        return Trainer(net, rule, batches, Halve(), optim.SCHEDULES["constant"], 1, checkpoint=path)

    first, second = made(), made()
    assert repr(first.batches.augment) != repr(second.batches.augment)
    first.fit()
    assert second.resume() and second.finished


def test_other_data_are_refused(tmp_path):
    path = tmp_path / "training.safetensors"
    trainer(path).fit()
    changed = trainer(path)
    changed.batches.x[0, 0, 0, 0] += 1
    with pytest.raises(ValueError, match="data was '[0-9a-f]+' there"):
        changed.resume()


def test_early_stopping(tmp_path):
    """The weights are in the end those of the epoch with the lowest loss, or the highest accuracy."""

    class Weights(Callback):
        def __init__(self):
            self.of = []

        def after_epoch(self, trainer, metrics):
            self.of.append({name: np.copy(array) for name, array in trainer.net.state_dict().items()})

    for by in ("loss", "accuracy"):
        weights = Weights()
        ours = trainer(epochs=40, lr=0.3, patience=2, best_by=by, callbacks=[weights], optimizer=optim.SGD)
        ours.fit(evaluation())
        sign = 1 if by == "loss" else -1
        values = [sign * getattr(metrics, f"eval_{by}") for metrics in ours.metrics]
        assert ours.best_epoch == int(np.argmin(values)) + 1 and ours.finished
        assert len(values) == min(ours.best_epoch + 2, 40)
        for name, value in ours.net.state_dict().items():
            assert_array_equal(value, weights.of[ours.best_epoch - 1][name], err_msg=name)
    assert len(values) < 40


def test_patience_needs_evaluation():
    with pytest.raises(ValueError, match="patience: expected evaluation data"):
        trainer(patience=2).fit()


@pytest.mark.parametrize("patience", [None, 2])
def test_evaluation_needs_images(patience):
    x, y = evaluation()
    with pytest.raises(ValueError, match="evaluation: expected images, got none"):
        trainer(patience=patience).fit((x[:0], y[:0]))


@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_a_signal_when_all_is_done(toy, tmp_path):
    """Nothing is left to go on with: the run ends as it would have."""
    folder = tmp_path / "run"
    status, out, err = killed(
        tmp_path / "script.py", "after_epoch", 2, ["--data", toy, *QUICK, "--out", folder], signal.SIGINT
    )
    assert status == 0 and "interrupted" not in err and "test accuracy" in out
    assert len(metrics_of(folder)) == 2 and (folder / "report.html").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(loss="l2"), "loss: expected"),
        (dict(label_smoothing=2), "label_smoothing: expected"),
        (dict(loss="hinge", label_smoothing=0.1), "label_smoothing: the loss 'hinge' has none"),
        (dict(patience=0), "patience: expected"),
        (dict(best_by="luck"), "best_by: expected"),
        (dict(checkpoint_minutes=-1), "checkpoint_minutes: expected"),
    ],
)
def test_trainer_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        trainer(**options)


# ---- checkpoints


def test_a_checkpoint_keeps_everything(tmp_path):
    rng = np.random.default_rng()
    tensors = {
        "a.b": rng.standard_normal((3, 4)),
        "turned": rng.standard_normal((5, 6)).astype(np.float32).T[::2],
        "scalar": np.float64(0.1),
        "steps": 7,
        "switch": True,
        "empty": np.zeros((0, 3)),
    }
    state = {"numbers": [0.1, 1e-300, 3], "text": "\N{SNOWMAN}", "none": None}
    path = tmp_path / "checkpoint.safetensors"
    for _ in range(2):  # over another
        checkpoints.save(path, tensors, state)
    found, more = checkpoints.load(path)
    assert more == {"format": checkpoints.FORMAT, **state} and found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == np.asarray(array).dtype
        assert_array_equal(found[name], array, strict=True)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_of_another_format(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", 99)
        checkpoints.save(path, {}, {})
    with pytest.raises(ValueError, match=f"expected a checkpoint of format {checkpoints.FORMAT}, got 99"):
        checkpoints.load(path)


def test_digest():
    rng = np.random.default_rng()
    x = rng.integers(0, 255, (5, 2, 3), np.uint8)
    same = np.asfortranarray(x)
    assert checkpoints.digest(x) == checkpoints.digest(same) == checkpoints.digest(np.repeat(x, 2, 0)[::2])
    others = [x.reshape(5, 3, 2), x.astype(np.int16), x[::-1], x[:4], x ^ (np.arange(30).reshape(x.shape) == 29)]
    assert len({checkpoints.digest(other) for other in (x, *others)}) == 6
    assert checkpoints.digest(x, x) != checkpoints.digest(x)
