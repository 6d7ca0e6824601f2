"""The training loop: sample a mini-batch, forward to the loss, backward to the gradients, update."""

import math
import time
from dataclasses import asdict, dataclass

import numpy as np

from fastcnn import layers


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
    batches : data.Batches of images and labels
    preprocess : object with `apply(images, dtype)`, fitted on the training images
    schedule : function of the progress in [0, 1] that gives a factor of the optimizer's initial learning rate
    epochs : int, for how many the schedule is laid out
    dtype : float32 or float64, of the images that the net sees
    """

    def __init__(self, net, optimizer, batches, preprocess, schedule, epochs, dtype=np.float32):
        self.net, self.optimizer, self.batches, self.preprocess = net, optimizer, batches, preprocess
        self.schedule, self.epochs, self.dtype = schedule, epochs, dtype
        self.base_lr, self.epoch = optimizer.lr, 0

    def run_epoch(self, evaluation=None, on_step=lambda loss, accuracy, images: None):
        """Train for one epoch; return its `EpochMetrics`.

        Parameters
        ----------
        evaluation : (images, labels) or None
        on_step : called after every step with the averages so far in this epoch and the number of images seen

        Raises
        ------
        FloatingPointError
            When the loss is no longer finite; the message says where, and what usually helps.
        """
        start, images, loss_sum, correct = time.perf_counter(), 0, 0.0, 0
        steps = len(self.batches)
        self.net.train()
        for step, (x, y) in enumerate(self.batches.epoch(self.epoch)):
            progress = (self.epoch + step / steps) / self.epochs
            self.optimizer.lr = self.base_lr * self.schedule(progress)
            scores = self.net.forward(self.preprocess.apply(x, self.dtype))
            loss, dscores = layers.softmax_loss(scores, y)
            self._check_finite(loss, f"in epoch {self.epoch + 1}, step {step + 1}")
            self.net.backward(dscores, need_dx=False)
            self.optimizer.step()
            images += len(x)
            loss_sum += loss * len(x)
            correct += int(np.count_nonzero(scores.argmax(axis=1) == y))
            on_step(loss_sum / images, correct / images, images)
        seconds = time.perf_counter() - start
        self.epoch += 1
        loss = accuracy = None
        if evaluation:
            loss, accuracy = evaluate(self.net, *evaluation, self.preprocess, self.dtype)
            self._check_finite(loss, f"after epoch {self.epoch}")
        averages = (loss_sum / images, correct / images, loss, accuracy)
        return EpochMetrics(self.epoch, steps, self.optimizer.lr, *averages, seconds, images / seconds)

    def _check_finite(self, loss, where):
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} {where}: training has diverged; "
                f"a lower learning rate than {self.base_lr:g} usually helps"
            )


def evaluate(net, x, y, preprocess, dtype=np.float32, batch_size=256):
    """Mean cross-entropy and accuracy of a net in test mode on images x and labels y."""
    net.eval()
    loss_sum, correct = 0.0, 0
    for first in range(0, len(x), batch_size):
        labels = y[first : first + batch_size]
        scores = net.forward(preprocess.apply(x[first : first + batch_size], dtype))
        loss_sum += layers.softmax_loss(scores, labels)[0] * len(labels)
        correct += int(np.count_nonzero(scores.argmax(axis=1) == labels))
    return loss_sum / len(x), correct / len(x)
