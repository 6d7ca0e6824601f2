"""What watches a training."""


class Callback:
    """An observer of a `Trainer`; a subclass defines those methods that it needs.

    What an observer does must not change the training: it reads parameters, gradients and activations, and writes to
    none of them.
    """

    def on_start(self, trainer):
        """Before the first step of `Trainer.fit`; the trainer may have epochs and steps behind it already."""

    def after_backward(self, trainer, step, x, y, loss):
        """Gradients are there, and weights not yet updated; the layers hold what they computed.

        Parameters
        ----------
        trainer : Trainer; `trainer.epoch` epochs are complete
        step : int, of the epoch, from 0
        x, y : the batch as the net saw it; y labels (N,), or soft labels (N, classes)
        loss : number; on a GPU one that is still being computed, `float(loss)` waits for it
        """

    def after_step(self, trainer, step, loss):
        """The weights are updated; `trainer.averages` are those of the epoch so far."""

    def after_epoch(self, trainer, metrics):
        """The `EpochMetrics` of an epoch that is complete, its evaluation included."""

    def on_stop(self, trainer):
        """After the last step of `Trainer.fit`, also when an exception or an interrupt ends it."""
