"""The training loop and what a run leaves behind."""

from fastcnn.train.loop import EpochMetrics, Trainer, evaluate
from fastcnn.train.run import RunFolder

__all__ = ["EpochMetrics", "RunFolder", "Trainer", "evaluate"]
