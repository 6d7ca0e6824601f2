"""What every stateful layer is: parameters with gradients, statistics, buffers that outlive a step, and two passes."""

import numpy as np


class Parameter:
    """An array that is learned, `data`, and the gradient `grad` that the last backward pass left.

    A layer writes into these arrays and never replaces them, so that both may be views of one flat buffer.
    """

    __slots__ = ("data", "grad")

    def __init__(self, data):
        self.data, self.grad = data, np.zeros_like(data)


class Module:
    """A layer or a composition of layers.

    A subclass defines `forward(x)`, `backward(dout, need_dx)` and `output_shape(shape)`. Parameters are attributes of type
    `Parameter`, sub-layers attributes of type `Module`; arrays that are saved but not learned are named in `statistics`.
    What `forward` and `backward` return is valid until the same layer runs again.
    """

    training = True
    statistics = ()

    def __call__(self, x):
        return self.forward(x)

    def forward(self, x):
        """The layer's output for a batch x."""
        raise NotImplementedError

    def backward(self, dout, need_dx=True):
        """Write the gradients of the parameters; return the gradient of the input, or None without `need_dx`."""
        raise NotImplementedError

    def output_shape(self, shape):
        """Shape of one image's output for an input of `shape` (both without the batch axis); by default the same."""
        return shape

    def children(self):
        """The direct sub-layers by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Module)}

    def modules(self):
        """This layer and all below it, in forward order."""
        yield self
        for child in self.children().values():
            yield from child.modules()

    def named_parameters(self, prefix=""):
        """(name, Parameter) of this layer and all below it; names are joined by dots."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, child in self.children().items():
            yield from child.named_parameters(f"{prefix}{name}.")

    def train(self, mode=True):
        """Switch this layer and all below it to training (or, with False, test) behaviour."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Switch to test behaviour."""
        return self.train(False)

    def state_dict(self, prefix=""):
        """All parameters and statistics by name; the arrays themselves, not copies."""
        state = {prefix + name: value.data for name, value in vars(self).items() if isinstance(value, Parameter)}
        state |= {prefix + name: getattr(self, name) for name in self.statistics}
        for name, child in self.children().items():
            state |= child.state_dict(f"{prefix}{name}.")
        return state

    def load_state_dict(self, state):
        """Copy arrays into parameters and statistics.

        Raises
        ------
        ValueError
            If names are missing or unknown, or a shape differs; nothing is changed then.
        """
        own = self.state_dict()
        if own.keys() != state.keys():
            missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise ValueError(f"state: not of this net; missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
        for name, array in own.items():
            if np.shape(state[name]) != array.shape:
                raise ValueError(f"state[{name!r}]: expected shape {array.shape}, got {np.shape(state[name])}")
        for name, array in own.items():
            array[...] = state[name]

    def _buffer(self, name, shape, dtype):
        """An array of this shape that belongs to the layer; the memory is that of the last call where it suffices."""
        buffers = self.__dict__.setdefault("_buffers", {})
        size = int(np.prod(shape))
        memory = buffers.get(name)
        if memory is None or memory.size < size or memory.dtype != dtype:
            memory = buffers[name] = np.empty(size, dtype)
        return memory[:size].reshape(shape)
