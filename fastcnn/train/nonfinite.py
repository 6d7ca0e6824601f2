"""Where a number that is not finite came from."""

import copy

import numpy as np

from fastcnn.layers import device


def first_nonfinite(net, counts, x, y, loss):
    """What was not finite first when a net was given a batch, in words to go into a message.

    The batch is run through a copy of the net, which is left as it is.

    Parameters
    ----------
    net : nn.Module, with the mode and the weights that it had
    counts : dict, `net.counts()` before the batch
    x, y : the batch as the net saw it
    loss : function of scores and y that returns the loss and its gradient
    """
    if not _finite(x):
        return "the images that the first layer is given are not finite"
    twin = copy.deepcopy(net)
    twin.load_counts(counts)
    for module in twin.modules():
        module.gradients = True  # so that it keeps its output
    with np.errstate(all="ignore"):
        scores = twin.forward(x)
        value, dscores = loss(scores, y)
    unknown = []  # layers since the last one whose output was kept: of those that run in one pass the last has it
    for name, layer in _layers(twin):
        wrong = [which for which, parameter in layer.named_parameters() if not _finite(parameter.data)]
        if wrong:
            return f"{wrong[0]} of {_called(name, layer)} is not finite{_whence(net)}"
        wrong = [which for which in layer.statistics if not _finite(getattr(layer, which))]
        if wrong and not layer.training:  # else this very batch may have made them so
            return f"{wrong[0]} of {_called(name, layer)} is not finite"
        if layer.output is None:
            unknown.append(_called(name, layer))
        elif _finite(layer.output):
            unknown.clear()
        else:
            behind = f", behind {' and '.join(unknown)}, of which none is kept" if unknown else ""
            return f"the first output that is not finite is that of {_called(name, layer)}{behind}"
    if not np.isfinite(float(value)):
        largest = float(np.abs(device.to_host(scores)).max())
        labels = "" if _finite(y) else ", and labels that are not finite"
        return f"all layers are finite, the loss itself is not, with scores of up to {largest:.2g}{labels}"
    with np.errstate(all="ignore"):
        twin.backward(dscores, need_dx=False)
    return _gradient(twin) or "with the batch run once more all is finite"


def nonfinite_parameter(net):
    """The first parameter that is not finite, in words that say where it came from; None if there is none."""
    for name, layer in _layers(net):
        for which, parameter in layer.named_parameters():
            if not _finite(parameter.data):
                return f"{which} of {_called(name, layer)} is not finite{_whence(net)}"


def _whence(net):
    """Of a parameter that is not finite: which gradient was to blame."""
    gradient = _gradient(net)
    return f", after a step in which {gradient}" if gradient else ", after a step of finite gradients"


def _gradient(net):
    """The first gradient that is not finite, in the order of the backward pass; None if there is none."""
    for name, layer in reversed(_layers(net)):
        if any(not _finite(parameter.grad) for _, parameter in layer.named_parameters()):
            return f"the first gradient that was not finite was that of {_called(name, layer)}"


def _layers(net):
    """(name, layer) of all layers that are not made of others, in forward order."""
    return [(name, module) for name, module in net.named_modules() if not module.children()]


def _called(name, layer):
    return f"layer {name} ({type(layer).__name__})" if name else f"the {type(layer).__name__}"


def _finite(array):
    array = np.asarray(device.to_host(array))
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
