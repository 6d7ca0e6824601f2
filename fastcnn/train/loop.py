"""The training loop: sample a mini-batch, forward to the loss, backward to the gradients, update."""

import functools
import math
import pathlib
import re
import time
from dataclasses import asdict, dataclass

import numpy as np

from fastcnn import layers
from fastcnn.layers import checks, device
from fastcnn.nn import freeze_all_but_top
from fastcnn.train import checkpoint as checkpoints
from fastcnn.train.interrupts import Interrupts
from fastcnn.train.nonfinite import first_nonfinite, nonfinite_parameter

LOSSES = {"softmax": layers.softmax_loss, "hinge": layers.svm_loss}


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch gave.

    Training loss and accuracy are averages over the epoch's batches, while the weights change; those of the evaluation
    data are taken at the end of the epoch (None without such data). Rates are in images per second of training.
    """

    epoch: int
    steps: int
    lr: float
    train_loss: float
    train_accuracy: float
    eval_loss: float | None
    eval_accuracy: float | None
    seconds: float
    images_per_second: float

    as_dict = asdict


class Trainer:
    """Trains a net on mini-batches, and loses nothing when it is stopped.

    With `checkpoint`, a file that holds all that the rest of the training depends on is written at the end of every
    epoch, every few minutes within one, and when SIGINT (Ctrl-C) or SIGTERM comes, which then ends `fit` after the
    step that is under way. A trainer made alike goes on from there with `resume`, and gives bit for bit what this one
    would have given::

        trainer = Trainer(net, optimizer, batches, preprocess, Cosine(), 20, checkpoint="digits.safetensors")
        trainer.resume()
        trainer.fit((x_val, y_val))

    Parameters
    ----------
    net : nn.Module that gives class scores (N, classes)
    optimizer : optim.Optimizer over the net's parameters
    batches : data.Batches of images and labels; if it augments them, its `Compose` has the preprocessing and the dtype
    preprocess : object with `apply(images, dtype)`, fitted on the training images
    schedule : function of the progress in [0, 1] that gives a factor of the optimizer's initial learning rate, such as
        those of `optim.schedules`
    epochs : int, for how many the schedule is laid out
    dtype : float32 or float64, of the images that the net sees
    callbacks : sequence of `Callback`, called in this order
    loss : {"softmax", "hinge"}
    label_smoothing : float in [0, 1], of "softmax" in training; evaluation is without
    patience : int or None
        Stop when so many epochs brought no better evaluation; in the end the net has the weights of the best epoch.
    best_by : {"loss", "accuracy"}, of the evaluation: what makes an epoch the best
    checkpoint : path of a .safetensors file, or None for no checkpoints
    checkpoint_minutes : float, the longest time within an epoch without one
    learned_stages : function of how many epochs are complete that says how many of the net's stages (`nn.stages`), from
        the head down, are learned in the next, while the others are frozen; None: layers stay as they are

    Attributes
    ----------
    epoch, step : int, how many epochs are complete, and how many steps of the next
    metrics : list of their `EpochMetrics`
    averages : (loss, accuracy, images), means over the images seen so far in the epoch, and how many those are
    best_epoch : int, the number of the one with the best evaluation; None without `patience` or before the first
    loss_function : function of scores and labels that gives the loss and its gradient
    finished : bool, whether there is nothing left to train

    Raises
    ------
    ValueError
        If an option is out of range.
    """

    AHEAD = 32  # steps whose losses a GPU may still be computing before they are waited for

    def __init__(
        self, net, optimizer, batches, preprocess, schedule, epochs, dtype=np.float32, callbacks=(), *,
        loss="softmax", label_smoothing=0.0, patience=None, best_by="loss", checkpoint=None, checkpoint_minutes=5.0,
        learned_stages=None,
    ):  # fmt: skip
        self.net, self.optimizer, self.batches, self.preprocess = net, optimizer, batches, preprocess
        self.schedule, self.epochs, self.dtype, self.callbacks = schedule, epochs, dtype, tuple(callbacks)
        self.loss, self.patience, self.base_lr = loss, patience, optimizer.lr
        self.learned_stages = learned_stages
        self.label_smoothing = checks.number("label_smoothing", label_smoothing, 0, 1)
        self.best_by = checks.choice("best_by", best_by, ("loss", "accuracy"))
        if patience is not None:
            checks.integer("patience", patience, 1)
        self._plain_loss = self.loss_function = LOSSES[checks.choice("loss", loss, tuple(LOSSES))]
        if label_smoothing:
            if loss != "softmax":
                raise ValueError(f"label_smoothing: the loss {loss!r} has none")
            self.loss_function = functools.partial(layers.softmax_loss, label_smoothing=label_smoothing)
        self.checkpoint = None if checkpoint is None else pathlib.Path(checkpoint)
        self._interval = 60 * checks.number("checkpoint_minutes", checkpoint_minutes, 0)
        self.epoch, self.step, self.metrics = 0, 0, []
        self._sums, self._seconds, self._under_way = _Sums(), 0.0, []
        self._best, self._interrupts, self._saved_at = None, Interrupts(), time.monotonic()
        self._digests = None  # of data and what is done to them, once they are needed

    @property
    def averages(self):
        return *self._sums.averages(), self._sums.images

    @property
    def best_epoch(self):
        if self.patience is None or not self.metrics:
            return None
        if self.best_by == "loss":
            return min(self.metrics, key=lambda metrics: metrics.eval_loss).epoch
        return max(self.metrics, key=lambda metrics: metrics.eval_accuracy).epoch

    @property
    def finished(self):
        out_of_patience = self.best_epoch is not None and self.epoch - self.best_epoch >= self.patience
        return self.epoch >= self.epochs or out_of_patience

    def fit(self, evaluation=None):
        """Train for the epochs that are left; return the `EpochMetrics` of all, `self.metrics`.

        Parameters
        ----------
        evaluation : (images, labels) or None

        Raises
        ------
        train.Interrupted
            After SIGINT or SIGTERM; it is a KeyboardInterrupt. The step under way was finished, and the checkpoint
            written. (A second signal takes its usual course at once; the checkpoint before then stands.) One that comes
            when the last epoch is complete ends nothing.
        FloatingPointError
            When the loss is no longer finite; the message says where, and what usually helps.
        ValueError
            If `patience` has no evaluation to go by, there are no images in it, or the optimizer is not one over the
            parameters that are learned.
        """
        with Interrupts() as self._interrupts:
            self._call("on_start")
            try:
                while not self.finished:
                    self.run_epoch(evaluation)
                if self._best is not None:
                    self.net.load_state_dict(self._best)
            finally:
                self._call("on_stop")
        return self.metrics

    def run_epoch(self, evaluation=None):
        """Train for one epoch, or for what is left of it; return its `EpochMetrics`.

        Parameters and errors are those of `fit`.
        """
        if self.patience is not None and evaluation is None:
            raise ValueError("patience: expected evaluation data to go by, got none")
        if evaluation is not None and not len(evaluation[0]):
            raise ValueError("evaluation: expected images, got none")
        if self.step == 0:
            self._sums, self._seconds = _Sums(), 0.0
        steps, place = len(self.batches), placement(self.net)
        ahead = 1 if place is None else self.AHEAD
        if self.learned_stages is not None:
            freeze_all_but_top(self.net, self.learned_stages(self.epoch))
        self._check_optimizer()
        self.net.train()
        self._first, self._counts = self.step, self.net.counts()
        start = time.perf_counter()
        for step, (x, y) in enumerate(self.batches.epoch(self.epoch, self.step), self.step):
            self.optimizer.lr = self._rate(self.epoch, step)
            x, seen = placed(prepared(x, self.batches, self.preprocess, self.dtype), y, place)
            scores, loss, dscores = forward_loss(self.net, x, seen, self.loss_function)
            self._under_way.append((step, scores, loss, y))
            read = len(self._under_way) == ahead or step + 1 == steps
            if read:
                self._check_losses()
            self.net.backward(dscores, need_dx=False)
            self._call("after_backward", step, x, seen, loss)
            self.optimizer.step()
            if read:
                self._account()
            self.step = step + 1
            self._call("after_step", step, loss)
            now = time.perf_counter()
            start, self._seconds = now, self._seconds + now - start
            if step + 1 < steps:
                self._pause()
        return self._end_epoch(evaluation)

    def _end_epoch(self, evaluation):
        averages = (*self._sums.averages(), *(self._evaluate(*evaluation) if evaluation else (None, None)))
        rate = self._sums.images / self._seconds
        metrics = EpochMetrics(self.epoch + 1, self.step, self.optimizer.lr, *averages, self._seconds, rate)
        self.epoch, self.step = self.epoch + 1, 0
        self.metrics.append(metrics)
        if self.best_epoch == self.epoch:
            self._best = {name: np.array(device.to_host(array)) for name, array in self.net.state_dict().items()}
        self._call("after_epoch", metrics)
        self._save()
        if not self.finished:
            self._interrupts.check()
        return metrics

    def _check_optimizer(self):
        """ValueError if something of the net is to be learned that the optimizer does not update."""
        flat = self.optimizer.parameters.data
        for name, parameter in self.net.named_parameters():
            apart = device.is_device(flat) != device.is_device(parameter.data)
            if parameter.trainable and (apart or not checks.overlap(flat, parameter.data)):
                raise ValueError(
                    f"optimizer: expected one over this net's parameters (nn.FlatParameters), made after its layers "
                    f"were last replaced or moved; it does not update {name}, which is not frozen"
                )

    def _rate(self, epoch, step):
        """The learning rate of a step."""
        return self.base_lr * self.schedule((epoch + step / len(self.batches)) / self.epochs)

    def _call(self, event, *arguments):
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _account(self):
        """Read what the steps under way gave."""
        for _, scores, loss, y in self._under_way:
            self._sums.add(scores, loss, y)
        self._under_way.clear()

    def _evaluate(self, x, y):
        """Loss and accuracy on images x and labels y."""

        def check(images, labels, loss):
            if not math.isfinite(loss):
                cause = first_nonfinite(self.net, self.net.counts(), images, labels, self._plain_loss)
                self._diverged(f"loss is {loss}", f"after epoch {self.epoch + 1}", cause)
            self._pause()

        return _evaluate(self.net, x, y, self.preprocess, self.dtype, 256, self._plain_loss, check)

    def _check_losses(self):
        for step, _, loss, _ in self._under_way:
            if not math.isfinite(float(loss)):
                x, y = next(iter(self.batches.epoch(self.epoch, step)))
                x, y = placed(prepared(x, self.batches, self.preprocess, self.dtype), y, placement(self.net))
                cause = first_nonfinite(self.net, self._counts_before(step), x, y, self.loss_function)
                self._diverged(f"loss is {float(loss)}", f"in epoch {self.epoch + 1}, step {step + 1}", cause)

    def _counts_before(self, step):
        """The net's counters as they were before a step since the last call of `run_epoch`."""
        passes = self._under_way[-1][0] + 1 - self._first
        return {
            name: before + (self.net.counts()[name] - before) // passes * (step - self._first)
            for name, before in self._counts.items()
        }

    def _diverged(self, what, where, cause):
        raise FloatingPointError(
            f"the {what} {where}: training has diverged ({cause}); "
            f"a lower learning rate than {self.base_lr:g} usually helps"
        )

    # ---- checkpoints

    def _pause(self):
        """Between two steps: save what there is if it is time to, and stop if a signal came."""
        if self._interrupts.number is not None or time.monotonic() - self._saved_at >= self._interval:
            self._save()
        self._interrupts.check()

    def _save(self):
        self._check_losses()
        self._account()
        if self.checkpoint is None:
            return
        cause = nonfinite_parameter(self.net)
        if cause:  # the last checkpoint is better than this would be
            self._diverged("weights are not finite", f"in epoch {self.epoch + 1} after step {self.step}", cause)
        optimizer = self.optimizer.state_dict()
        del optimizer["optimizer"]  # a name, part of the setting
        best = {} if self._best is None else self._best
        tensors = {
            **{f"net.{name}": array for name, array in self.net.state_dict().items()},
            **{f"optimizer.{name}": value for name, value in optimizer.items()},
            **{f"best.{name}": array for name, array in best.items()},
        }
        state = {
            "setting": self._setting(self.epochs),
            "epochs": self.epochs,
            "epoch": self.epoch,
            "step": self.step,
            "sums": vars(self._sums),
            "seconds": self._seconds,
            "metrics": [metrics.as_dict() for metrics in self.metrics],
            "counts": self.net.counts(),
        }
        checkpoints.save(self.checkpoint, tensors, state)
        self._saved_at = time.monotonic()

    def resume(self):
        """Go on from the checkpoint, if there is one; returns whether there is.

        Raises
        ------
        ValueError
            If it is damaged, or of a training with another net, other data, or other options. A schedule may be laid
            out for another number of epochs if that leaves the learning rates as they were.
        """
        if self.checkpoint is None or not self.checkpoint.exists():
            return False
        tensors, state = checkpoints.load(self.checkpoint)
        parts = {"net": {}, "optimizer": {"optimizer": state["setting"]["optimizer"]}, "best": {}}
        for name, array in tensors.items():
            part, _, name = name.partition(".")
            parts[part][name] = array
        for name, now in self._setting(state["epochs"]).items():
            then = state["setting"].get(name)
            if then != now:
                raise ValueError(f"{self.checkpoint}: {name} was {then!r} there, and is {now!r} here")
        try:
            self.net.load_counts(state["counts"])
            self.net.load_state_dict(parts["net"])
            self.optimizer.load_state_dict(parts["optimizer"])
        except ValueError as error:
            raise ValueError(f"{self.checkpoint} is of another training: {error}") from error
        self.epoch, self.step, self._seconds = state["epoch"], state["step"], state["seconds"]
        self.metrics = [EpochMetrics(**metrics) for metrics in state["metrics"]]
        self._sums, self._best = _Sums(**state["sums"]), parts["best"] or None
        self._under_way.clear()
        self._check_rates()
        return True

    def _setting(self, epochs):
        """What has to be the same for a training, laid out for so many epochs, to go on as it would have."""
        batches, stages = self.batches, self.learned_stages
        self._digests = self._digests or {
            "data": checkpoints.digest(batches.x, batches.y),
            "preprocess": _described_preprocessing(self.preprocess),
            "augment": _described_augmentation(batches.augment),
        }
        return {
            "dtype": np.dtype(self.dtype).name,
            **self._digests,
            "learned_stages": None if stages is None else [int(stages(epoch)) for epoch in range(epochs)],
            "optimizer": type(self.optimizer).__name__,
            **options_of(self.optimizer),
            **{name: getattr(batches, name) for name in ("batch_size", "seed", "shuffle", "drop_last")},
            **{name: getattr(self, name) for name in ("loss", "label_smoothing", "patience", "best_by")},
            "lr": self.base_lr,
        }

    def _check_rates(self):
        """Refuse a schedule that would have given other rates than there were."""
        steps = len(self.batches)
        past = [(metrics.epoch, steps, metrics.lr) for metrics in self.metrics]
        if self.step:
            past.append((self.epoch + 1, self.step, self.optimizer.lr))
        for epoch, step, then in past:
            now = self._rate(epoch - 1, step - 1)
            if not math.isclose(now, then, rel_tol=1e-9):
                raise ValueError(
                    f"{self.checkpoint}: the learning rate was {then:g} in epoch {epoch}, step {step}, and {now:g} is "
                    f"what the schedule, laid out for {self.epochs} epochs, gives: it must be the same, and only one "
                    "whose past does not depend on the number of epochs, as a constant one, can go on for more"
                )


def evaluate(net, x, y, preprocess, dtype=np.float32, batch_size=256, loss="softmax"):
    """Mean loss and accuracy of a net in test mode on images x and labels y; `loss` is a name, as for `Trainer`."""
    loss = LOSSES[checks.choice("loss", loss, tuple(LOSSES))]
    return _evaluate(net, x, y, preprocess, dtype, batch_size, loss, lambda images, labels, loss: None)


def _evaluate(net, x, y, preprocess, dtype, batch_size, loss, after_batch):
    net.eval()
    sums, place = _Sums(), placement(net)
    for first in range(0, len(x), batch_size):
        labels = y[first : first + batch_size]
        images, seen = placed(preprocess.apply(x[first : first + batch_size], dtype), labels, place)
        scores, value, _ = forward_loss(net, images, seen, loss)
        sums.add(scores, value, labels)
        after_batch(images, seen, float(value))
    return sums.averages()


def options_of(optimizer):
    """What an optimizer was told, by name; None for infinity, a limit that there is not, which JSON does not know."""
    options = {k: v for k, v in optimizer.state_dict().items() if k not in ("optimizer", "steps", *optimizer.state)}
    return {name: None if value == math.inf else value for name, value in options.items()}


def placement(net):
    """What brings an array to where the net's parameters lie: `fastcnn.to_device`, or None for the host."""
    on_device = any(device.is_device(parameter.data) for _, parameter in net.named_parameters())
    return device.to_device if on_device else None


def prepared(x, batches, preprocess, dtype):
    """Images of a batch as the net sees them; augmentation ends with the preprocessing."""
    return x if batches.augment else preprocess.apply(x, dtype)


def placed(x, y, place):
    """A batch where the net is; `place` is that of `placement`."""
    return (x, y) if place is None else (place(x), place(y))


def forward_loss(net, x, y, loss=layers.softmax_loss):
    """Scores, loss and its gradient for the scores."""
    scores = net.forward(x)
    return scores, *loss(scores, y)


def _described_preprocessing(preprocess):
    """What tells a preprocessing from others: its class, and a digest of its statistics, if it has such."""
    state = preprocess.state() if hasattr(preprocess, "state") else {}
    return f"{type(preprocess).__name__} {checkpoints.digest(*(state[name] for name in sorted(state)))}"


def _described_augmentation(augment):
    """The same of a `Compose` or another function, or None."""
    if augment is None:
        return None
    preprocess = getattr(augment, "preprocess", None)
    after = "" if preprocess is None else f", {_described_preprocessing(preprocess)}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(augment)) + after  # where an object lies says nothing


class _Sums:
    """Loss and correct answers over several batches."""

    def __init__(self, images=0, loss=0.0, correct=0):
        self.images, self.loss, self.correct = images, loss, correct

    def add(self, scores, loss, y):
        self.images += len(y)
        self.loss += float(loss) * len(y)
        answers = y if y.ndim == 1 else y.argmax(axis=1)  # of soft labels the most likely class
        self.correct += int(np.count_nonzero(device.to_host(scores).argmax(axis=1) == answers))

    def averages(self):
        return (self.loss / self.images, self.correct / self.images) if self.images else (math.nan, math.nan)
