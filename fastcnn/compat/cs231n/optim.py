"""CS231n's ``optim.py``. Unlike the course's `sgd`, no rule modifies w: take the returned array, as the Solver does."""

from fastcnn.layers import adam, rmsprop, sgd, sgd_momentum

__all__ = ["adam", "rmsprop", "sgd", "sgd_momentum"]
