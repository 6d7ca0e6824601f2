"""The NumPy references of fastcnn: what a plain NumPy net does."""

import numpy as np

from fastcnn.bench.runners import Works
from fastcnn.reference import conv

WORKS = Works()
_OWN = WORKS.by("reference")


def start(threads):
    """NumPy's threads are set by the environment; returns its version."""
    return {"numpy": np.__version__}


@_OWN
def conv_forward(a, p, contestant):
    return lambda: conv.conv_forward(a["x"], a["w"], None, p["stride"], p["pad"])


@_OWN
def conv_backward_input(a, p, contestant):
    return lambda: conv.conv_backward_input(a["dout"], a["w"], p["x"], p["stride"], p["pad"])


@_OWN
def conv_backward_filter(a, p, contestant):
    return lambda: conv.conv_backward_filter(a["dout"], a["x"], p["w"], p["stride"], p["pad"])


@_OWN
def conv_training(a, p, contestant):
    passes = [work(a, p, contestant) for work in (conv_forward, conv_backward_input, conv_backward_filter)]
    return lambda: tuple(run() for run in passes)
