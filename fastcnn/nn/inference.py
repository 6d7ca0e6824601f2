"""Snapshots of nets for inference: batch norms folded into the layers before them, all else in as few passes.

This is the one place where something made of weights may be kept: a snapshot is asked for by name, `net.inference()`.
"""

import copy
from collections import Counter

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.nn.activation import ReLU
from fastcnn.nn.containers import Composition
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.joins import Identity
from fastcnn.nn.linear import Linear
from fastcnn.nn.module import Parameter
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.plan import Line, Program, plain


class Inference(Composition):
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
        program = Program(net, getattr(net, "inputs", 1))
        self.inputs, self.single = len(program.inputs), getattr(net, "single", True)
        self.keys = getattr(net, "keys", None)
        self._lines, self._outputs = _folded(program)
        on_device = any(device.is_device(parameter.data) for _, parameter in net.named_parameters())
        for layer, *_ in self._lines:
            layer.eval()
            if on_device:
                layer.to(device.to_device)

    def children(self):
        return {}

    def expand(self, program, values, name):
        """Add the layers of the snapshot to a `Program`."""
        values = dict(enumerate(values))
        for layer, inputs, output, own, _ in self._lines:
            values[output] = program.add(layer, tuple(values[value] for value in inputs), own)
        return tuple(values[value] for value in self._outputs)

    def forward(self, *inputs):
        """The net's output for a batch of the net's dtype; valid for as long as it is kept."""
        for name, x in zip(("x", *(f"inputs[{i}]" for i in range(1, len(inputs)))), inputs, strict=True):
            (x,) = checks.floats(**{name: x})
            if self.dtype is not None and x.dtype != self.dtype:
                raise TypeError(f"{name}: expected {self.dtype}, as the net's parameters, got {x.dtype}")
        return super().forward(*inputs)

    def backward(self, dout, need_dx=True):
        raise RuntimeError("a snapshot for inference has no backward pass; the net that it was made of has")

    def summary(self, *input_shapes):
        raise RuntimeError("a snapshot for inference has no summary; the net that it was made of has")

    def inference(self):
        return self

    def _switch(self, training, gradients):
        if training or gradients:
            raise RuntimeError("a snapshot for inference cannot be trained; the net that it was made of can")
        return self


def _folded(program):
    """The lines of a program, of copies of its layers, as they are in test mode; and the outputs of that program."""
    same = {}  # of a value that is another one in test mode: that one

    def value(number):
        while number in same:
            number = same[number]
        return number

    for layer, inputs, output, *_ in program.lines:
        if plain(layer, Dropout) or plain(layer, Identity):
            same[output] = inputs[0]
    rest = [line for line in program.lines if line.output not in same]
    uses = Counter(map(value, program.outputs))
    uses.update(value(number) for line in rest for number in line.inputs)
    lines, weighted = [], {}
    for layer, inputs, output, name, _ in rest:
        inputs = tuple(map(value, inputs))
        before = weighted.get(inputs[0])
        if before is not None and uses[inputs[0]] == 1 and plain(layer, BatchNorm2d):
            _fold(before, layer)
            if not layer.relu:
                same[output], uses[inputs[0]] = inputs[0], uses[output]
                continue
            layer = ReLU()
        own = _copy(layer)
        if plain(layer, Conv2d) or plain(layer, Linear):
            weighted[output] = own
        lines.append(Line(own, inputs, output, name))
    return lines, tuple(map(value, program.outputs))


def _copy(layer):
    """A copy of a layer, in the memory of the host and without memory for gradients."""
    own = copy.deepcopy(layer).to(device.to_host)
    for _, parameter in own.named_parameters():
        parameter.grad = parameter.data[:0]
    return own


def _fold(layer, norm):
    """Let a convolution or affine layer also do what a batch norm does with its output, in test mode."""
    outputs = 0 if isinstance(layer, Conv2d) else 1  # the axis of its weight
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, var = (device.to_host(norm.state_dict()[name]).astype(np.float64) for name in names)
    weight, scale = layer.weight.data, gamma / np.sqrt(var + norm.eps)
    checks.shape("the batch norm", scale, (weight.shape[outputs],))
    along = [1] * weight.ndim
    along[outputs] = len(scale)
    bias = 0 if layer.bias is None else layer.bias.data
    weight[...] = weight * scale.reshape(along)
    layer.bias = Parameter(((bias - mean) * scale + beta).astype(weight.dtype))
