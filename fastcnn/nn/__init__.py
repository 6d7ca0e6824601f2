"""Stateful layers, initialisers and networks."""

from fastcnn.nn import initialisers, memory, torchvision
from fastcnn.nn.activation import ReLU
from fastcnn.nn.containers import Residual, Sequential
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.flat import FlatParameters
from fastcnn.nn.inference import Inference
from fastcnn.nn.linear import Flatten, Linear
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
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d

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
