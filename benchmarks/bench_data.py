"""Augmentation of whole batches."""


def bench_data(timed):
    timed()
