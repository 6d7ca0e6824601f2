"""Batch norm with ReLU on the feature maps of ResNet-20, VGG-11 and ResNet-18; group norm."""


def bench_norm(timed):
    timed()
