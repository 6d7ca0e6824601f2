"""Stateful layers, initialisers and networks."""

from fastcnn.nn import initialisers, memory, torchvision
from fastcnn.nn.flat import FlatParameters
from fastcnn.nn.inference import Inference
from fastcnn.nn.layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)
from fastcnn.nn.module import Module, Parameter
from fastcnn.nn.networks import (
    lenet,
    mlp,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet50,
    resnet56,
    small_cnn,
    vgg11,
    vgg13,
    vgg16,
    vgg19,
)

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "FlatParameters",
    "Flatten",
    "GlobalAvgPool2d",
    "Inference",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "initialisers",
    "lenet",
    "memory",
    "mlp",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet50",
    "resnet56",
    "small_cnn",
    "torchvision",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]
