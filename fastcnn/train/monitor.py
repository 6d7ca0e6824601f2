"""What goes on inside a net while it trains: activations, gradients and updates, layer by layer.

A record is made of one step in each epoch. It is a dict that JSON can hold (None where a number is not finite):

- ``epoch``, ``step`` (of the epoch; both from 1), ``at`` (epochs passed before it), ``loss`` of the batch, ``lr``;
- ``layers``, for each layer with parameters, activation and sum, in forward order: ``name``, ``kind``, ``units``
  (channels or neurons), ``dead`` (the share of units whose output is 0 for the whole batch; None for layers that do not
  end with a ReLU), ``saturated`` (the share of outputs at the ends of a sigmoid or tanh; None for others), and what
  `describe` says of its outputs;
- ``weights``, for each parameter of more than one axis that is learned: ``name``, ``norm``, ``gradient_norm``,
  ``update_ratio`` (||w_after - w_before|| / ||w_before|| of this step; healthy about 1e-3), and what `describe` says of
  the gradient.
"""

import json
import math
import pathlib

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.nn.activation import Elementwise, Maxout, ReLU, Sigmoid, Tanh
from fastcnn.nn.joins import Add
from fastcnn.nn.module import Parameter
from fastcnn.train import files
from fastcnn.train.callback import Callback

BINS = 32

_SAMPLE = 2**16  # values that a histogram is made of, at most
_SATURATED = {
    Sigmoid: lambda out: (out < 0.01) | (out > 0.99),
    Tanh: lambda out: abs(out) > 0.99,
}


class Monitor(Callback):
    """Watches a training; changes nothing of it, and costs little: it looks at a step in each epoch.

    Those are the very first step, where the weights are still the initial ones, and the middle of each epoch.

    Parameters
    ----------
    folder : path or None
        Where ``monitor.jsonl`` goes, a line for each record; None keeps them in memory alone. Of records that are there
        already, `on_start` keeps those of steps that the trainer has behind it.
    every : int or None
        Look at each `every`-th step instead, counted over all epochs.

    Attributes
    ----------
    records : list of dicts, as this module says
    """

    FILE = "monitor.jsonl"

    def __init__(self, folder=None, every=None):
        self.file = None if folder is None else pathlib.Path(folder) / self.FILE
        self.every = None if every is None else checks.integer("every", every, 1)
        self.records, self._record, self._before = [], None, {}

    def on_start(self, trainer):
        if self.file is not None:
            behind = trainer.epoch + 1, trainer.step
            self.records = [r for r in read_records(self.file) if (r["epoch"], r["step"]) <= behind]
            files.replace(self.file, "".join(map(_line, self.records)).encode())

    def after_backward(self, trainer, step, x, y, loss):
        self._record = None
        if not self._is_due(trainer, step):
            return
        at = trainer.epoch + step / len(trainer.batches)
        self._record = {"epoch": trainer.epoch + 1, "step": step + 1, "at": at, "loss": _finite(float(loss))}
        self._record |= {"lr": _finite(trainer.optimizer.lr), "layers": list(layer_statistics(trainer.net))}
        self._before = {name: np.array(weight) for name, weight, _ in _weights(trainer.net)}

    def after_step(self, trainer, step, loss):
        if self._record is None:
            return
        self._record["weights"] = list(weight_statistics(trainer.net, self._before))
        self.records.append(self._record)
        if self.file is not None:
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(_line(self._record))
        self._record, self._before = None, {}

    def _is_due(self, trainer, step):
        passed = trainer.epoch * len(trainer.batches) + step
        return passed % self.every == 0 if self.every else passed == 0 or step == len(trainer.batches) // 2


def read_records(path):
    """The records of a ``monitor.jsonl``, or of that in a folder; none if there is no such file.

    The last line may be half a one, where a run was killed while it wrote.

    Raises
    ------
    ValueError
        If another line is damaged.
    """
    path = pathlib.Path(path)
    path = path / Monitor.FILE if path.is_dir() else path
    complete = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if complete and not complete[-1].endswith("\n"):
        complete.pop()
    try:
        return [json.loads(line) for line in complete]
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error})") from error


def layer_statistics(net):
    """For each layer that is watched, what its last outputs were like."""
    for name, layer in _watched(net):
        out = layer.output
        if out is None or math.prod(out.shape) == 0:
            continue
        out = device.to_host(out)
        saturated = next((ends for kind, ends in _SATURATED.items() if isinstance(layer, kind)), None)
        statistics = {"name": name, "kind": type(layer).__name__, "units": out.shape[1] if out.ndim > 1 else 1}
        statistics["dead"] = dead_share(out) if _rectifies(layer) else None
        statistics["saturated"] = float(np.mean(saturated(out))) if saturated else None
        yield statistics | describe(out)


def weight_statistics(net, before):
    """For each weight: its norm, its gradient, and how far the step has changed it from what it was before."""
    for name, weight, gradient in _weights(net):
        norm, change = _norm(before[name]), _norm(np.subtract(weight, before[name], dtype=np.float64))
        ratio = _finite(change / norm) if norm else None
        norms = {"norm": _finite(norm), "gradient_norm": _finite(_norm(gradient)), "update_ratio": ratio}
        yield {"name": name, **norms} | describe(gradient)


def dead_share(out):
    """The share of units whose output is 0 for all images and pixels.

    out : (N, units, ...), what a ReLU gave
    """
    rows = out.reshape(*out.shape[:2], -1) if out.ndim > 1 else out.reshape(-1, 1, 1)
    return float(np.mean(rows.max(axis=2).max(axis=0) == 0))


def describe(values):
    """Mean, standard deviation and a histogram of the values that are finite; how many are not.

    The histogram has `BINS` equal bins between the quantiles of 0.5 and 99.5 %; values beyond are in the outermost
    bins. Of more than 65,536 values it counts so many, drawn with replacement, the same ones for arrays of one size.
    """
    values = values.ravel()
    finite = values if np.isfinite(values).all() else values[np.isfinite(values)]
    described = {"mean": None, "std": None, "nonfinite": int(values.size - finite.size), "histogram": None}
    if finite.size == 0:
        return described
    with np.errstate(over="ignore"):
        moments = float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64))
    described["mean"], described["std"] = map(_finite, moments)
    if finite.size > _SAMPLE:
        finite = finite[np.random.default_rng(0).integers(finite.size, size=_SAMPLE)]
    described["histogram"] = _histogram(finite.astype(np.float64))
    return described


def _histogram(values):
    values = np.clip(values, -1e300, 1e300)  # whose differences are numbers
    low, high = map(float, np.quantile(values, (0.005, 0.995)))
    if not high - low > max(1e-9 * max(-low, high), 1e-300):  # all the same, but for rounding
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    counts, _ = np.histogram(np.clip(values, low, high), BINS, (low, high))
    return {"low": low, "high": high, "counts": counts.tolist()}


def _watched(module, name=""):
    """(name, layer) of the layers with parameters, the activations and the sums, in forward order."""
    for child, layer in module.children().items():
        yield from _watched(layer, f"{name}.{child}" if name else child)
    has_parameters = any(isinstance(value, Parameter) for value in vars(module).values())
    if has_parameters or isinstance(module, (Elementwise, Maxout, Add)):
        yield name, module


def _rectifies(layer):
    """Whether what the layer gives has passed a ReLU; one that others are fused with is the last of them."""
    return isinstance(layer, ReLU) or getattr(layer, "relu", False) is True


def _weights(net):
    """(name, values, gradient), on the host, of the parameters of more than one axis that are learned."""
    for name, parameter in net.named_parameters():
        if parameter.trainable and len(parameter.data.shape) > 1 and parameter.data.size:
            yield name, device.to_host(parameter.data), device.to_host(parameter.grad)


def _norm(values):
    return float(np.linalg.norm(values.astype(np.float64, copy=False).ravel()))


def _finite(number):
    return number if math.isfinite(number) else None


def _line(record):
    return json.dumps(record, allow_nan=False) + "\n"
