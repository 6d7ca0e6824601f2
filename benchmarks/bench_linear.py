"""Affine layers: forward, and the three products of a training step."""


def bench_linear(timed):
    timed()
