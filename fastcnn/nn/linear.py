"""The affine layer, and what stands between it and images."""

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor
from fastcnn.nn import initialisers
from fastcnn.nn.module import Module, Parameter


class Linear(Module):
    """Affine layer of (N, D) input; weight (D, M), bias (M,).

    The weight is He-normal; with `relu=False`, the layer that gives class scores, Xavier-normal.
    """

    window = None
    reads = frozenset({"x"})

    def __init__(self, in_features, out_features, bias=True, relu=False, rng=None, dtype=np.float32):
        initialiser = initialisers.kaiming if relu else initialisers.xavier
        shape = checks.integer("in_features", in_features, 1), checks.integer("out_features", out_features, 1)
        weight = initialiser(rng or np.random.default_rng(), shape, dtype=dtype)
        self.weight = Parameter(weight)
        self.bias = Parameter(initialisers.constant(out_features, dtype=dtype)) if bias else None

    @property
    def channels(self):
        return self.weight.data.shape[0]

    def output_shape(self, shape):
        return self.weight.data.shape[1:]

    def flops(self, shape):
        return 2 * self.weight.data.size

    def forward(self, x):
        return self.compute(x)

    def compute(self, x, relu=False):
        """The output, and with `relu` the ReLU that follows, in one pass; `backward` is that of `forward`."""
        x = self._input(x)
        checks.rank("x", x, "(N, D)")
        checks.shape("x", x, (len(x), self.channels))
        bias = None if self.bias is None else self.bias.data
        out = self._output(x, (len(x), self.weight.data.shape[1]))
        return self._done(floor("linear", x).affine_forward(x, self.weight.data, bias, relu=relu, out=out))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        linear = floor("linear", dout)
        if self.weight.trainable:
            linear.affine_backward_weight(dout, self._x, out=self.weight.grad)
        if self.bias is not None and self.bias.trainable:
            linear.affine_backward_bias(dout, out=self.bias.grad)
        if need_dx:
            dx = self.memory.take(self._x.shape, self._x)
            return linear.affine_backward_input(dout, self.weight.data, out=dx)


class Flatten(Module):
    """(N, d1, ..., dk) to (N, D)."""

    passes_on, reads = True, frozenset()

    def output_shape(self, shape):
        return (int(np.prod(shape)),)

    def forward(self, x):
        x = self._input(x)
        checks.at_least_2d("x", x)
        return self._done(device.reshape(x, (len(x), *self.output_shape(x.shape[1:]))))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        return device.reshape(dout, self._x.shape) if need_dx else None
