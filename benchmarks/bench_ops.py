"""Every op of the catalogue at a large case, beside its reference: a new op is measured without further ado."""


def bench_ops(timed):
    timed()
