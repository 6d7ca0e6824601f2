"""Activations, forward and backward, and the residual sum with its ReLU."""


def bench_activation(timed):
    timed()
