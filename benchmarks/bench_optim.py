"""Optimizer steps over 10 million parameters."""


def bench_optim(timed):
    timed()
