"""`fastcnn check`: the checks of a net before it is trained, on images that it is to be trained with."""

import functools

import numpy as np

import fastcnn
from fastcnn import data, optim
from fastcnn.train.beginning import Anew
from fastcnn.train.checks import check_first_loss, check_overfit


def check(arguments):
    """Check as the command line asks; returns the exit status."""
    if arguments.threads:
        fastcnn.set_num_threads(arguments.threads)
    start = Anew(arguments)
    dataset = start.dataset()
    _, net, preprocess = start.net(dataset)
    print(f"{dataset!r}")

    def batch(size):
        x, y = next(iter(data.Batches(dataset.x_train, dataset.y_train, size, seed=arguments.seed).epoch(0)))
        return preprocess.apply(x, np.dtype(arguments.dtype).type), y

    adam = functools.partial(optim.Adam, lr=arguments.lr)
    with fastcnn.backend(arguments.backend):
        found = [check_first_loss(net, *batch(arguments.batch_size), arguments.loss)]
        print(found[0], flush=True)
        found.append(check_overfit(net, *batch(arguments.images), adam, arguments.steps, loss=arguments.loss))
        print(found[1])
    return 0 if all(finding.ok for finding in found) else 1
