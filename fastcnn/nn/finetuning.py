"""The stages of a net, from its images to its scores, and what fine-tuning does with them: a new head, frozen stages,
smaller rates below.
"""

from fastcnn.common.philox import derive_key
from fastcnn.layers import checks, device
from fastcnn.nn.containers import Residual, Sequential
from fastcnn.nn.graph import Graph
from fastcnn.nn.linear import Linear
from fastcnn.nn.networks import mlp
from fastcnn.nn.pool import AvgPool2d, MaxPool2d
from fastcnn.optim import Group

_HEAD = 3  # tells the random numbers of a new head from those of other uses of a seed


def stages(net):
    """The net's direct sub-layers in groups that belong together: a list of {name: layer}, in forward order.

    A stage begins behind each pooling, at each affine layer, and where residual blocks begin or have a shortcut with
    parameters: those are the blocks of a VGG net, and stem, stages and affine layer of a ResNet. The last one is the
    head, which gives the scores.

    Raises
    ------
    ValueError
        If the net has no layers with parameters.
    """
    found, before, last = [{}], None, head(net)
    for name, layer in net.children().items():
        if name == last or _begins(layer, before):
            if any(map(_has_parameters, found[-1].values())):
                found.append({})
        found[-1][name] = before = layer
    return found


def head(net):
    """The name of the net's last direct sub-layer with parameters, which gives the scores; errors as of `stages`."""
    names = [name for name, layer in net.children().items() if _has_parameters(layer)]
    if not names:
        raise ValueError(f"net: expected layers with parameters, got {type(net).__name__} without")
    return names[-1]


def replace_head(net, classes, hidden=(), drop=0.0, seed=0):
    """Put a new layer, or a small fully connected net, in the place of the affine layer that gives the scores.

    Its dtype, its memory and its mode are those of the old one. What was made of the net's parameters before,
    `FlatParameters` and an optimizer, knows nothing of it: make them afterwards.

    Parameters
    ----------
    net : Sequential or Graph
    classes : int
    hidden : ints, the neurons of hidden layers with ReLU; none: one affine layer
    drop : float, probability of dropping a hidden neuron
    seed : int, of the initial weights and the dropout masks

    Returns
    -------
    net

    Raises
    ------
    TypeError
        If the net is neither.
    ValueError
        If its last layer with parameters is no affine one, nor made of such.
    """
    if not isinstance(net, Sequential | Graph):
        raise TypeError(
            f"net: expected a Sequential or a Graph, whose layers can be replaced, got {type(net).__name__}"
        )
    place = int(head(net)) if isinstance(net, Sequential) else head(net)
    old = net.layers[place]
    affine = next((layer for layer in old.modules() if _has_parameters(layer) and not layer.children()), None)
    if not isinstance(affine, Linear):
        raise ValueError(f"net: expected an affine layer to be replaced, got {type(affine).__name__}")
    made = mlp((affine.channels,), classes, hidden, False, drop, derive_key(seed, _HEAD), affine.weight.data.dtype)
    layers = made.layers[1:]  # features are flat already
    new = Sequential(*layers) if hidden else layers[0]
    if device.is_device(affine.weight.data):
        new.to(device.to_device)
    net.layers[place] = new.train() if old.training else new.eval(old.gradients)
    return net


def freeze_all_but_top(net, count=1):
    """Freeze all stages but the `count` last; returns the net.

    With 1 the head alone is learned; all stages are with their number, `len(nn.stages(net))`. Frozen batch norms stay
    in test mode: they go on with the statistics that they were trained with.
    """
    found = stages(net)
    first = len(found) - checks.integer("count", count, 0, len(found))
    for i, stage in enumerate(found):
        for layer in stage.values():
            layer.freeze() if i < first else layer.unfreeze()
    return net


def layerwise_rates(net, factor):
    """Groups for an optimizer: the head learns at its rate, each stage below at `factor` times that of the next.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification" (2018), section 3.2, with
    a factor of 1 / 2.6 from layer to layer.

    Parameters
    ----------
    net : Module
    factor : float of at least 0

    Returns
    -------
    list of optim.Group
    """
    groups = []
    for below, stage in enumerate(reversed(stages(net))):
        names = [name for name, layer in stage.items() if _has_parameters(layer)]
        groups += [Group(f"{name}.*", lr=checks.number("factor", factor, 0) ** below) for name in names if below]
    return groups


def _begins(layer, before):
    if isinstance(layer, Residual):
        return not isinstance(before, Residual) or layer.shortcut is not None
    return isinstance(layer, Linear) or isinstance(before, MaxPool2d | AvgPool2d)


def _has_parameters(layer):
    return any(True for _ in layer.named_parameters())
