"""Ensembles: several nets, or several states of one, and the average of what they predict."""

import copy
import itertools
import pathlib

import numpy as np

from fastcnn import data, nn
from fastcnn.layers import checks, device
from fastcnn.train.loop import placement
from fastcnn.train.probabilities import softmax
from fastcnn.train.run import Run, load_run

_TINY = np.finfo(np.float64).tiny  # a probability that a loss is still finite for


class Ensemble:
    """Nets whose class probabilities are averaged.

    Parameters
    ----------
    members : sequence of `Run`, path of a run's folder, or nn.Module that gives class scores
        Runs preprocess images as in their training. The nets are taken as they are now (`net.inference()`).
    preprocess : object with ``apply(images, dtype)``, for members that are nets; None: these are given x itself

    Attributes
    ----------
    class_names : tuple of str, or None if no member is a run

    Raises
    ------
    ValueError
        If there are no members, or runs have other classes than the first.
    """

    def __init__(self, members, preprocess=None):
        members = [load_run(member) if isinstance(member, str | pathlib.Path) else member for member in members]
        if not members:
            raise ValueError("members: expected at least one")
        runs = [member for member in members if isinstance(member, Run)]
        self.class_names = runs[0].class_names if runs else None
        for run in runs:
            if run.class_names != self.class_names:
                raise ValueError(f"{run.path}: has other classes than {runs[0].path}: {_difference(run, runs[0])}")
        self._members = [
            (member.net.inference(), placement(member.net), member.preprocess)
            if isinstance(member, Run)
            else (member.inference(), placement(member), preprocess)
            for member in members
        ]

    def __len__(self):
        return len(self._members)

    def predict(self, x, batch_size=256):
        """The mean of the members' class probabilities.

        Parameters
        ----------
        x : (N, C, H, W), images with pixels from 0 to 255 for members that preprocess them
        batch_size : int, images at a time

        Returns
        -------
        (N, classes) float64
        """
        return sum(self.each(x, batch_size)) / len(self)

    def each(self, x, batch_size=256):
        """The class probabilities of each member, a list of (N, classes) float64; ValueError without images."""
        if not len(x):
            raise ValueError("x: expected images, got none")
        starts = range(0, len(x), checks.integer("batch_size", batch_size, 1))
        return [
            np.concatenate([softmax(_scores(*member, x[first : first + batch_size])) for first in starts])
            for member in self._members
        ]


def quality(predicted, y):
    """Mean cross-entropy and accuracy of class probabilities (N, classes) for labels y (N,)."""
    given = predicted[np.arange(len(y)), y]
    return float(-np.log(np.maximum(given, _TINY)).mean()), float((predicted.argmax(axis=1) == y).mean())


def average_weights(nets, x, preprocess, batches=16, batch_size=256, seed=0):
    """A net whose parameters are the means of those of several states of one net.

    The running statistics of batch norms are estimated anew: activations are not the means of those of the others. If
    all states have the same ones, as of layers that were frozen, these stay.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (2018).

    Parameters
    ----------
    nets : sequence of nn.Module of one architecture
    x, preprocess, batches, batch_size, seed : see `estimate_statistics`

    Returns
    -------
    nn.Module, in test mode
    """
    net, states = copy.deepcopy(nets[0]), [member.state_dict() for member in nets]
    mean = {
        name: sum(device.to_host(state[name]).astype(np.float64) for state in states) / len(nets) for name in states[0]
    }
    net.load_state_dict(mean)
    for name, layer in net.named_modules():
        if layer.statistics and all(_same(states, f"{name}.{statistic}") for statistic in layer.statistics):
            layer.freeze()  # as it was, it seems, in training
    return estimate_statistics(net, x, preprocess, batches, batch_size, seed).unfreeze()


def estimate_statistics(net, x, preprocess, batches=16, batch_size=256, seed=0):
    """Set the running statistics of batch norms that are not frozen to the means over some batches; dropout is off.

    Parameters
    ----------
    net : nn.Module
    x : (N, C, H, W) training images
    preprocess : object with ``apply(images, dtype)``
    batches, batch_size : int; as many batches as there are, if there are fewer
    seed : int, which draws the images

    Returns
    -------
    the net, in test mode
    """
    norms = [layer for layer in net.eval().modules() if isinstance(layer, nn.BatchNorm2d) and layer.learns]
    momenta, place = [norm.momentum for norm in norms], placement(net)
    dtype = next(parameter.data.dtype for _, parameter in net.named_parameters())
    for norm in norms:
        norm.training = True
    drawn = data.Batches(x, np.zeros(len(x), np.intp), min(batch_size, len(x)), seed=seed, drop_last=True)
    try:
        for count, (images, _) in enumerate(itertools.islice(drawn.epoch(0), batches if norms else 0)):
            for norm in norms:
                norm.momentum = count / (count + 1)
            images = preprocess.apply(images, dtype)
            net.forward(images if place is None else place(images))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        net.eval()
    return net


def _scores(net, place, preprocess, images):
    dtype = net.dtype or np.float32
    images = images.astype(dtype, copy=False) if preprocess is None else preprocess.apply(images, dtype)
    return net.forward(images if place is None else place(images))


def _same(states, name):
    return all(np.array_equal(device.to_host(state[name]), device.to_host(states[0][name])) for state in states[1:])


def _difference(run, other):
    """The first class that differs, in words."""
    if len(run.class_names) != len(other.class_names):
        return f"{len(run.class_names)} instead of {len(other.class_names)}"
    pairs = zip(run.class_names, other.class_names, strict=True)
    return next(f"{a!r} instead of {b!r}" for a, b in pairs if a != b)
