"""Layers made of layers."""

import itertools

from fastcnn.layers import checks
from fastcnn.layers.backend import floor
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.memory import shared
from fastcnn.nn.module import Module
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.summary import Row


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

    @property
    def sums_in_place(self):
        return bool(self.layers) and self.layers[-1].sums_in_place

    def trace(self, view, name):
        rows = []
        for child, layer in self.children().items():
            more, view = layer.trace(view, _below(name, child))
            rows += more
        return rows, view

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
            first = self._first(need_dx)
            for i in reversed(range(first, len(self.layers))):
                dout = self.layers[i].backward(dout, need_dx or i > first)
            return dout if need_dx else None

    def backward_residual(self, dout, need_dx=True):
        if not self.layers:
            return super().backward_residual(dout, need_dx)
        with self.memory.passing(dout) as dout:
            first, last = self._first(need_dx), len(self.layers) - 1
            dout, dadd = self.layers[last].backward_residual(dout, need_dx or last > first)
            for i in reversed(range(first, last)):
                dout = self.layers[i].backward(dout, need_dx or i > first)
            return dout if need_dx else None, dadd

    def _first(self, need_dx):
        """Where a backward pass ends: at the first layer that learns, without `need_dx`."""
        learning = (i for i, layer in enumerate(self.layers) if layer.learns)
        return 0 if need_dx else next(learning, len(self.layers))


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

    def trace(self, view, name):
        rows, after = self.main.trace(view, _below(name, "main"))
        if self.shortcut:
            more, view = self.shortcut.trace(view, _below(name, "shortcut"))
            rows += more
        after = after.joined(view)
        memory = 0 if self.main.sums_in_place else after.memory
        return [*rows, Row(name, type(self).__name__, after.shape, 0, 0, after.field, memory)], after

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


class Identity(Module):
    """x itself."""

    keeps_output = False

    def forward(self, x):
        return self._done(self._input(x))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        return dout if need_dx else None


class Add(Module):
    """The sum of two or more arrays of one shape.

    `forward` takes them one by one; `backward` gives as many gradients, which are one array, not to be written to.
    """

    def forward(self, *inputs):
        if len(inputs) < 2:
            raise ValueError(f"inputs: expected at least two, got {len(inputs)}")
        self._input(inputs[0])
        x, *others = checks.floats(**{f"inputs[{i}]": array for i, array in enumerate(inputs)})
        for i, other in enumerate(others, 1):
            checks.shape(f"inputs[{i}]", other, x.shape)
        self._terms, total, out = len(inputs), x, self._output(shared(x) if checks.overlap(x, *others) else x)
        for other in others:
            total = floor("activation", x).add_forward(total, other, out=out)
        return self._done(total)

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        return (shared(dout),) * self._terms if need_dx else None


def _below(name, child):
    """The name of a layer within the layer of that name."""
    return f"{name}.{child}" if name else child
