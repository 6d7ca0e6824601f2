"""Stateful layers: each owns parameters, their gradients and its buffers, so that a step allocates next to nothing."""

import itertools

import numpy as np

from fastcnn.common.philox import derive_key
from fastcnn.layers import checks, device
from fastcnn.layers.algorithm import preferred
from fastcnn.layers.backend import floor
from fastcnn.nn import initialisers
from fastcnn.nn.memory import shared
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

    def output_shape(self, shape):
        filters, _, *kernel = self.weight.data.shape
        return filters, *checks.window(shape[1:], kernel, self.stride, self.padding, self.dilation)

    def forward(self, x):
        return self._done(self._convolve("conv_forward", x))

    def forward_moments(self, x):
        """The output, and the mean and biased variance of each of its channels, gathered on the way."""
        out, mean, var = self._convolve("conv_moments_forward", x)
        return self._done(out), mean, var

    def _convolve(self, op, x):
        x = self._input(x)
        checks.rank("x", x, "(N, C, H, W)")
        checks.shape("x", x, (len(x), self.weight.data.shape[1] * self.groups, *x.shape[2:]))
        bias = None if self.bias is None else self.bias.data
        out = self._output(x, (len(x), *self.output_shape(x.shape[1:])))
        return getattr(floor("conv", x), op)(x, self.weight.data, bias, **self._geometry(), out=out)

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        conv, x, weight, geometry = floor("conv", dout), self._x, self.weight, self._geometry()
        conv.conv_backward_filter(dout, x, weight.data.shape, **geometry, out=weight.grad)
        if self.bias is not None:
            conv.conv_backward_bias(dout, out=self.bias.grad)
        if need_dx:
            dx = self.memory.take(x.shape, x)
            return conv.conv_backward_input(dout, weight.data, x.shape, **geometry, out=dx)

    def _geometry(self):
        pairs = {"stride": self.stride, "pad": self.padding, "dilation": self.dilation}
        return {**pairs, "groups": self.groups, "algo": preferred()}


class Linear(Module):
    """Affine layer of (N, D) input; weight (D, M), bias (M,).

    The weight is He-normal; with `relu=False`, the layer that gives class scores, Xavier-normal.
    """

    def __init__(self, in_features, out_features, bias=True, relu=False, rng=None, dtype=np.float32):
        initialiser = initialisers.kaiming if relu else initialisers.xavier
        shape = checks.integer("in_features", in_features, 1), checks.integer("out_features", out_features, 1)
        weight = initialiser(rng or np.random.default_rng(), shape, dtype=dtype)
        self.weight = Parameter(weight)
        self.bias = Parameter(initialisers.constant(out_features, dtype=dtype)) if bias else None

    def output_shape(self, shape):
        return self.weight.data.shape[1:]

    def forward(self, x):
        x = self._input(x)
        checks.rank("x", x, "(N, D)")
        checks.shape("x", x, (len(x), self.weight.data.shape[0]))
        bias = None if self.bias is None else self.bias.data
        out = self._output(x, (len(x), self.weight.data.shape[1]))
        return self._done(floor("linear", x).affine_forward(x, self.weight.data, bias, out=out))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        linear = floor("linear", dout)
        linear.affine_backward_weight(dout, self._x, out=self.weight.grad)
        if self.bias is not None:
            linear.affine_backward_bias(dout, out=self.bias.grad)
        if need_dx:
            dx = self.memory.take(self._x.shape, self._x)
            return linear.affine_backward_input(dout, self.weight.data, out=dx)


class BatchNorm2d(Module):
    """Batch normalisation per channel of (N, C, ...) input, optionally with the ReLU that follows fused into it.

    Parameters
    ----------
    channels : int
    eps : float, added to the variance
    momentum : float in [0, 1]: running = momentum running + (1 - momentum) batch, with the biased variance
    relu : bool
    dtype : float32 or float64
    """

    statistics = ("running_mean", "running_var")

    def __init__(self, channels, eps=1e-5, momentum=0.9, relu=False, dtype=np.float32):
        self.eps, self.momentum = checks.number("eps", eps, 0), checks.number("momentum", momentum, 0, 1)
        self.relu, channels = relu, checks.integer("channels", channels, 1)
        self.weight = Parameter(initialisers.constant(channels, 1, dtype))
        self.bias = Parameter(initialisers.constant(channels, 0, dtype))
        self.running_mean, self.running_var = np.zeros(channels, dtype), np.ones(channels, dtype)

    def forward(self, x, moments=None):
        """`moments`: mean and variance of x's channels, where they are known already."""
        return self._normalise(x, None, moments, self.relu)

    def forward_residual(self, x, add, moments=None):
        if self.relu:
            return super().forward_residual(x, add)
        return self._normalise(x, add, moments, True)

    def _normalise(self, x, add, moments, relu):
        x = self._input(x)
        checks.at_least_2d("x", x)
        checks.shape("x", x, (len(x), len(self.weight.data), *x.shape[2:]))
        checks.shape("shortcut", add, x.shape)
        self._in_training, norm, more = self.training, floor("norm", x), "" if add is None else "_add"
        arrays = (x, *(() if add is None else (add,)), self.weight.data, self.bias.data)
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
        norm = floor("norm", dout)
        function = norm.batchnorm_backward if self._in_training else norm.batchnorm_inference_backward
        arrays, out = (dout, self._x, self.weight.data, self.bias.data, *self._moments), self.memory.over(dout)
        dx, *gradients = function(*arrays, self.eps, self.relu, out)
        self._keep(gradients)
        return dx if need_dx else None

    def backward_residual(self, dout, need_dx=True):
        if self.relu:
            return super().backward_residual(dout, need_dx)
        dout = self._output_gradient(dout)
        norm = floor("norm", dout)
        function = norm.batchnorm_add_backward if self._in_training else norm.batchnorm_add_inference_backward
        arrays = dout, self._x, self._out, self.weight.data, *self._moments
        out = self.memory.take(dout.shape, dout), self.memory.over(dout)
        dx, dadd, *gradients = function(*arrays, self.eps, True, out)
        self._keep(gradients)
        return dx if need_dx else None, dadd

    def _keep(self, gradients):
        for parameter, gradient in zip((self.weight, self.bias), gradients, strict=True):
            device.assign(parameter.grad, gradient)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        x = self._input(x)
        return self._done(floor("activation", x).relu_forward(x, out=self._output(x)))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            return floor("activation", dout).relu_backward(dout, self._x, out=self.memory.over(dout))


class _WindowPool(Module):
    """What pooling over windows of (N, C, H, W) images shares; the stride is the window's size unless given."""

    def __init__(self, kernel_size, stride=None, padding=0):
        self.size, self.padding = checks.pair("kernel_size", kernel_size, 1), checks.pair("padding", padding, 0)
        if any(2 * pad > length for pad, length in zip(self.padding, self.size, strict=True)):
            raise ValueError(f"padding: expected at most half the window {self.size}, got {self.padding}")
        self.stride = self.size if stride is None else checks.pair("stride", stride, 1)

    def output_shape(self, shape):
        return shape[0], *checks.window(shape[1:], *self._windows)

    def forward(self, x):
        x = self._input(x)
        checks.rank("x", x, "(N, C, H, W)")
        out = self._output(x, (len(x), *self.output_shape(x.shape[1:])))
        return self._done(self._pool(floor("pool", x), x, out))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            return self._spread(floor("pool", dout), dout, self.memory.take(self._x.shape, self._x))

    @property
    def _windows(self):
        return self.size, self.stride, self.padding


class MaxPool2d(_WindowPool):
    """Maximum over windows of (N, C, H, W) images; the stride is the window's size unless given."""

    def _pool(self, pool, x, out):
        return pool.max_pool_forward(x, *self._windows, out)

    def _spread(self, pool, dout, out):
        return pool.max_pool_backward(dout, self._x, *self._windows, out)


class AvgPool2d(_WindowPool):
    """Mean over windows of (N, C, H, W) images, padding as zeros; the stride is the window's size unless given."""

    def _pool(self, pool, x, out):
        return pool.avg_pool_forward(x, *self._windows, out)

    def _spread(self, pool, dout, out):
        return pool.avg_pool_backward(dout, self._x.shape, *self._windows, out)


class GlobalAvgPool2d(Module):
    """Mean of each channel of (N, C, H, W) images: (N, C)."""

    def output_shape(self, shape):
        return shape[:1]

    def forward(self, x):
        x = self._input(x)
        checks.rank("x", x, "(N, C, H, W)")
        checks.window(x.shape[2:], (1, 1), (1, 1), (0, 0))
        return self._done(floor("pool", x).global_avg_pool_forward(x, self._output(x, x.shape[:2])))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if need_dx:
            out = self.memory.take(self._x.shape, self._x)
            return floor("pool", dout).global_avg_pool_backward(dout, self._x.shape, out)


class Dropout(Module):
    """Drop elements in training with probability `drop`, and scale what is kept by 1/(1 - drop).

    No mask is stored: it is a function of `key`, the number of the step, and the element's index.

    Parameters
    ----------
    drop : float in [0, 1), the probability of *dropping* (the functional API's p is that of keeping)
    key : int in [0, 2**64)
    """

    def __init__(self, drop=0.5, key=0):
        if not 0 <= checks.number("drop", drop) < 1:
            raise ValueError(f"drop: expected a number in [0, 1), got {drop}")
        self.keep, self.key, self.step = 1 - drop, checks.integer("key", key, 0, 2**64 - 1), 0

    def forward(self, x):
        x = self._input(x)
        self._active = self.training and self.keep < 1
        if not self._active:
            return self._done(x)
        self.step += 1
        self._step_key = derive_key(self.key, self.step)
        return self._done(floor("dropout", x).dropout_forward(x, self.keep, self._step_key, self._output(x)))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if not self._active or not need_dx:
            return dout if need_dx else None
        return floor("dropout", dout).dropout_backward(dout, self.keep, self._step_key, self.memory.over(dout))


class Flatten(Module):
    """(N, d1, ..., dk) to (N, D)."""

    def output_shape(self, shape):
        return (int(np.prod(shape)),)

    def forward(self, x):
        x = self._input(x)
        checks.at_least_2d("x", x)
        return self._done(device.reshape(x, (len(x), *self.output_shape(x.shape[1:]))))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        return device.reshape(dout, self._x.shape) if need_dx else None


class Sequential(Module):
    """Layers one after the other, named "0", "1", ... as in torchvision's state dicts.

    Each stands there once: it remembers one forward pass.
    """

    def __init__(self, *modules):
        if len(set(map(id, modules))) != len(modules):
            raise ValueError("modules: expected different layers, got one of them twice")
        self.layers = list(modules)

    def children(self):
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def output_shape(self, shape):
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return tuple(shape)

    def forward(self, x):
        with self.memory.passing(x) as x:
            x, moments = self._all_but_last(x)
            return self.layers[-1].forward(x, **moments) if self.layers else x

    def forward_residual(self, x, add):
        if not self.layers:
            return super().forward_residual(x, add)
        with self.memory.passing(x) as x:
            x, moments = self._all_but_last(x)
            return self.layers[-1].forward_residual(x, shared(add), **moments)

    def _all_but_last(self, x):
        """What the last layer is given: its x, and the moments of that if it normalises with them."""
        moments = {}
        for layer in self.layers:
            layer._memory = self.memory
        for layer, following in itertools.pairwise(self.layers):
            if isinstance(layer, Conv2d) and isinstance(following, BatchNorm2d) and following.training:
                x, *pair = layer.forward_moments(x)
                moments = {"moments": pair}
            else:
                x, moments = layer.forward(x, **moments), {}
        return x, moments

    def backward(self, dout, need_dx=True):
        with self.memory.passing(dout) as dout:
            for i in reversed(range(len(self.layers))):
                dout = self.layers[i].backward(dout, need_dx or i > 0)
            return dout

    def backward_residual(self, dout, need_dx=True):
        if not self.layers:
            return super().backward_residual(dout, need_dx)
        with self.memory.passing(dout) as dout:
            last = len(self.layers) - 1
            dout, dadd = self.layers[last].backward_residual(dout, need_dx or last > 0)
            for i in reversed(range(last)):
                dout = self.layers[i].backward(dout, need_dx or i > 0)
            return dout, dadd


class Residual(Module):
    """relu(main(x) + shortcut(x)), the block of He et al., "Deep Residual Learning" (2015), figure 2.

    Parameters
    ----------
    main : Module
    shortcut : Module or None
        None: x itself, which must then have the shape of main(x).
    """

    def __init__(self, main, shortcut=None):
        if main is shortcut:
            raise ValueError("shortcut: expected another layer than main, got the same")
        self.main, self.shortcut = main, shortcut

    def output_shape(self, shape):
        return tuple(self.main.output_shape(shape))

    def forward(self, x):
        with self.memory.passing(x) as x:
            for branch in self.children().values():
                branch._memory = self.memory
            (x,) = checks.floats(x=shared(x))
            return self.main.forward_residual(x, self.shortcut.forward(x) if self.shortcut else x)

    def backward(self, dout, need_dx=True):
        with self.memory.passing(dout) as dout:
            dx, dadd = self.main.backward_residual(dout, need_dx)
            if self.shortcut:
                dadd = self.shortcut.backward(dadd, need_dx)
            if need_dx:
                return floor("activation", dx).add_forward(dx, dadd, out=self.memory.over(dx))
