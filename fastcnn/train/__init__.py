"""The training loop and what a run leaves behind."""

from fastcnn.train.loop import EpochMetrics, Trainer, evaluate
from fastcnn.train.range_test import RangeTest, range_test
from fastcnn.train.run import RunFolder

__all__ = ["EpochMetrics", "RangeTest", "RunFolder", "Trainer", "evaluate", "range_test"]
