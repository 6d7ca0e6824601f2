"""Convolution layers of real networks: each pass alone, and the three passes of a training step together."""


def bench_conv(timed):
    timed()
