"""The folder of a training run: settings, metrics of each epoch, weights, and the curves as a picture."""

import json
import pathlib
from dataclasses import dataclass

import numpy as np

from fastcnn import data, nn
from fastcnn.layers import device
from fastcnn.train import files, recipe
from fastcnn.train.checkpoint import read_tensors
from fastcnn.train.extras import need
from fastcnn.train.loop import EpochMetrics
from fastcnn.train.range_test import RangeTest

_PREPROCESS = "preprocess."  # begins the names of what is stored beside a net's weights
_NEEDED = {  # of config.json, by whoever goes by it
    "fastcnn": str,
    "net": {"name": str, "options": dict},
    "preprocess": {"name": str},
    "dataset": {"path": str | None, "classes": list, "image_shape": list, "digest": str},
    "options": {"epochs": int, "seed": int, "find_lr": bool},
}


class RunFolder:
    """Writes what a run leaves behind; every file is complete or absent at any moment.

    ``config.json``, ``metrics.jsonl`` (a line per epoch), ``weights.safetensors``, ``checkpoint.safetensors`` (to go on
    from), ``curves.png``, ``error.txt`` if it diverged; of a range test ``rates.json`` and ``rates.png``.
    Others write ``monitor.jsonl`` (`Monitor`) and ``report.html`` (`write_report`).

    Parameters
    ----------
    path : path of the folder
    config : dict, the contents of config.json
    resume : bool, whether the run in the folder goes on; otherwise it must hold none

    Raises
    ------
    FileExistsError
        If the folder already holds a run, or a part of one.
    ImportError
        If a library that the files need is not installed: before training, not after it.
    """

    CHECKPOINT = "checkpoint.safetensors"
    FILES = (
        "config.json", "metrics.jsonl", "weights.safetensors", CHECKPOINT, "curves.png", "rates.json", "rates.png",
        "monitor.jsonl", "report.html", "error.txt",
    )  # fmt: skip

    def __init__(self, path, config, resume=False):
        need("matplotlib"), need("safetensors.numpy")
        self.path, self.metrics = pathlib.Path(path), []
        if not resume and any((self.path / name).exists() for name in self.FILES):
            raise FileExistsError(f"{self.path} already holds a run; choose another folder, or go on with --resume")
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "error.txt").unlink(missing_ok=True)
        files.replace(self.path / "config.json", (json.dumps(config, indent=2) + "\n").encode())

    @classmethod
    def checkpoint_of(cls, path):
        """Where the checkpoint of the run in a folder lies."""
        return pathlib.Path(path) / cls.CHECKPOINT

    def add(self, metrics):
        """Append the `EpochMetrics` of an epoch."""
        self.keep([*self.metrics, metrics])

    def keep(self, metrics):
        """Make the `EpochMetrics` of these epochs, a list, those of the run."""
        self.metrics = list(metrics)
        if not self.metrics:
            (self.path / "metrics.jsonl").unlink(missing_ok=True)
            return
        lines = "".join(json.dumps(epoch.as_dict()) + "\n" for epoch in self.metrics)
        files.replace(self.path / "metrics.jsonl", lines.encode())

    def save_weights(self, net, preprocess, name="weights.safetensors"):
        """Store the net's parameters and statistics, and the preprocessing that belongs to them."""
        weights = {name: device.to_host(array) for name, array in net.state_dict().items()}
        tensors = {**weights, **{f"{_PREPROCESS}{k}": v for k, v in preprocess.state().items()}}
        files.replace(self.path / name, need("safetensors.numpy").save(tensors))

    def save_epoch(self, epoch, net, preprocess, count):
        """Store the weights after an epoch under its number, and keep those of the last `count` epochs."""
        self.save_weights(net, preprocess, f"weights-epoch-{epoch:03d}.safetensors")
        for number, file in kept_weights(self.path):
            if not epoch - count < number <= epoch:
                file.unlink()

    def save_error(self, message):
        """Store what ended the run."""
        files.replace(self.path / "error.txt", f"{message}\n".encode())

    def draw_curves(self, evaluated_on):
        """Draw loss and accuracy over the epochs, for training data and the data `evaluated_on` ("test", ...)."""
        figure, axes = _subplots(2)
        epochs = [m.epoch for m in self.metrics]
        for axis, quantity in zip(axes, ("loss", "accuracy"), strict=True):
            axis.plot(epochs, [getattr(m, f"train_{quantity}") for m in self.metrics], "o-", ms=3, label="training")
            evaluated = [getattr(m, f"eval_{quantity}") for m in self.metrics]
            if None not in evaluated:
                axis.plot(epochs, evaluated, "o-", ms=3, label=evaluated_on)
            axis.set(xlabel="epoch", ylabel=quantity)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.3)
            axis.legend()
        axes[0].set_ylim(bottom=0)
        self._save_picture("curves.png", figure)

    def save_range_test(self, found):
        """Store a `RangeTest`, and draw its losses over the learning rates."""
        files.replace(self.path / "rates.json", (json.dumps(found.as_dict(), indent=2) + "\n").encode())
        figure, axis = _subplots(1)
        axis.plot(found.rates, found.losses, ".", ms=4, alpha=0.4, label="loss of a batch")
        axis.plot(found.rates, found.smoothed, label="smoothed")
        axis.axvspan(found.low, found.high, alpha=0.15, label=f"{found.low:.2g} to {found.high:.2g}")
        axis.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0, 2 * found.smoothed[0]))
        axis.grid(alpha=0.3)
        axis.legend()
        self._save_picture("rates.png", figure)

    def _save_picture(self, name, figure):
        files.replace(self.path / name, lambda part: figure.savefig(part, dpi=120))
        need("matplotlib.pyplot").close(figure)


@dataclass(frozen=True)
class Run:
    """What a run left, ready for use.

    Attributes
    ----------
    path : pathlib.Path, its folder
    config : dict, the contents of config.json
    net : nn.Module with the weights of the run, in test mode
    preprocess : what images have to go through before the net, `apply(images, dtype)`
    class_names : tuple of str
    image_shape : (C, H, W)
    dtype : numpy dtype of the net
    metrics : list of EpochMetrics
    """

    path: pathlib.Path
    config: dict
    net: nn.Module
    preprocess: data.preprocess.Preprocessing
    class_names: tuple
    image_shape: tuple
    dtype: np.dtype
    metrics: list


def is_run(path):
    """Whether there is a run in this folder, or this is a file of weights in such a folder."""
    return (_folder(path) / "config.json").is_file()


def load_run(path):
    """The `Run` in a folder that `fastcnn train` left.

    Parameters
    ----------
    path : of the folder, or of one of the files of weights in it, weights-epoch-003.safetensors

    Raises
    ------
    FileNotFoundError
        If there is no such folder, no run in it, or one that stored no weights.
    ValueError
        If a file is damaged, or the weights are those of another net.
    """
    path, file = _folder(path), pathlib.Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such folder")
    config = read_config(path)
    file = file if file != path else path / "weights.safetensors"
    tensors, state = split_tensors(read_tensors(file))
    dtypes = {str(array.dtype) for array in tensors.values()}
    if dtypes not in ({"float32"}, {"float64"}):
        raise ValueError(f"{file}: expected weights of one dtype, float32 or float64")
    dtype = np.dtype(dtypes.pop())
    shape, class_names = (tuple(config["dataset"][name]) for name in ("image_shape", "classes"))
    network = {name: config["net"].get(name) for name in ("name", "options", "head")}
    try:
        net = recipe.build(shape, len(class_names), config["options"]["seed"], dtype.type, **network).eval()
        net.load_state_dict(tensors)
        preprocess = preprocessing(config["preprocess"]["name"]).from_state(state)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: config.json and {file.name} do not belong together: {error}") from error
    return Run(path, config, net, preprocess, class_names, shape, dtype, read_metrics(path))


def _folder(path):
    """The folder of a run that is named by itself or by a file of weights in it."""
    path = pathlib.Path(path)
    return path.parent if path.suffix == ".safetensors" else path


def split_tensors(tensors):
    """The arrays of a net, and those of its preprocessing, each by their own names."""
    weights = {name: array for name, array in tensors.items() if not name.startswith(_PREPROCESS)}
    state = {name.removeprefix(_PREPROCESS): array for name, array in tensors.items() if name not in weights}
    return weights, state


def kept_weights(path):
    """(epoch, file) of the weights of epochs that the run in a folder kept, in the order of the epochs."""
    files = pathlib.Path(path).glob("weights-epoch-*.safetensors")
    numbers = ((file.stem.rpartition("-")[2], file) for file in files)
    return sorted((int(number), file) for number, file in numbers if number.isdigit())


def read_config(path):
    """The settings of the run in a folder, a dict with all of `_NEEDED`.

    FileNotFoundError if there is none, ValueError if they are damaged.
    """
    file = pathlib.Path(path) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path}: there is no run in this folder (no config.json)")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: damaged ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{file}: damaged (it holds no settings)")
    _check_settings(file, config, _NEEDED)
    return config


def _check_settings(file, found, needed, within=""):
    for name, kind in needed.items():
        if name not in found:
            raise ValueError(f"{file}: {within + name!r} is missing")
        parts = kind if isinstance(kind, dict) else {}
        if not isinstance(found[name], dict if parts else kind):
            raise ValueError(f"{file}: {within + name!r} cannot be {found[name]!r}")
        _check_settings(file, found[name], parts, f"{within}{name}.")


def read_metrics(path):
    """The `EpochMetrics` of the run in a folder, a list; ValueError if they are damaged."""
    file = pathlib.Path(path) / "metrics.jsonl"
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [EpochMetrics(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error})") from error


def read_range_test(path):
    """The `RangeTest` in a folder; FileNotFoundError if there is none, ValueError if it is damaged."""
    file = pathlib.Path(path) / "rates.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path}: there is no range test in this folder (no rates.json)")
    try:
        return RangeTest(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: damaged ({error})") from error


def preprocessing(name):
    """The class of this name; ValueError if there is none."""
    if name not in data.PREPROCESSING:
        raise ValueError(f"there is no preprocessing {name!r}; known are {', '.join(data.PREPROCESSING)}")
    return data.PREPROCESSING[name]


def _subplots(count):
    """A figure of so many pictures side by side, and their axes; drawn without a screen."""
    need("matplotlib").use("Agg")
    return need("matplotlib.pyplot").subplots(1, count, figsize=(5 * count, 4), layout="constrained")
