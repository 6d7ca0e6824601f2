"""Checks before a long training: is the first loss what it should be, and can the net learn a few images by heart?"""

import copy
import math
from dataclasses import dataclass

import numpy as np

from fastcnn import optim
from fastcnn.layers import checks, device
from fastcnn.nn import Dropout, FlatParameters
from fastcnn.train import reading
from fastcnn.train.loop import LOSSES, forward_loss, placed, placement


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    ok : bool
    sentence : str, the numbers, and what may be wrong
    """

    ok: bool
    sentence: str

    def __str__(self):
        return self.sentence


@dataclass(frozen=True)
class FirstLoss(Finding):
    """What `check_first_loss` found: the loss, and that of equal scores, which is expected."""

    loss: float
    expected: float


@dataclass(frozen=True)
class Overfit(Finding):
    """What `check_overfit` found: the loss before each update and after the last, and the accuracy then."""

    losses: list
    accuracy: float


def check_first_loss(net, x, y, loss="softmax"):
    """Compare the loss of an untrained net with that of equal scores for all classes: ln(classes), of "softmax".

    `reading.read_first_loss` says how far it may lie from that, and why. The loss is that of a first training step, in
    training mode; the net is left as it is.

    Parameters
    ----------
    net : nn.Module that gives class scores (N, classes)
    x : (N, ...) images, as the net sees them
    y : (N,) labels
    loss : {"softmax", "hinge"}

    Returns
    -------
    FirstLoss
    """
    function, twin = _loss_function(loss), copy.deepcopy(net).train()
    scores, found, _ = forward_loss(twin, *placed(x, y, placement(twin)), function)
    classes = scores.shape[1]
    statement = reading.read_first_loss(float(found), classes, loss)
    expected = reading.expected_loss(classes, loss)
    return FirstLoss(statement.kind == reading.GOOD, statement.text, float(found), expected)


def check_overfit(net, x, y, make_optimizer=optim.Adam, steps=300, target=0.01, loss="softmax"):
    """Train a copy of a net on one small batch until the loss is nearly 0: a net that cannot do that has a fault.

    Dropout is left out, as it works against learning by heart. The net is left as it is.

    Parameters
    ----------
    net : nn.Module that gives class scores (N, classes)
    x : (N, ...) images, as the net sees them; about 20
    y : (N,) labels
    make_optimizer : function of an `nn.FlatParameters` that gives an optim.Optimizer
    steps : int, how many updates at most
    target : float, the loss to get below
    loss : {"softmax", "hinge"}

    Returns
    -------
    Overfit
    """
    checks.integer("steps", steps, 1), checks.number("target", target, above=0)
    function = _loss_function(loss)
    twin = copy.deepcopy(net).train()
    for module in twin.modules():
        if isinstance(module, Dropout):
            module.training = False
    optimizer, batch = make_optimizer(FlatParameters(twin)), placed(x, y, placement(twin))
    losses = []
    while len(losses) <= steps:
        scores, found, dscores = forward_loss(twin, *batch, function)
        losses.append(float(found))
        if losses[-1] < target or not math.isfinite(losses[-1]):
            break
        twin.backward(dscores, need_dx=False)
        optimizer.step()
    accuracy = float(np.mean(device.to_host(scores).argmax(axis=1) == y))
    return Overfit(losses[-1] < target, _overfit_sentence(losses, accuracy, len(y), target), losses, accuracy)


def _loss_function(name):
    return LOSSES[checks.choice("loss", name, tuple(LOSSES))]


def _overfit_sentence(losses, accuracy, images, target):
    found = f"{images} images, first loss {losses[0]:.3g}, loss {losses[-1]:.3g} and accuracy {accuracy:.0%} "
    found += f"after {len(losses) - 1} updates"
    if losses[-1] < target:
        return f"The net learns by heart, as it should: {found}."
    if not math.isfinite(losses[-1]):
        return f"Training diverges on a single small batch: {found}. Lower the learning rate."
    if accuracy == 1:
        return (
            f"The net learns, but has not come below {target:g}: {found}. Allow more steps, or another learning rate."
        )
    return (
        f"The net does not learn even this by heart: {found}. Look at the learning rate, the number of steps, the "
        "gradients, for dead units and frozen layers, and whether equal images have different labels."
    )
