"""Stateful layers, initialisers and networks."""

from fastcnn.nn import initialisers
from fastcnn.nn.flat import FlatParameters
from fastcnn.nn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential
from fastcnn.nn.module import Module, Parameter
from fastcnn.nn.networks import small_cnn

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "FlatParameters",
    "Flatten",
    "Linear",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "initialisers",
    "small_cnn",
]
