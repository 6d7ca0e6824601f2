"""Convolution."""

import math

import numpy as np

from fastcnn.layers import checks
from fastcnn.layers.algorithm import preferred
from fastcnn.layers.backend import floor
from fastcnn.nn import initialisers
from fastcnn.nn.module import Module, Parameter


class Conv2d(Module):
    """2-D convolution of (N, C, H, W) images; He-normal weight (F, C/groups, HH, WW), zero bias (F,).

    Leave the bias out (`bias=False`) where a batch norm follows: it would be cancelled.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, padding, dilation : int or pair (vertical, horizontal)
    groups : int
    bias : bool
    rng : numpy Generator for the weight, by default a fresh one
    dtype : float32 or float64
    """

    reads = frozenset({"x"})

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, rng=None,
        dtype=np.float32,
    ):  # fmt: skip
        self.stride, self.padding = checks.pair("stride", stride, 1), checks.pair("padding", padding, 0)
        self.dilation = checks.pair("dilation", dilation, 1)
        self.groups = checks.integer("groups", groups, 1)
        in_channels = checks.integer("in_channels", in_channels, 1)
        out_channels = checks.integer("out_channels", out_channels, 1)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups: expected a divisor of {in_channels} and {out_channels}, got {groups}")
        shape = (out_channels, in_channels // groups, *checks.pair("kernel_size", kernel_size, 1))
        self.weight = Parameter(initialisers.kaiming(rng or np.random.default_rng(), shape, dtype=dtype))
        self.bias = Parameter(initialisers.constant(out_channels, dtype=dtype)) if bias else None

    @property
    def channels(self):
        return self.weight.data.shape[1] * self.groups

    @property
    def window(self):
        return self.weight.data.shape[2:], self.stride, self.dilation

    def flops(self, shape):
        _, *image = self.output_shape(shape)
        return 2 * self.weight.data.size * math.prod(image)

    def output_shape(self, shape):
        filters, _, *kernel = self.weight.data.shape
        return filters, *checks.window(shape[1:], kernel, self.stride, self.padding, self.dilation)

    def forward(self, x):
        return self.compute(x)

    def compute(self, x, add=None, relu=False):
        """The output, + add, and with `relu` the ReLU that follows, in one pass; `backward` is that of `forward`."""
        return self._done(self._convolve("conv_forward", x, add=add, relu=relu))

    def compute_moments(self, x):
        """The output, and the mean and biased variance of each of its channels, gathered on the way."""
        out, mean, var = self._convolve("conv_moments_forward", x)
        return self._done(out), mean, var

    def _convolve(self, op, x, add=None, **options):
        x = self._input(x)
        checks.rank("x", x, "(N, C, H, W)")
        checks.shape("x", x, (len(x), self.channels, *x.shape[2:]))
        shape = (len(x), *self.output_shape(x.shape[1:]))
        if add is not None:
            options["add"] = self._term(add, x, shape)
        bias = None if self.bias is None else self.bias.data
        out = self._output(x, shape)
        return getattr(floor("conv", x), op)(x, self.weight.data, bias, **self._geometry(), **options, out=out)

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        conv, x, weight, geometry = floor("conv", dout), self._x, self.weight, self._geometry()
        if weight.trainable:
            conv.conv_backward_filter(dout, x, weight.data.shape, **geometry, out=weight.grad)
        if self.bias is not None and self.bias.trainable:
            conv.conv_backward_bias(dout, out=self.bias.grad)
        if need_dx:
            dx = self.memory.take(x.shape, x)
            return conv.conv_backward_input(dout, weight.data, x.shape, **geometry, out=dx)

    def _geometry(self):
        pairs = {"stride": self.stride, "pad": self.padding, "dilation": self.dilation}
        return {**pairs, "groups": self.groups, "algo": preferred()}
