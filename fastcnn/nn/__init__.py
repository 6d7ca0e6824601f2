"""Stateful layers, initialisers and networks."""

from fastcnn.nn import initialisers, memory, torchvision
from fastcnn.nn.activation import ELU, GELU, LeakyReLU, Maxout, PReLU, ReLU, Sigmoid, Tanh
from fastcnn.nn.containers import Residual, Sequential
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.explain import Explanation
from fastcnn.nn.finetuning import freeze_all_but_top, head, layerwise_rates, replace_head, stages
from fastcnn.nn.flat import FlatParameters
from fastcnn.nn.graph import Graph
from fastcnn.nn.inference import Inference
from fastcnn.nn.joins import Add, Concatenate, Identity
from fastcnn.nn.linear import Flatten, Linear
from fastcnn.nn.module import Module, Parameter
from fastcnn.nn.networks import (
    NETWORKS,
    build,
    lenet,
    mlp,
    network_options,
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
from fastcnn.nn.norm import BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm
from fastcnn.nn.pool import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from fastcnn.nn.sharing import distance_penalty
from fastcnn.nn.summary import Summary
from fastcnn.nn.symbols import Input, Node

__all__ = [
    "Add",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Concatenate",
    "Conv2d",
    "Dropout",
    "ELU",
    "Explanation",
    "FlatParameters",
    "Flatten",
    "GELU",
    "GlobalAvgPool2d",
    "Graph",
    "GroupNorm",
    "Identity",
    "Inference",
    "Input",
    "InstanceNorm2d",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "MaxPool2d",
    "Maxout",
    "Module",
    "NETWORKS",
    "Node",
    "PReLU",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Summary",
    "Tanh",
    "build",
    "distance_penalty",
    "freeze_all_but_top",
    "head",
    "initialisers",
    "layerwise_rates",
    "lenet",
    "memory",
    "mlp",
    "network_options",
    "replace_head",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet50",
    "resnet56",
    "small_cnn",
    "stages",
    "torchvision",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
]
