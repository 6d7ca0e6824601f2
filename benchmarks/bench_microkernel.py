"""The innermost loop of the matrix products alone, on packed panels that stay in cache: a share of the FMA rate."""


def bench_microkernel(timed):
    timed()
