"""Pooling layers of VGG-11, VGG-16 and the ResNets: forward, and forward with backward."""


def bench_pool(timed):
    timed()
