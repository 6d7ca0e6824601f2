"""Weights of VGG and ResNet nets by the names that torchvision gives them, as files of weights have them.

What differs from the nets of `fastcnn.nn` beside names: weights of affine layers are transposed there, (M, D); and in
VGG nets a convolution has a bias there even if a batch norm follows, which is loaded as what it amounts to, a shift of
the running mean, and saved as zero. Dictionaries are of NumPy arrays, as from `safetensors.numpy.load_file`.
"""

from collections import Counter

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.nn.activation import ReLU
from fastcnn.nn.containers import Residual
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.finetuning import stages
from fastcnn.nn.linear import Flatten, Linear
from fastcnn.nn.module import check_names
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


def load_state_dict(net, state, head="load"):
    """Copy arrays by torchvision's names into a net of the VGG or ResNet family.

    Parameters
    ----------
    net : Sequential
    state : dict of arrays
    head : {"load", "skip"}
        "skip" leaves the net's last affine layer as it is, and may be used with a state of another number of classes;
        of a VGG net also with one that has more affine layers.

    Raises
    ------
    ValueError
        If the net is of neither family, names are missing or unknown, or a shape differs; nothing is changed then.
    """
    state = {k: checks.as_array(f"state[{k!r}]", v) for k, v in state.items() if not k.endswith("num_batches_tracked")}
    layers, own = _layers(net), net.state_dict()
    last = list(layers)[-1]
    if checks.choice("head", head, ("load", "skip")) == "skip":
        layers.pop(last)
        state = {key: value for key, value in state.items() if not _at_or_behind(last, key)}
    biases = {norm: state.pop(bias) for bias, norm in _lost_biases(net).items() if bias in state}
    check_names([f"{name}.{key}" for name, (_, layer) in layers.items() for key in layer.state_dict()], state)
    given = {}
    for name, (ours, layer) in layers.items():
        for key, array in layer.state_dict().items():
            value = state[f"{name}.{key}"]
            value = value.T if isinstance(layer, Linear) else value
            if name == last and value.shape != array.shape and value.shape[:-1] == array.shape[:-1]:
                raise ValueError(
                    f"state[{name}.{key}]: weights for {value.shape[-1]} classes, the net has {array.shape[-1]}; "
                    "head='skip' loads all but this layer"
                )
            checks.shape(f"state[{name}.{key}]", value, array.shape)
            if key == "running_mean" and name in biases:
                checks.shape(f"the bias before {name}", biases[name], array.shape)
                value = value - biases[name]
            given[f"{ours}.{key}"] = value
    net.load_state_dict(own | given)


_RESNETS = {  # blocks of each stage, convolutions of a block
    ((2, 2, 2, 2), 2): "resnet18",
    ((3, 4, 6, 3), 2): "resnet34",
    ((3, 4, 6, 3), 3): "resnet50",
    ((3, 3, 3), 2): "resnet20",
    ((5, 5, 5), 2): "resnet32",
    ((9, 9, 9), 2): "resnet56",
}
_VGGS = {8: "vgg11", 10: "vgg13", 13: "vgg16", 16: "vgg19"}  # by their convolutions


def recognise(state):
    """Which network has weights of these names and shapes, by torchvision's names.

    Returns
    -------
    name : str, of `nn.NETWORKS`
    channels, classes : int, of the images and the scores; classes None if the affine layers are missing
    options : dict, of `nn.build`, such as the width

    Raises
    ------
    ValueError
        If it is no network of the VGG or ResNet family that `nn` has.
    """
    shapes = {key: np.shape(state[key]) for key in sorted(state) if key.endswith("weight")}
    affine = [shape for shape in shapes.values() if len(shape) == 2]
    first, name, options = (), None, {}
    if "conv1.weight" in shapes:
        first = shapes["conv1.weight"]
        blocks = Counter(stage for stage, _ in {tuple(key.split(".")[:2]) for key in shapes if key[:5] == "layer"})
        counts = tuple(blocks[stage] for stage in sorted(blocks))
        name = _RESNETS.get((counts, 3 if "layer1.0.conv3.weight" in shapes else 2))
        options = {} if len(counts) == 3 else {"stem": "imagenet" if first[2:] == (7, 7) else "cifar"}
    elif "features.0.weight" in shapes:
        first = shapes["features.0.weight"]
        name = _VGGS.get(sum(len(shape) == 4 for shape in shapes.values()))
        head = "imagenet" if len(affine) == 3 else "cifar"
        options = {"batch_norm": "features.1.weight" in shapes, "head": head}
    if name is None or len(first) != 4:
        some = ", ".join(list(state)[:3]) or "none"
        raise ValueError(f"state: expected the names of a VGG or ResNet net of torchvision, got {some}, ...")
    return name, first[1], affine[-1][0] if affine else None, {"width": first[0], **options}


def _at_or_behind(layer, key):
    """Whether an array's name is of this layer, or of one behind it in the same part of the net."""
    part, _, place = layer.partition(".")
    other, _, number = key.rpartition(".")[0].partition(".")
    return other == part and (number == place or number.isdigit() and place.isdigit() and int(number) > int(place))


def _layers(net):
    """torchvision's name of each layer with parameters: (its own name, the layer), in forward order."""
    residual = any(isinstance(layer, Residual) for layer in net.children().values())
    return dict(_resnet(net) if residual else _vgg(net))


def _resnet(net):
    single = {Conv2d: "conv1", BatchNorm2d: "bn1", Linear: "fc"}
    for number, stage in enumerate(stages(net)):  # the stem is 0
        for ours, layer in stage.items():
            if type(layer) in single:
                yield single[type(layer)], (ours, layer)
            elif layer.state_dict() and not isinstance(layer, Residual):
                raise ValueError(f"net: torchvision's ResNets have nothing like layer {ours}, {type(layer).__name__}")
        blocks = {ours: layer for ours, layer in stage.items() if isinstance(layer, Residual)}
        for block, (ours, layer) in enumerate(blocks.items()):
            prefix = f"layer{number}.{block}"
            for i, inner in enumerate(layer.main.layers):
                yield f"{prefix}.{('conv', 'bn')[i % 2]}{i // 2 + 1}", (f"{ours}.main.{i}", inner)
            for i, inner in enumerate(layer.shortcut.layers if layer.shortcut else ()):
                yield f"{prefix}.downsample.{i}", (f"{ours}.shortcut.{i}", inner)


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
