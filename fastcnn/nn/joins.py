"""What has several inputs, and what does nothing to one."""

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor
from fastcnn.nn.memory import shared
from fastcnn.nn.module import Module


class Identity(Module):
    """x itself."""

    passes_on, reads = True, frozenset()

    def forward(self, x):
        return self._done(self._input(x))

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        return dout if need_dx else None


class _Join(Module):
    """A function of two or more arrays, without parameters."""

    reads = frozenset()

    def _inputs(self, inputs):
        """The inputs, plain arrays of one dtype; begins a forward pass."""
        if len(inputs) < 2:
            raise ValueError(f"inputs: expected at least two, got {len(inputs)}")
        self._input(inputs[0])
        return checks.floats(**{f"inputs[{i}]": array for i, array in enumerate(inputs)})


class Add(_Join):
    """The sum of two or more arrays of one shape, optionally with the ReLU that follows fused into it.

    `forward` takes them one by one; `backward` gives as many gradients, which are one array, not to be written to.

    Parameters
    ----------
    relu : bool
    """

    relu = False

    def __init__(self, relu=False):
        self.relu = relu

    @property
    def reads(self):
        return {"out"} if self.relu else frozenset()

    def output_shape(self, *shapes):
        for i, shape in enumerate(shapes[1:], 1):
            if tuple(shape) != tuple(shapes[0]):
                raise ValueError(f"inputs[{i}]: expected shape {tuple(shapes[0])}, got {tuple(shape)}")
        return tuple(shapes[0])

    def forward(self, *inputs):
        return self.compute(*inputs)

    def compute(self, *inputs, relu=False):
        """The sum, and with `relu` the ReLU that follows; `backward` is that of both."""
        x, *others = self._inputs(inputs)
        for i, other in enumerate(others, 1):
            checks.shape(f"inputs[{i}]", other, x.shape)
        self._terms, self._rectified = len(inputs), relu or self.relu
        total, out = x, self._output(shared(x) if checks.overlap(x, *others) else x)
        for i, other in enumerate(others, 2):
            rectify = self._rectified and i == len(inputs)
            total = floor("activation", x).add_forward(total, other, relu=rectify, out=out)
        return self._done(total)

    def stands_for(self, out):
        super().stands_for(out)
        self._terms, self._rectified = 2, self.relu

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        if not need_dx:
            return None
        if self._rectified:
            dout = floor("activation", dout).relu_backward(dout, self._out, out=self.memory.over(dout))
        return (shared(dout),) * self._terms


class Concatenate(_Join):
    """Two or more arrays (N, C, ...) one behind the other along their channels; the rest of their shapes is the same.

    `forward` takes them one by one; `backward` gives as many gradients, which are parts of dout.
    """

    def output_shape(self, *shapes):
        (_, *rest), *others = shapes
        for i, shape in enumerate(others, 1):
            if list(shape[1:]) != rest:
                raise ValueError(f"inputs[{i}]: expected shape ({', '.join(map(str, ('C', *rest)))}), got {shape}")
        return sum(shape[0] for shape in shapes), *rest

    def forward(self, *inputs):
        inputs = self._inputs(inputs)
        for array in inputs:
            checks.at_least_2d("inputs", array)
            checks.shape("inputs", array, (len(inputs[0]), *array.shape[1:]))
        out = self._output(inputs[0], (len(inputs[0]), *self.output_shape(*(array.shape[1:] for array in inputs))))
        self._channels = [array.shape[1] for array in inputs]
        for part, array in zip(self._parts(out), inputs, strict=True):
            device.assign(part, array)
        return self._done(out)

    def backward(self, dout, need_dx=True):
        dout = self._output_gradient(dout)
        return tuple(self._parts(shared(dout))) if need_dx else None

    def _parts(self, array):
        """The channels of each input, of an array like the output."""
        last = 0
        for channels in self._channels:
            first, last = last, last + channels
            yield array[:, first:last]
