"""Learning-rate schedules: functions of the progress t in [0, 1] through training, factors of the initial rate."""

import math


def constant(t):
    """Always the initial rate."""
    return 1.0


def linear(t):
    """Falls evenly to 0."""
    return 1.0 - t


def cosine(t):
    """Falls to 0 along half a cosine wave (Loshchilov and Hutter, "SGDR", 2017)."""
    return 0.5 * (1.0 + math.cos(math.pi * t))


def step(t):
    """A tenth of the rate after each third of training."""
    return 0.1 ** min(int(3 * t), 2)


SCHEDULES = {"constant": constant, "linear": linear, "cosine": cosine, "step": step}
