"""Class scores of whole nets for one image and for a batch."""


def bench_inference(timed):
    timed()
