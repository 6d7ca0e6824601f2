"""Snapshots of nets for inference: batch norms folded into the layers before them, all else in as few passes.

This is the one place where something made of weights may be kept: a snapshot is asked for by name, `net.inference()`.
"""

import copy

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.algorithm import preferred
from fastcnn.layers.backend import floor
from fastcnn.nn.activation import ReLU
from fastcnn.nn.containers import Identity, Residual, Sequential
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.linear import Linear
from fastcnn.nn.module import Module
from fastcnn.nn.norm import BatchNorm2d


class Inference(Module):
    """A net as it was when the snapshot was made, in test mode, without gradients.

    Batch norms are folded into the convolution or affine layer before them, w' = w gamma / sqrt(var + eps) and
    b' = (b - mean) gamma / sqrt(var + eps) + beta (computed in float64); ReLU and the sum of a residual block are done
    where a convolution writes its output; dropout is gone. Outputs lie in a few buffers that are used in turn. Training
    the net later, or changing its weights, does not change the snapshot, which has no parameters of its own.

    Parameters
    ----------
    net : Module
    """

    training = gradients = False

    def __init__(self, net):
        dtypes = {parameter.data.dtype for _, parameter in net.named_parameters()}
        self.dtype = dtypes.pop() if len(dtypes) == 1 else None
        self._net = Sequential(*_frozen(net)).eval()
        if any(device.is_device(parameter.data) for _, parameter in net.named_parameters()):
            self._net.to(device.to_device)

    def children(self):
        return {}

    def output_shape(self, shape):
        return self._net.output_shape(shape)

    def forward(self, x):
        """The net's output for a batch x of the net's dtype; valid for as long as it is kept."""
        (x,) = checks.floats(x=x)
        if self.dtype is not None and x.dtype != self.dtype:
            raise TypeError(f"x: expected {self.dtype}, as the net's parameters, got {x.dtype}")
        return self._net.forward(x)

    def backward(self, dout, need_dx=True):
        raise RuntimeError("a snapshot for inference has no backward pass; the net that it was made of has")

    def trace(self, view, name):
        raise RuntimeError("a snapshot for inference has no summary; the net that it was made of has")

    def inference(self):
        return self

    def _switch(self, training, gradients):
        if training or gradients:
            raise RuntimeError("a snapshot for inference cannot be trained; the net that it was made of can")
        return self


def _frozen(module):
    """The layers that compute what `module` does in test mode."""
    frozen = []
    for layer in _in_order(module):
        if not (frozen and isinstance(frozen[-1], _Weighted) and frozen[-1].absorb(layer)):
            frozen += _FROZEN.get(type(layer), _copy)(layer)
    return frozen


def _in_order(module):
    """The layers of nested sequences, one after the other. What is derived from `Sequential` may do as it likes."""
    if type(module) is not Sequential:
        return [module]
    return [layer for inner in module.layers for layer in _in_order(inner)]


def _copy(layer):
    return [copy.deepcopy(layer)]


def _residual(block):
    shortcut = Sequential(*_frozen(block.shortcut)) if block.shortcut else None
    return [Residual(Sequential(*_frozen(block.main)), shortcut)]


class _Weighted(Module):
    """A layer with a weight, whose axis `outputs` has an entry for each output channel, a bias, and perhaps a ReLU."""

    relu = False
    statistics = ("weight", "bias")

    def __init__(self, layer):
        self.weight = device.to_host(layer.weight.data).copy()
        self.bias = np.zeros(self.weight.shape[self.outputs], self.weight.dtype)
        if layer.bias is not None:
            device.assign(self.bias, layer.bias.data)

    def absorb(self, layer):
        """Take over what `layer` does with this one's output; returns whether that is possible."""
        if type(layer) is ReLU:
            self.relu = True
            return True
        if type(layer) is not BatchNorm2d or self.relu or len(layer.weight.data) != len(self.bias):
            return False
        names = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, var = (device.to_host(layer.state_dict()[name]).astype(np.float64) for name in names)
        scale, along = gamma / np.sqrt(var + layer.eps), [1] * self.weight.ndim
        along[self.outputs] = len(scale)
        self.weight[...] = self.weight * scale.reshape(along)
        self.bias[...] = (self.bias - mean) * scale + beta
        self.relu = layer.relu
        return True


class _Conv2d(_Weighted):
    """A convolution, and what it has absorbed."""

    outputs = 0

    def __init__(self, conv):
        super().__init__(conv)
        self.geometry = {
            "stride": conv.stride, "pad": conv.padding, "dilation": conv.dilation, "groups": conv.groups
        }  # fmt: skip

    def output_shape(self, shape):
        filters, _, *kernel = self.weight.shape
        window = (self.geometry[name] for name in ("stride", "pad", "dilation"))
        return filters, *checks.window(shape[1:], kernel, *window)

    def forward(self, x):
        return self._convolve(x, None, self.relu)

    def forward_residual(self, x, add):
        return super().forward_residual(x, add) if self.relu else self._convolve(x, add, True)

    def _convolve(self, x, add, relu):
        x = self._input(x)
        checks.rank("x", x, "(N, C, H, W)")
        checks.shape("x", x, (len(x), self.weight.shape[1] * self.geometry["groups"], *x.shape[2:]))
        shape = (len(x), *self.output_shape(x.shape[1:]))
        checks.shape("shortcut", add, shape)
        out = self._output(x, shape)
        options = {"relu": relu, "algo": preferred(), "add": add, "out": out}
        return floor("conv", x).conv_forward(x, self.weight, self.bias, **self.geometry, **options)


class _Linear(_Weighted):
    """An affine layer, and what it has absorbed."""

    outputs = 1

    def output_shape(self, shape):
        return self.weight.shape[1:]

    def forward(self, x):
        x = self._input(x)
        checks.rank("x", x, "(N, D)")
        checks.shape("x", x, (len(x), self.weight.shape[0]))
        out = self._output(x, (len(x), self.weight.shape[1]))
        return floor("linear", x).affine_forward(x, self.weight, self.bias, relu=self.relu, out=out)


_FROZEN = {
    Conv2d: lambda layer: [_Conv2d(layer)],
    Linear: lambda layer: [_Linear(layer)],
    Residual: _residual,
    Dropout: lambda layer: [],
    Identity: lambda layer: [],
}
