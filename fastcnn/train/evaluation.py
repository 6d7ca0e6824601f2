"""`fastcnn evaluate`: loss and accuracy of runs on test images, and of the average of what they predict."""

import copy
import json
import pathlib
from dataclasses import replace

import numpy as np

import fastcnn
from fastcnn.layers import device
from fastcnn.train.datasets import dataset_of
from fastcnn.train.ensemble import Ensemble, average_weights, quality
from fastcnn.train.prediction import load_runs, predict_views
from fastcnn.train.run import kept_weights
from fastcnn.train.weights import load_weights


def evaluate_runs(arguments):
    """Evaluate as the command line asks; returns the exit status."""
    if arguments.threads:
        fastcnn.set_num_threads(arguments.threads)
    runs = load_runs(arguments.runs, arguments.backend)
    dataset = dataset_of(runs[0].config, arguments.data)
    if not len(dataset.x_test):
        raise ValueError(f"{dataset.name}: there are no test images")
    if not arguments.json:
        print(f"{dataset!r}")
    with fastcnn.backend(arguments.backend):
        members = list(zip(map(pathlib.Path, arguments.runs), runs))
        rows = _evaluated(members, dataset, arguments.checkpoints, arguments.tta)
        results = []
        for name, predicted in rows:
            loss, accuracy = quality(predicted, dataset.y_test)
            results.append({"name": name, "cross_entropy": loss, "accuracy": accuracy})
            if not arguments.json:
                print(f"cross-entropy {loss:.4f}   accuracy {accuracy:6.2%}   {name}", flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))
    return 0


def checkpoints(run, count):
    """(file, the run with these weights) of each of the last `count` epochs that it kept, from the first to the last.

    Raises
    ------
    FileNotFoundError
        If it kept none.
    """
    files = [file for _, file in kept_weights(run.path)]
    if not files:
        raise FileNotFoundError(f"{run.path}: keeps no checkpoints (fastcnn train --keep-checkpoints N)")
    return [(file, replace(run, net=load_weights(copy.deepcopy(run.net), file))) for file in files[-count:]]


def _evaluated(members, dataset, count, tta):
    """(name, class probabilities of the test images) of all that is evaluated; members: (path, run)."""
    runs = [run for _, run in members]
    if count is not None:
        members = [kept for run in runs for kept in checkpoints(run, count)]
    total = 0
    for path, run in members:
        if run.image_shape != runs[0].image_shape:
            raise ValueError(f"{run.path}: its images are {run.image_shape}, those of {runs[0].path} not")
        predicted = predict_views(Ensemble([run]), dataset.x_test, run.image_shape[1:], tta)
        total = total + predicted
        yield str(path), predicted
    if len(members) > 1:
        yield f"average of {len(members)} predictions", total / len(members)
    if count is None:
        return
    for run in runs:
        nets = [kept.net for path, kept in members if path.parent == run.path]
        if len(nets) > 1:
            net = average_weights(nets, dataset.x_train, run.preprocess)
            averaged = Ensemble([replace(run, net=net)])
            name = f"average of {len(nets)} weights of {run.path}"
            if _statistics_differ(net, nets[0]):
                name += ", statistics of batch norms estimated anew"
            yield name, predict_views(averaged, dataset.x_test, run.image_shape[1:], tta)


def _statistics_differ(net, other):
    """Whether batch norms of two states of one net have other running statistics."""
    ours, theirs = net.state_dict(), other.state_dict()
    names = [f"{name}.{statistic}" for name, layer in net.named_modules() for statistic in layer.statistics]
    return not all(np.array_equal(device.to_host(ours[name]), device.to_host(theirs[name])) for name in names)
