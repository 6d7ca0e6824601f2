"""The nets that whole steps are measured on, and a plain description of a net that other libraries build it from."""

import functools

from fastcnn import nn

NETS = {
    "resnet20": lambda: nn.resnet20(10),
    "vgg11": lambda: nn.vgg11(10),
    "resnet18": lambda: nn.resnet18(10, stem="cifar"),
}
IMAGE = (3, 32, 32)
CLASSES = 10


def describe(net):
    """The layers of a net in order, as (kind, dictionary of arrays and numbers); arrays are the net's own.

    Raises
    ------
    TypeError
        For a layer that is none of those that these nets are made of.
    """
    if isinstance(net, nn.Sequential):
        return [layer for part in net.layers for layer in describe(part)]
    if isinstance(net, nn.Residual):
        shortcut = describe(net.shortcut) if net.shortcut else []
        return [("residual", {"main": describe(net.main), "shortcut": shortcut})]
    if isinstance(net, nn.Conv2d):
        bias = None if net.bias is None else net.bias.data
        return [("conv", {"w": net.weight.data, "b": bias, "stride": net.stride, "pad": net.padding})]
    if isinstance(net, nn.BatchNorm2d):
        arrays = {"gamma": net.weight.data, "beta": net.bias.data, "mean": net.running_mean, "var": net.running_var}
        return [("batchnorm", {**arrays, "eps": net.eps}), *([("relu", {})] if net.relu else [])]
    if isinstance(net, nn.MaxPool2d):
        return [("max_pool", {"size": net.size, "stride": net.stride, "pad": net.padding})]
    if isinstance(net, nn.GlobalAvgPool2d):
        return [("global_avg_pool", {})]
    if isinstance(net, nn.Flatten):
        return [("flatten", {})]
    if isinstance(net, nn.Linear):
        return [("linear", {"w": net.weight.data, "b": net.bias.data})]
    raise TypeError(f"net: expected layers of the nets measured here, got {type(net).__name__}")


@functools.cache
def cost(name):
    """Multiply-adds of one of the nets, for one image."""
    return multiply_adds(NETS[name]())


def multiply_adds(net, shape=IMAGE):
    """Multiply-adds of a net's convolutions and affine layers, for one image."""
    if isinstance(net, nn.Sequential):
        total = 0
        for layer in net.layers:
            total += multiply_adds(layer, shape)
            shape = layer.output_shape(shape)
        return total
    if isinstance(net, nn.Residual):
        return multiply_adds(net.main, shape) + (multiply_adds(net.shortcut, shape) if net.shortcut else 0)
    if isinstance(net, nn.Conv2d):
        _, height, width = net.output_shape(shape)
        return net.weight.data.size * height * width
    return net.weight.data.size if isinstance(net, nn.Linear) else 0
