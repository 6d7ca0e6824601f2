"""Optimizers and learning-rate schedules; the functional rules stand in `fastcnn.layers` (`sgd`, `adam`, ...)."""

from fastcnn.optim import schedules
from fastcnn.optim.optimizers import SGD, Adagrad, Adam, AdamW, Group, Optimizer, RMSProp, vectors
from fastcnn.optim.schedules import SCHEDULES

__all__ = ["SCHEDULES", "SGD", "Adagrad", "Adam", "AdamW", "Group", "Optimizer", "RMSProp", "schedules", "vectors"]
