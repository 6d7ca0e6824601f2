"""What a training shows while it runs: bars over epochs and steps, or a line for each epoch."""

import datetime
import math
import time

from fastcnn.train.callback import Callback


class Lines(Callback):
    """Prints a line for each epoch, and how long all will take as soon as there is something to go by.

    Parameters
    ----------
    evaluated_on : str, what the evaluation data are called
    write : function of a line that prints it
    """

    SECONDS = 20  # of steps that an estimate goes by

    def __init__(self, evaluated_on, write=print):
        self.evaluated_on, self.write = evaluated_on, write

    def on_start(self, trainer):
        self.start, self.first = time.monotonic(), trainer.epoch
        self.began, self.told = None, False

    def after_step(self, trainer, step, loss):
        if self.told or trainer.epoch > self.first:  # the line of the first epoch tells, too
            return
        if self.began is None:  # with what follows the first step, which may have compiled kernels
            self.began = time.monotonic(), step
            return
        passed, steps = time.monotonic() - self.began[0], step - self.began[1]
        if passed >= self.SECONDS:
            left = (trainer.epochs - trainer.epoch) * len(trainer.batches) - step - 1
            self.write(f"step {step + 1} of epoch {trainer.epoch + 1}{_left(passed / steps * left)}")
            self.told = True

    def after_epoch(self, trainer, metrics):
        passed, done = time.monotonic() - self.start, trainer.epoch - self.first
        self.write(f"{self._line(metrics, trainer.epochs)}{_left(passed / done * (trainer.epochs - trainer.epoch))}")

    def _line(self, metrics, epochs):
        line = f"epoch {metrics.epoch:>{len(str(epochs))}}/{epochs}   loss {metrics.train_loss:.4f}   "
        line += f"accuracy {metrics.train_accuracy:6.2%}   "
        if metrics.eval_loss is not None:
            line += f"{self.evaluated_on} loss {metrics.eval_loss:.4f}   "
            line += f"{self.evaluated_on} accuracy {metrics.eval_accuracy:6.2%}   "
        return f"{line}{metrics.images_per_second:,.0f} images/s"


class Bars(Callback):
    """Bars over the epochs and over the images of each; both say how long they will take."""

    def __init__(self, tqdm):
        self.tqdm, self.epochs, self.images = tqdm, None, None

    def on_start(self, trainer):
        self.epochs = self._bar(trainer.epochs, "epochs", "epoch", trainer.epoch, 0)

    def after_step(self, trainer, step, loss):
        if self.images is None:
            described = f"epoch {trainer.epoch + 1}/{trainer.epochs}"
            before = step * trainer.batches.batch_size
            self.images = self._bar(len(trainer.batches.x), described, " images", before, 1)
        loss, accuracy, images = trainer.averages
        if images:
            self.images.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.1%}", refresh=False)
        self.images.update(images - self.images.n)

    def after_epoch(self, trainer, metrics):
        self._close_images()
        self.epochs.update()

    def on_stop(self, trainer):
        self._close_images()
        self.epochs.close()

    def _bar(self, total, described, unit, done, position):
        return self.tqdm(
            total=total, desc=described, unit=unit, initial=done, position=position, leave=False, dynamic_ncols=True
        )

    def _close_images(self):
        if self.images is not None:
            self.images.close()
        self.images = None


def _left(seconds):
    """The time that is left, in words, rounded up to whole seconds; nothing at the end."""
    return f"   {datetime.timedelta(seconds=math.ceil(seconds))} left" if seconds else ""
