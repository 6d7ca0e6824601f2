"""Dropout, forward and backward."""


def bench_dropout(timed):
    timed()
