"""What every stateful layer is: parameters with gradients, statistics, buffers that outlive a step, and two passes."""

import math

from fastcnn.layers import checks, device
from fastcnn.nn.memory import Form, Memory, aligned
from fastcnn.nn.summary import Row, Summary, View
from fastcnn.nn.symbols import Call, Node

# What a pass leaves in a layer; a copy of the layer starts without.
WORK = frozenset(
    {
        "_x", "_out", "_step", "_brief", "_moments", "_in_training", "_rectified", "_summed", "_terms", "_channels",
        "_active", "_step_key", "_buffers", "_memory", "_plan",
    }
)  # fmt: skip


class _Carried:
    """An array of a GPU in the state of an object that is copied or pickled: on the host, and where it belongs."""

    def __init__(self, array):
        self.array = device.to_host(array)

    @classmethod
    def over(cls, value):
        """A value that can be copied or pickled."""
        return cls(value) if device.is_device(value) else value

    @classmethod
    def back(cls, value):
        """What `over` was given."""
        return device.to_device(value.array) if isinstance(value, cls) else value


class Parameter:
    """An array that is learned, `data`, and the gradient `grad` that the last backward pass left.

    A layer writes into these arrays and never replaces them, so that both may be views of one flat buffer. While
    `trainable` is unset, optimizers leave `data` as it is, and layers need not compute `grad`.

    Raises
    ------
    TypeError
        If `data` is neither float32 nor float64.
    """

    __slots__ = ("data", "grad", "trainable")

    def __init__(self, data):
        (self.data,) = checks.floats(data=data)
        self.grad = device.zeros(self.data.shape, self.data)
        self.trainable = True

    def __getstate__(self):
        return tuple(map(_Carried.over, (self.data, self.grad, self.trainable)))

    def __setstate__(self, state):
        self.data, self.grad, self.trainable = map(_Carried.back, state)


class Module:
    """A layer or a composition of layers.

    A subclass defines `forward(x)`, `backward(dout, need_dx)` and `output_shape(shape)`. Parameters are attributes of
    type `Parameter`, sub-layers attributes of type `Module`; arrays that are saved but not learned are named in
    `statistics`. A layer of several inputs takes them one by one, and its `backward` gives a tuple of gradients. For
    `summary`, a layer says what differs from a function of single numbers: `channels`, `window`, `flops(shape)`,
    `passes_on`; a composition of its own kind defines `trace(name, *views)`.

    Called with nodes (`nn.Input`) instead of arrays, a layer computes nothing and gives a node, for an `nn.Graph`.

    While `gradients` is set, a layer's output lies in a buffer of its own, where the backward pass finds it: what
    `forward` returns is valid until the same layer runs again. All else, gradients and the outputs of nets in test
    mode, lies in memory that the layers of a container share: an array is the caller's for as long as it is kept, and
    its memory is used again after that. Within a pass of a container layers write over what was handed to them where
    they can, but never over what the container's caller holds, nor over what a layer of another package was given:
    that one may read it as long as it likes, and hand it on, but not write to it.
    """

    training = True
    gradients = True
    statistics = ()
    channels = None  # that the input must have, None: any
    window = (1, 1), (1, 1), (1, 1)  # kernel, stride and dilation; None: each output sees all of the input
    passes_on = False  # whether its output is its input, perhaps in another shape
    reads = frozenset({"x", "out"})  # which a backward pass reads, of input and output
    counters = ()  # names of attributes that forward passes count up
    _x = _out = None  # input and output of the last forward pass, None while there is none
    _step = None  # what ran the layer along with others in the last forward pass
    _brief = False  # whether nobody reads its output after the forward pass

    def __call__(self, *inputs, name=None):
        """`forward`; of nodes a node, of a call that goes by `name` in the graph."""
        if Node in map(type, inputs):
            return self.call(Call(self, inputs, name))
        if name is not None:
            raise TypeError("name: expected none for arrays, only for nodes of a graph")
        return self.forward(*inputs)

    def call(self, call):
        """What this layer gives for nodes."""
        return Node(call)

    def forward(self, x):
        """The layer's output for a batch x."""
        raise NotImplementedError

    def backward(self, dout, need_dx=True):
        """Write the gradients of the parameters; return the gradient of the input, or None without `need_dx`."""
        raise NotImplementedError

    @property
    def output(self):
        """What the last forward pass gave; None where it is not kept.

        That is so without `gradients`, and where no backward pass reads it. It is also so if the pass went on to the
        next layer's output at once: of a convolution that was fused with the ReLU behind it, `output` is None, and
        that of the ReLU is what there is.
        """
        within = self._step is not None and self._step.layers[-1] is not self
        return None if within or isinstance(self._out, Form) else self._out

    def forget(self, given, out):
        """Keep no more than the form of the input, if `given`, and of the output, if `out`."""
        if given and self._x is not None:
            self._x = Form.of(self._x)
        if out and self._out is not None:
            self._out = Form.of(self._out)

    def stands_for(self, out):
        """Be as after a forward pass that gave `out`, which another layer computed along with its own."""
        self._x = self._out = out if self.gradients else None

    def forget_pass(self):
        """Be as if there had been no forward pass."""
        self._x = self._out = self._step = None

    def lower(self, program, values, name):
        """Add this layer to a `Program`, for an input of these values; returns the values that it gives, a tuple."""
        return (program.add(self, values, name),)

    def output_shape(self, shape):
        """Shape of one image's output for an input of `shape` (both without the batch axis); by default the same."""
        return shape

    def flops(self, *shapes):
        """Floating-point operations of the products for inputs of these shapes, two for each multiply-add."""
        return 0

    def summary(self, *input_shapes):
        """A table of the layers, for one image: shapes, parameters, FLOPs, receptive fields, memory.

        Parameters
        ----------
        input_shapes : tuples, (C, H, W) or (D,); one for each input

        Returns
        -------
        nn.Summary
            `str` of it is the table, `rows` are its data.

        Raises
        ------
        ValueError
            If images of that shape do not fit the net.
        TypeError
            If a composition does not say how it is traced.
        """
        from fastcnn.nn.plan import Plan, Program  # which are made of layers, as those are of modules

        shapes = _shapes(input_shapes)
        itemsize = max((parameter.data.dtype.itemsize for _, parameter in self.named_parameters()), default=4)
        ones = [(1,) * len(shape[1:]) for shape in shapes]
        views = [View(shape, one, one, itemsize) for shape, one in zip(shapes, ones, strict=True)]
        return Summary(Plan(Program(self, len(shapes))).rows(views))

    def explain(self, *input_shapes, batch=1, mode="train"):
        """How the net runs: which layers in one pass, which others not and why, and which memory holds what.

        Parameters
        ----------
        input_shapes : tuples, (C, H, W) or (D,); one for each input
        batch : int, images
        mode : {"train", "test"}

        Returns
        -------
        nn.Explanation
            `str` of it is the text.
        """
        from fastcnn.nn.explain import Explanation

        return Explanation(self, _shapes(input_shapes), batch, mode)

    def trace(self, name, *views):
        """The rows of this layer's summary, and the `View` of its output, for inputs seen as `views`."""
        if self.children():
            raise TypeError(f"{name or 'net'}: expected a layer, or a composition with a method trace, got {self!r}")
        for view in views:
            if self.channels not in (None, view.shape[0]):
                raise ValueError(f"{name or 'net'}: expected input of {self.channels} channels, got {view.shape}")
        view, shapes = View.joined(views), [view.shape for view in views]
        after = view.through(self.output_shape(*shapes), self.window)
        parameters = sum(parameter.data.size for _, parameter in self.named_parameters())
        memory = 0 if self.passes_on else after.memory
        row = Row(name, type(self).__name__, after.shape, parameters, self.flops(*shapes), after.field, memory)
        return [row], after

    def children(self):
        """The direct sub-layers by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Module)}

    def modules(self):
        """This layer and all below it, in forward order."""
        yield self
        for child in self.children().values():
            yield from child.modules()

    def named_modules(self, prefix=""):
        """(name, Module) of this layer, whose name is `prefix`, and all below it, in forward order."""
        yield prefix, self
        for name, child in self.children().items():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self, prefix=""):
        """(name, Parameter) of this layer and all below it; names are joined by dots."""
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
        for name, child in self.children().items():
            yield from child.named_parameters(f"{prefix}{name}.")

    def train(self, mode=True):
        """Switch this layer and all below it to training (or, with False, test) behaviour."""
        return self._switch(mode, mode)

    def eval(self, gradients=False):
        """Switch to test behaviour; with `gradients`, forward passes keep what a backward pass needs.

        Without, outputs share memory, two or three of the largest in all, and there is no backward pass.
        """
        return self._switch(False, gradients)

    def _switch(self, training, gradients):
        for module in self.modules():
            module.training, module.gradients = training, gradients
        return self

    def freeze(self):
        """Keep all parameters of this layer and those below it as they are; returns the layer.

        Optimizers leave them alone from their next step on, bit for bit, and backward passes end where nothing below
        is learned. A frozen batch norm is in test mode, also after `train`: its running statistics stay as they are.
        """
        for _, parameter in self.named_parameters():
            parameter.trainable = False
            device.assign(parameter.grad, 0)
        return self

    def unfreeze(self):
        """The opposite of `freeze`."""
        for _, parameter in self.named_parameters():
            parameter.trainable = True
        return self

    @property
    def learns(self):
        """Whether a parameter of this layer, or of one below it, is trainable."""
        return any(parameter.trainable for _, parameter in self.named_parameters())

    def inference(self):
        """A snapshot of this net for inference, faster than the net itself: an `nn.Inference`."""
        from fastcnn.nn.inference import Inference

        return Inference(self)

    def to(self, move):
        """Move parameters, gradients and statistics to other memory; returns the net.

        Parameters
        ----------
        move : function of an array, `fastcnn.to_device` or `fastcnn.to_host`
            If it fails for one array, all stay where they are.
        """
        moved = []
        for module in self.modules():
            parameters = [value for value in vars(module).values() if isinstance(value, Parameter)]
            moved += [(owner, name, move(getattr(owner, name))) for owner in parameters for name in ("data", "grad")]
            moved += [(module, name, move(getattr(module, name))) for name in module.statistics]
        for owner, name, array in moved:
            setattr(owner, name, array)
        return self

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
            If names are missing or unknown, a shape differs, or an array holds no numbers; nothing is changed then.
        """
        own = self.state_dict()
        check_names(own, state)
        given = {name: checks.as_array(f"state[{name!r}]", array) for name, array in state.items()}
        for name, array in own.items():
            checks.shape(f"state[{name!r}]", given[name], array.shape)
            if given[name].dtype.kind not in "fiu":
                raise ValueError(f"state[{name!r}]: expected numbers, got {given[name].dtype}")
        for name, array in own.items():
            device.assign(array, given[name])

    def counts(self):
        """What forward passes count up, by name: on the step of a `Dropout` its mask depends."""
        return {f"{name}.{counter}": getattr(module, counter) for name, module, counter in self._counters()}

    def load_counts(self, counts):
        """Go on from what `counts` gave; ValueError, and nothing changed, if it is of another net."""
        if counts.keys() != self.counts().keys():
            raise ValueError(f"counts: expected {sorted(self.counts())}, got {sorted(counts)}")
        for name, count in counts.items():
            checks.integer(f"counts[{name!r}]", count, 0)
        for name, module, counter in self._counters():
            setattr(module, counter, counts[f"{name}.{counter}"])

    def _counters(self):
        return [(name, module, counter) for name, module in self.named_modules() for counter in module.counters]

    @property
    def memory(self):
        """Where the layer borrows memory: its container's, once that has run, or its own."""
        if "_memory" not in self.__dict__:
            self._memory = Memory()
        return self._memory

    def __getstate__(self):
        return {name: _Carried.over(value) for name, value in vars(self).items() if name not in WORK}

    def __setstate__(self, state):
        vars(self).update({name: _Carried.back(value) for name, value in state.items()})

    def _input(self, x):
        """x as the floors need it, a plain array of the parameters' dtype; begins a forward pass."""
        self.forget_pass()
        (x,) = checks.floats(x=x)
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                checks.same_memory(**{name: value.data, "x": x})
                if value.data.dtype != x.dtype:
                    raise TypeError(f"x: expected {value.data.dtype}, as the layer's parameters, got {x.dtype}")
        self._x = x if self.gradients else None
        return x

    def _term(self, add, x, shape):
        """An array to be added to the output for x, which is of this shape."""
        (add,) = checks.floats(add=add)
        checks.same_memory(x=x, add=add)
        checks.shape("add", add, shape)
        if add.dtype != x.dtype:
            raise TypeError(f"add: expected {x.dtype}, as x, got {add.dtype}")
        return add

    def _output(self, x, shape=None):
        """The array that the output for x goes to; `shape`: of outputs for which x itself is not to be used."""
        if self._brief:
            return self.memory.take(x.shape if shape is None else shape, x)
        if self.gradients:
            out = self._buffer("out", x.shape if shape is None else shape, x)
            self.memory.expect(out.nbytes)  # the size of its gradient
            return out
        return self.memory.over(x) if shape is None else self.memory.take(shape, x)

    def _done(self, out):
        """`out`, the output; ends a forward pass."""
        self._out = out if self.gradients else None
        return out

    def _output_gradient(self, dout):
        """dout as the floors need it, of the dtype and shape of the last output."""
        if self._out is None:
            kept = "" if self.gradients else ", and one that keeps what it needs: train(), or eval(gradients=True)"
            raise RuntimeError(f"a backward pass needs a forward pass before it{kept}")
        (dout,) = checks.floats(dout=dout)
        checks.shape("dout", dout, self._out.shape)
        if dout.dtype != self._out.dtype:
            raise TypeError(f"dout: expected {self._out.dtype}, as the layer's output, got {dout.dtype}")
        return dout

    def _buffer(self, name, shape, like):
        """An array of this shape, of another's dtype and in its memory, that belongs to the layer.

        On the host the memory is that of the last call, where it suffices; the CUDA floor sees to that by itself.
        """
        if device.is_device(like):
            return device.empty(shape, like)
        buffers = self.__dict__.setdefault("_buffers", {})
        size = math.prod(shape) * like.dtype.itemsize
        memory = buffers.get(name)
        if memory is None or memory.size < size:
            memory = None
            buffers[name] = None  # before there is another
            memory = buffers[name] = aligned(size)
        return memory[:size].view(like.dtype).reshape(shape)


def _shapes(shapes):
    return [tuple(checks.integer("input_shape", length, 1) for length in shape) for shape in shapes]


def check_names(own, given):
    """ValueError unless the names given are the net's own; the message has some that are missing or unknown."""
    if set(own) != set(given):
        missing, unknown = _some(set(own) - set(given)), _some(set(given) - set(own))
        raise ValueError(f"state: not of this net; missing {missing}, unknown {unknown}")


def _some(names, most=4):
    listed = sorted(names)[:most] or "nothing"
    return f"{listed} and {len(names) - most} more" if len(names) > most else f"{listed}"
