"""Activations."""

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor
from fastcnn.nn import initialisers
from fastcnn.nn.module import Module, Parameter


class Elementwise(Module):
    """What activations without parameters share: input of any shape, each number by itself.

    Attributes
    ----------
    op : str, the name of the op
    arguments : tuple, what it takes besides x
    saved : {"_x", "_out"}: what its derivative is a function of
    """

    arguments, saved = (), "_x"

    @property
    def reads(self):
        return {self.saved[1:]}

    def forward(self, x):
        x = self._input(x)
        function = getattr(floor("activation", x), f"{self.op}_forward")
        return self._done(function(x, *self.arguments, out=self._output(x)))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            function = getattr(floor("activation", dout), f"{self.op}_backward")
            return function(dout, getattr(self, self.saved), *self.arguments, out=self.memory.over(dout))


class ReLU(Elementwise):
    """max(x, 0)."""

    op = "relu"


class LeakyReLU(Elementwise):
    """x where x > 0, slope x elsewhere (Maas et al. 2013)."""

    op = "leaky_relu"

    def __init__(self, slope=0.1):
        self.arguments = (checks.number("slope", slope),)


class ELU(Elementwise):
    """x where x > 0, alpha (exp(x) - 1) elsewhere (Clevert et al. 2015)."""

    op = "elu"

    def __init__(self, alpha=1.0):
        self.arguments = (checks.number("alpha", alpha),)


class GELU(Elementwise):
    """x Phi(x), Phi the normal distribution (Hendrycks & Gimpel 2016); `approximate="tanh"` for its other form."""

    op = "gelu"

    def __init__(self, approximate="none"):
        self.arguments = (checks.choice("approximate", approximate, ("none", "tanh")),)


class Sigmoid(Elementwise):
    """1 / (1 + exp(-x))."""

    op, saved = "sigmoid", "_out"


class Tanh(Elementwise):
    """tanh(x)."""

    op, saved = "tanh", "_out"


class PReLU(Module):
    """Leaky ReLU of (N, C, ...) input whose slope is learned (He et al. 2015).

    Parameters
    ----------
    channels : int
        That of the input, for a slope per channel; 1 for one slope for all channels.
    slope : float, to begin with
    dtype : float32 or float64
    """

    def __init__(self, channels=1, slope=0.25, dtype=np.float32):
        channels, slope = checks.integer("channels", channels, 1), checks.number("slope", slope)
        self.weight = Parameter(initialisers.constant(channels, slope, dtype))

    reads = frozenset({"x"})

    @property
    def channels(self):
        return len(self.weight.data) if len(self.weight.data) > 1 else None

    def forward(self, x):
        x = self._input(x)
        checks.at_least_2d("x", x)
        checks.shape("x", x, (len(x), self.channels or x.shape[1], *x.shape[2:]))
        return self._done(floor("activation", x).prelu_forward(x, self.weight.data, out=self._output(x)))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if not (need_dx or self.learns):
            return None
        function = floor("activation", dout).prelu_backward
        dx, dslope = function(dout, self._x, self.weight.data, out=self.memory.over(dout))
        if self.weight.trainable:
            device.assign(self.weight.grad, dslope)
        return dx if need_dx else None


class Maxout(Module):
    """The maximum of each `pieces` neighbouring channels (Goodfellow et al. 2013); C becomes C/pieces."""

    reads = frozenset({"x"})

    def __init__(self, pieces):
        self.pieces = checks.integer("pieces", pieces, 1)

    def output_shape(self, shape):
        channels, *image = shape
        return channels // checks.divisor("pieces", self.pieces, channels), *image

    def forward(self, x):
        x = self._input(x)
        checks.at_least_2d("x", x)
        out = self._output(x, (len(x), *self.output_shape(x.shape[1:])))
        return self._done(floor("activation", x).maxout_forward(x, self.pieces, out=out))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            dx = self.memory.take(self._x.shape, self._x)
            return floor("activation", dout).maxout_backward(dout, self._x, self.pieces, out=dx)
