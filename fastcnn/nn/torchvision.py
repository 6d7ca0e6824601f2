"""Weights of VGG and ResNet nets by the names that torchvision gives them, as files of weights have them.

What differs from the nets of `fastcnn.nn` beside names: weights of affine layers are transposed there, (M, D); and in
VGG nets a convolution has a bias there even if a batch norm follows, which is loaded as what it amounts to, a shift of
the running mean, and saved as zero. Dictionaries are of NumPy arrays, as from `safetensors.numpy.load_file`.
"""

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.nn.activation import ReLU
from fastcnn.nn.containers import Residual
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.linear import Flatten, Linear
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.pool import MaxPool2d


def state_dict(net):
    """The parameters and statistics of a net of the VGG or ResNet family, by torchvision's names.

    As in `net.state_dict()` arrays are the net's own, but for those that had to be transposed or copied from a GPU.

    Raises
    ------
    ValueError
        If the net is of neither family.
    """
    state, own = {}, {name: device.to_host(array) for name, array in net.state_dict().items()}
    for name, (ours, layer) in _layers(net).items():
        for key in layer.state_dict():
            array = own[f"{ours}.{key}"]
            state[f"{name}.{key}"] = np.ascontiguousarray(array.T if isinstance(layer, Linear) else array)
        if isinstance(layer, BatchNorm2d):
            state[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)
    for bias, norm in _lost_biases(net).items():
        state[bias] = np.zeros_like(state[f"{norm}.bias"])
    return state


def load_state_dict(net, state):
    """Copy arrays by torchvision's names into a net of the VGG or ResNet family.

    Raises
    ------
    ValueError
        If the net is of neither family, names are missing or unknown, or a shape differs; nothing is changed then.
    """
    state = {k: checks.as_array(f"state[{k!r}]", v) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    biases = {norm: state.pop(bias) for bias, norm in _lost_biases(net).items() if bias in state}
    given, wanted = {}, set()
    for name, (ours, layer) in _layers(net).items():
        for key, array in layer.state_dict().items():
            wanted.add(f"{name}.{key}")
            if f"{name}.{key}" not in state:
                continue
            value = state[f"{name}.{key}"]
            value = value.T if isinstance(layer, Linear) else value
            checks.shape(f"state[{name}.{key}]", value, array.shape)
            if key == "running_mean" and name in biases:
                checks.shape(f"the bias before {name}", biases[name], array.shape)
                value = value - biases[name]
            given[f"{ours}.{key}"] = value
    if wanted != state.keys():
        missing, unknown = sorted(wanted - state.keys()), sorted(state.keys() - wanted)
        raise ValueError(f"state: not of this net; missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    net.load_state_dict(given)


def _layers(net):
    """torchvision's name of each layer with parameters: (its own name, the layer), in forward order."""
    residual = any(isinstance(layer, Residual) for layer in net.children().values())
    return dict(_resnet(net) if residual else _vgg(net))


def _resnet(net):
    stage, block, stem = 1, 0, {Conv2d: "conv1", BatchNorm2d: "bn1", Linear: "fc"}
    for ours, layer in net.children().items():
        if type(layer) in stem:
            yield stem[type(layer)], (ours, layer)
        if not isinstance(layer, Residual):
            continue
        if layer.shortcut and block:  # which the first block of a stage has
            stage, block = stage + 1, 0
        prefix = f"layer{stage}.{block}"
        for i, inner in enumerate(layer.main.layers):
            yield f"{prefix}.{('conv', 'bn')[i % 2]}{i // 2 + 1}", (f"{ours}.main.{i}", inner)
        for i, inner in enumerate(layer.shortcut.layers if layer.shortcut else ()):
            yield f"{prefix}.downsample.{i}", (f"{ours}.shortcut.{i}", inner)
        block += 1


def _vgg(net):
    part, place = "features", 0
    for ours, layer in net.children().items():
        if not isinstance(layer, Conv2d | BatchNorm2d | ReLU | MaxPool2d | Flatten | Linear | Dropout):
            raise ValueError(f"net: expected one of the VGG or ResNet family, got a layer {type(layer).__name__}")
        if isinstance(layer, Flatten):
            part, place = "classifier", 0
            continue
        if layer.state_dict():
            yield f"{part}.{place}", (ours, layer)
        place += 2 if isinstance(layer, BatchNorm2d) and layer.relu else 1  # a ReLU is a layer of its own there


def _lost_biases(net):
    """VGG nets with batch norm: the name of each bias that is cancelled, and of the batch norm that does so."""
    named = list(_layers(net).items())
    return {
        f"{name}.bias": norm
        for (name, (_, layer)), (norm, (_, following)) in zip(named, named[1:], strict=False)
        if name.startswith("features") and isinstance(layer, Conv2d) and isinstance(following, BatchNorm2d)
    }
