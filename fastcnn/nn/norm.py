"""Batch, group, layer and instance normalisation."""

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor
from fastcnn.nn import initialisers
from fastcnn.nn.module import Module, Parameter


class _Norm(Module):
    """What normalisations share: a scale and a shift per channel."""

    reads = frozenset({"x"})

    def __init__(self, channels, eps, dtype):
        self.eps, channels = checks.number("eps", eps, 0), checks.integer("channels", channels, 1)
        self.weight = Parameter(initialisers.constant(channels, 1, dtype))
        self.bias = Parameter(initialisers.constant(channels, 0, dtype))

    @property
    def channels(self):
        return len(self.weight.data)

    def _normalised(self, x):
        """x, checked; begins a forward pass."""
        x = self._input(x)
        checks.at_least_2d("x", x)
        checks.shape("x", x, (len(x), self.channels, *x.shape[2:]))
        return x

    def _keep(self, gradients):
        for parameter, gradient in zip((self.weight, self.bias), gradients, strict=True):
            if parameter.trainable:
                device.assign(parameter.grad, gradient)


class BatchNorm2d(_Norm):
    """Batch normalisation per channel of (N, C, ...) input, optionally with the ReLU that follows fused into it.

    Parameters
    ----------
    channels : int
    eps : float, added to the variance
    momentum : float in [0, 1]: running = momentum running + (1 - momentum) batch, with the biased variance
    relu : bool
    dtype : float32 or float64

    Attributes
    ----------
    training : bool, whether x is normalised by the batch's moments, and the running ones follow these
        Never while the layer is frozen, whatever `train` says.
    """

    statistics = ("running_mean", "running_var")
    _training = True

    def __init__(self, channels, eps=1e-5, momentum=0.9, relu=False, dtype=np.float32):
        super().__init__(channels, eps, dtype)
        self.momentum, self.relu = checks.number("momentum", momentum, 0, 1), relu
        self.running_mean, self.running_var = np.zeros(channels, dtype), np.ones(channels, dtype)

    @property
    def training(self):
        return self._training and self.learns

    @training.setter
    def training(self, mode):
        self._training = mode

    def forward(self, x):
        return self.compute(x)

    def compute(self, x, add=None, relu=False, moments=None):
        """The output, + add (not with a ReLU of its own), and with `relu` the ReLU that follows, in one pass.

        `moments` are the mean and variance of x's channels, where they are known already. `backward` is that of both
        the layer and the ReLU if there is no `add`, otherwise that of the layer, and `backward_sum` that of all.
        """
        x, relu = self._normalised(x), relu or self.relu
        self._in_training, self._rectified, self._summed = self.training, relu, add is not None
        norm, more = floor("norm", x), "_add" if self._summed else ""
        terms = (self._term(add, x, x.shape),) if self._summed else ()
        arrays = x, *terms, self.weight.data, self.bias.data
        given = moments if self.training else (self.running_mean, self.running_var)
        if given is None:
            forward = getattr(norm, f"batchnorm{more}_forward")
            out, *given = forward(*arrays, self.eps, relu, self._output(x))
        else:
            out = getattr(norm, f"batchnorm{more}_inference")(*arrays, *given, self.eps, relu, self._output(x))
        self._moments = given
        if self.training and x.size:
            for running, batch in zip((self.running_mean, self.running_var), given, strict=True):
                norm.moving_average(running, batch, self.momentum, running)
        return self._done(out)

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if not (need_dx or self.learns):
            return None
        norm = floor("norm", dout)
        function = norm.batchnorm_backward if self._in_training else norm.batchnorm_inference_backward
        arrays, out = (dout, self._x, self.weight.data, self.bias.data, *self._moments), self.memory.over(dout)
        dx, *gradients = function(*arrays, self.eps, self._rectified and not self._summed, out)
        self._keep(gradients)
        return dx if need_dx else None

    def backward_sum(self, dout, need_dx=True):
        """The gradients of x (None without `need_dx`) and `add`, of `compute` with that."""
        dout = self._output_gradient(dout)
        norm = floor("norm", dout)
        function = norm.batchnorm_add_backward if self._in_training else norm.batchnorm_add_inference_backward
        arrays = dout, self._x, self._out, self.weight.data, *self._moments
        out = self.memory.take(dout.shape, dout), self.memory.over(dout)
        dx, dadd, *gradients = function(*arrays, self.eps, self._rectified, out)
        self._keep(gradients)
        return dx if need_dx else None, dadd


class GroupNorm(_Norm):
    """Group normalisation of (N, C, ...) input: each image's groups of neighbouring channels by their own moments.

    Parameters
    ----------
    groups : int, a divisor of `channels`
    channels : int
    eps : float, added to the variance
    dtype : float32 or float64
    """

    def __init__(self, groups, channels, eps=1e-5, dtype=np.float32):
        super().__init__(channels, eps, dtype)
        self.groups = checks.divisor("groups", groups, channels)

    def forward(self, x):
        x = self._normalised(x)
        arrays = x, self.weight.data, self.bias.data
        out, *self._moments = floor("norm", x).groupnorm_forward(*arrays, self.groups, self.eps, self._output(x))
        return self._done(out)

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if not (need_dx or self.learns):
            return None
        arrays, out = (dout, self._x, self.weight.data, *self._moments), self.memory.over(dout)
        dx, *gradients = floor("norm", dout).groupnorm_backward(*arrays, self.groups, self.eps, out)
        self._keep(gradients)
        return dx if need_dx else None


class LayerNorm(GroupNorm):
    """Layer normalisation: each row of (N, D) input, or each image of (N, C, H, W), by its own mean and variance.

    That is one group; scale and shift are per feature, or per channel.
    """

    def __init__(self, channels, eps=1e-5, dtype=np.float32):
        super().__init__(1, channels, eps, dtype)


class InstanceNorm2d(GroupNorm):
    """Instance normalisation: each channel of each image of (N, C, H, W) by its own mean and variance.

    That is as many groups as channels.
    """

    def __init__(self, channels, eps=1e-5, dtype=np.float32):
        super().__init__(channels, channels, eps, dtype)

    def _normalised(self, x):
        x = super()._normalised(x)
        checks.rank("x", x, "(N, C, H, W)")
        return x


BatchNorm1d = BatchNorm2d  # by the name that it goes by where input is (N, D)
