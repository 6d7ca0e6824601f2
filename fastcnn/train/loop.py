"""The training loop: sample a mini-batch, forward to the loss, backward to the gradients, update."""

import math
import time
from dataclasses import asdict, dataclass

import numpy as np

from fastcnn import layers
from fastcnn.layers import device


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
    """Trains a net on mini-batches.

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

    Attributes
    ----------
    epoch : int, how many epochs are complete
    metrics : list of their `EpochMetrics`
    averages : (loss, accuracy, images), means over the images seen so far in the epoch, and how many those are
    """

    AHEAD = 32  # steps whose losses a GPU may still be computing before they are waited for

    def __init__(self, net, optimizer, batches, preprocess, schedule, epochs, dtype=np.float32, callbacks=()):
        self.net, self.optimizer, self.batches, self.preprocess = net, optimizer, batches, preprocess
        self.schedule, self.epochs, self.dtype, self.callbacks = schedule, epochs, dtype, tuple(callbacks)
        self.base_lr, self.epoch, self.metrics, self._sums = optimizer.lr, 0, [], _Sums()

    @property
    def averages(self):
        return *self._sums.averages(), self._sums.images

    def fit(self, evaluation=None):
        """Train for the epochs that are left; return the `EpochMetrics` of all, `self.metrics`.

        `evaluation` and errors are those of `run_epoch`.
        """
        self._call("on_start")
        try:
            while self.epoch < self.epochs:
                self.run_epoch(evaluation)
        finally:
            self._call("on_stop")
        return self.metrics

    def run_epoch(self, evaluation=None):
        """Train for one epoch; return its `EpochMetrics`.

        Parameters
        ----------
        evaluation : (images, labels) or None

        Raises
        ------
        FloatingPointError
            When the loss is no longer finite; the message says where, and what usually helps.
        """
        start, steps = time.perf_counter(), len(self.batches)
        self._sums, place, under_way = _Sums(), placement(self.net), []
        ahead = 1 if place is None else self.AHEAD
        self.net.train()
        for step, (x, y) in enumerate(self.batches.epoch(self.epoch)):
            progress = (self.epoch + step / steps) / self.epochs
            self.optimizer.lr = self.base_lr * self.schedule(progress)
            x, seen = placed(prepared(x, self.batches, self.preprocess, self.dtype), y, place)
            scores, loss, dscores = forward_loss(self.net, x, seen)
            under_way.append((step, scores, loss, y))
            read = len(under_way) == ahead or step + 1 == steps
            if read:
                self._check_losses(under_way)
            self.net.backward(dscores, need_dx=False)
            self._call("after_backward", step, x, seen, loss)
            self.optimizer.step()
            if read:
                self._account(under_way)
            self._call("after_step", step, loss)
        seconds = time.perf_counter() - start
        self.epoch += 1
        loss = accuracy = None
        if evaluation:
            loss, accuracy = evaluate(self.net, *evaluation, self.preprocess, self.dtype)
            self._check_finite(loss, f"after epoch {self.epoch}")
        averages = (*self._sums.averages(), loss, accuracy)
        rate = self._sums.images / seconds
        self.metrics.append(EpochMetrics(self.epoch, steps, self.optimizer.lr, *averages, seconds, rate))
        self._call("after_epoch", self.metrics[-1])
        return self.metrics[-1]

    def _call(self, event, *arguments):
        for callback in self.callbacks:
            getattr(callback, event)(self, *arguments)

    def _account(self, under_way):
        """Read what steps gave, and empty their list."""
        for _, scores, loss, y in under_way:
            self._sums.add(scores, loss, y)
        under_way.clear()

    def _check_losses(self, under_way):
        for step, _, loss, _ in under_way:
            self._check_finite(float(loss), f"in epoch {self.epoch + 1}, step {step + 1}")

    def _check_finite(self, loss, where):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} {where}: training has diverged; "
                f"a lower learning rate than {self.base_lr:g} usually helps"
            )


def evaluate(net, x, y, preprocess, dtype=np.float32, batch_size=256):
    """Mean cross-entropy and accuracy of a net in test mode on images x and labels y."""
    net.eval()
    sums, place = _Sums(), placement(net)
    for first in range(0, len(x), batch_size):
        labels = y[first : first + batch_size]
        images = preprocess.apply(x[first : first + batch_size], dtype)
        scores, loss, _ = forward_loss(net, *placed(images, labels, place))
        sums.add(scores, loss, labels)
    return sums.averages()


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


def forward_loss(net, x, y):
    """Scores, cross-entropy and its gradient for the scores."""
    scores = net.forward(x)
    return scores, *layers.softmax_loss(scores, y)


class _Sums:
    """Loss and correct answers over several batches."""

    def __init__(self):
        self.images, self.loss, self.correct = 0, 0.0, 0

    def add(self, scores, loss, y):
        self.images += len(y)
        self.loss += float(loss) * len(y)
        answers = y if y.ndim == 1 else y.argmax(axis=1)  # of soft labels the most likely class
        self.correct += int(np.count_nonzero(device.to_host(scores).argmax(axis=1) == answers))

    def averages(self):
        return (self.loss / self.images, self.correct / self.images) if self.images else (math.nan, math.nan)
