"""The training loop and what a run leaves behind."""

from fastcnn.train.callback import Callback
from fastcnn.train.checks import FirstLoss, Overfit, check_first_loss, check_overfit
from fastcnn.train.ensemble import Ensemble, average_weights, estimate_statistics
from fastcnn.train.interrupts import Interrupted
from fastcnn.train.loop import EpochMetrics, Trainer, evaluate
from fastcnn.train.monitor import Monitor
from fastcnn.train.probabilities import MonteCarlo, monte_carlo
from fastcnn.train.progress import Lines
from fastcnn.train.range_test import RangeTest, range_test
from fastcnn.train.report import write_report
from fastcnn.train.run import Run, RunFolder, load_run
from fastcnn.train.weights import load_weights

__all__ = [
    "Callback",
    "Ensemble",
    "EpochMetrics",
    "FirstLoss",
    "Interrupted",
    "Lines",
    "Monitor",
    "MonteCarlo",
    "Overfit",
    "RangeTest",
    "Run",
    "RunFolder",
    "Trainer",
    "check_first_loss",
    "check_overfit",
    "average_weights",
    "estimate_statistics",
    "evaluate",
    "load_run",
    "load_weights",
    "monte_carlo",
    "range_test",
    "write_report",
]
