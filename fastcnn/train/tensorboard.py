"""Event files that TensorBoard shows."""

from fastcnn.train.callback import Callback
from fastcnn.train.extras import need


class TensorBoard(Callback):
    """Writes what each epoch gave to an event file in a folder; a run that goes on writes another beside it.

    Raises
    ------
    ImportError
        If tensorboardX is not installed.
    """

    def __init__(self, folder):
        self.folder, self.file, self._writer = folder, None, need("tensorboardX", "tensorboard").SummaryWriter

    def after_epoch(self, trainer, metrics):
        if self.file is None:
            self.file = self._writer(
                str(self.folder), purge_step=metrics.epoch
            )  # from there on older files do not count
        scalars = {
            "loss/training": metrics.train_loss,
            "accuracy/training": metrics.train_accuracy,
            "loss/evaluation": metrics.eval_loss,
            "accuracy/evaluation": metrics.eval_accuracy,
            "learning_rate": metrics.lr,
            "images_per_second": metrics.images_per_second,
        }
        for name, value in scalars.items():
            if value is not None:
                self.file.add_scalar(name, value, metrics.epoch)
        self.file.flush()

    def on_stop(self, trainer):
        if self.file is not None:
            self.file.close()
        self.file = None
