"""How a net runs: its layers as a program, what is done in one pass, and how long each array is needed.

A composition of layers (`Sequential`, `Residual`, `Graph`, however nested) lowers itself to a `Program`, a list of
layers with the values that they take and give. A `Plan` groups these layers into steps by the rules of `_obstacle`, and
runs them: forwards, and backwards with gradients summed where paths meet. A plan is made of the structure of a net and
the modes of its layers, never of its weights, and is made anew when these have changed.
"""

from collections import Counter
from operator import attrgetter
from typing import NamedTuple

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor
from fastcnn.nn.activation import Elementwise, ReLU
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.joins import Add
from fastcnn.nn.linear import Linear
from fastcnn.nn.memory import shared
from fastcnn.nn.module import WORK, Module, Parameter
from fastcnn.nn.norm import BatchNorm2d

PASSES = frozenset({"forward", "backward"})
_modes, _relu = attrgetter("training", "gradients"), attrgetter("relu")


class Line(NamedTuple):
    """A call of a layer in a program.

    Attributes
    ----------
    layer : Module
    inputs : tuple of int, the values that it takes
    output : int, the value that it gives
    name : str
    original : Module or None, the layer whose twin `layer` is
    """

    layer: object
    inputs: tuple
    output: int
    name: str
    original: object = None


class Program:
    """The layers of a net in the order in which they run. Values are numbered; the first are the net's inputs.

    A layer remembers one forward pass: where it is called again, a twin of it is, which shares its parameters.

    Attributes
    ----------
    inputs, outputs : tuples of int, values
    lines : list of Line
    """

    def __init__(self, net, inputs=1):
        self.inputs, self.lines = tuple(range(inputs)), []
        self._parts, self._layers = [], set()
        expand = getattr(net, "expand", net.lower)
        self.outputs = expand(self, self.inputs, "")

    def add(self, layer, inputs, name):
        """Call a layer; returns the value that it gives."""
        output, original = len(self.inputs) + len(self.lines), layer if layer in self._layers else None
        if original is not None:
            layer = _twin(layer, name)
        self._layers.add(layer)
        self.lines.append(Line(layer, tuple(inputs), output, name, original))
        return output

    @property
    def twins(self):
        """(layer, twin) of all twins."""
        return [(line.original, line.layer) for line in self.lines if line.original is not None]

    def made_of(self, composition, parts):
        """The program holds while this composition has these parts."""
        self._parts.append((composition, list(parts)))

    @property
    def compositions(self):
        """The compositions whose layers these are."""
        return [composition for composition, _ in self._parts]

    def holds(self):
        """Whether the net is still what the program was made of."""
        for composition, parts in self._parts:
            if composition.parts() != parts:
                return False
        return True

    def shapes(self, *shapes):
        """The shape of each value for one image, a list, for inputs of these shapes."""
        shapes = [tuple(shape) for shape in shapes]
        for line in self.lines:
            shapes.append(tuple(line.layer.output_shape(*(shapes[value] for value in line.inputs))))
        return shapes


def _twin(layer, name):
    """A layer with the parameters of another, and gradients of its own."""
    if layer.children():
        raise ValueError(f"{name}: expected a layer, or layers composed by fastcnn.nn, where one is used twice")
    twin = object.__new__(type(layer))
    for key, value in vars(layer).items():
        if isinstance(value, Parameter):
            setattr(twin, key, Parameter(value.data))
    _follow(layer, twin)
    return twin


def _follow(layer, twin, parameters_only=False):
    """Let the twin be what the layer is now."""
    for key, value in vars(layer).items():
        if isinstance(value, Parameter):
            own = getattr(twin, key)
            own.data, own.trainable = value.data, value.trainable
            if own.grad.shape != value.grad.shape or device.is_device(own.grad) != device.is_device(value.grad):
                own.grad = device.zeros(value.grad.shape, value.grad)
        elif key not in WORK and not parameters_only:
            setattr(twin, key, value)


def plain(layer, kind):
    """Whether a layer computes what `kind` says, rather than something that was derived from it or put in its place."""
    return type(layer) is kind and PASSES.isdisjoint(vars(layer))


def ours(layer):
    """Whether a layer is one of this package, as it is: what it reads, hands on and writes over is known.

    Of any other, what it is given may be read at any time of its passes, and what it gives may lie in that memory.
    """
    return type(layer).__module__.startswith(__package__) and PASSES.isdisjoint(vars(layer))


def _count(layer, twin):
    """Let the layer know what the twin's pass counted."""
    for name in layer.counters:
        setattr(layer, name, getattr(twin, name))


class Step:
    """Layers that run in one pass: the first, `lead`, computes what the others would.

    Attributes
    ----------
    layers : list of Module, in the order of their calls
    names : list of str, as in the program
    inputs : tuple of int, those of `lead`, and what is added to its output
    output : int, that of the last layer
    add, relu : Module or None, of `layers`
    source : Step or None, a convolution that gathers moments for the batch norm of this step
    gathers : bool, whether this step is such
    twins : list of (layer, twin), of `layers`
    uses : list of (int, bool), each of `inputs`, and whether the step may write over its memory
    last : set of int, those of `inputs` that nobody needs after it
    brief : (bool, bool), whether no backward pass reads the first input, and the output
    """

    def __init__(self, line):
        self.lead, self.layers, self.names = line.layer, [line.layer], [line.name]
        self.inputs, self.output = line.inputs, line.output
        self.twins = [(line.original, line.layer)] if line.original is not None else []
        self.add = self.relu = self.source = None
        self.gathers, self.brief = False, (False, False)

    def absorb(self, line):
        """Take over a layer whose input is the output of this step."""
        if plain(line.layer, ReLU):
            self.relu = line.layer
        else:
            self.add = line.layer
            first, second = line.inputs
            self.inputs += (second if first == self.output else first,)
        self.layers.append(line.layer)
        self.twins += [(line.original, line.layer)] if line.original is not None else []
        self.names.append(line.name)
        self.output = line.output

    def forward(self, inputs):
        """The output of the last layer; leaves each layer as a forward pass of its own would."""
        for layer, twin in self.twins:
            _follow(layer, twin)
        self.lead._brief = self.brief[1]
        try:
            out = self._computed(inputs)
        finally:
            self.lead._brief = False
        if True in self.brief:
            self.lead.forget(*self.brief)
        for layer, twin in self.twins:
            _count(layer, twin)
        return out

    def _computed(self, inputs):
        if len(self.layers) > 1:
            return self._fused(inputs)
        if self.gathers:
            out, *self.moments = self.lead.compute_moments(*inputs)
            return out
        if self.source is not None:
            return self.lead.compute(*inputs, moments=self.source.moments)
        return self.lead.forward(*inputs)

    def _fused(self, inputs):
        options = {"relu": True} if self.relu is not None or self.add.relu else {}
        if self.source is not None:
            options["moments"] = self.source.moments
        out = self.lead.compute(*inputs, **options)
        for layer in self.layers:
            if layer is not self.lead:
                layer.stands_for(out)
            layer._step = self
        return out

    def describe(self):
        """What the step does, in words."""
        kinds = [type(layer).__name__ + " with ReLU" * (getattr(layer, "relu", False) is True) for layer in self.layers]
        moments = "; gathers moments" if self.gathers else ""
        moments = f"; moments from {'+'.join(self.source.names)}" if self.source is not None else moments
        return " + ".join(kinds) + moments

    def backward(self, dout, needed):
        """The gradient of each input, a tuple; `needed`: which of them somebody wants."""
        for layer, twin in self.twins:
            _follow(layer, twin, parameters_only=True)
        lead, dadd = self.lead, ()
        if len(self.layers) > 1:
            if isinstance(lead, BatchNorm2d) and all(layer._step is self for layer in self.layers):
                return lead.backward_sum(dout, needed[0]) if self.add is not None else (lead.backward(dout, needed[0]),)
            for layer in self.layers[:0:-1]:
                dout = layer.backward(dout)
                if layer is self.add:
                    dout, *dadd = dout
        count = len(needed) - len(dadd)
        known = ours(lead)
        dx = lead.backward(dout if known else shared(dout), True in needed[:count])
        dx = dx if isinstance(dx, tuple) else (dx,) * count
        if not known and count > 1:  # these may be one array
            dx = map(shared, dx)
        return (*dx, *dadd)


class Plan:
    """The steps of a program, as the modes of its layers are at present.

    Attributes
    ----------
    program : Program
    steps : list of Step, in the order in which they run forwards
    apart : list of (str, str, str), names of two layers that could have been one step, and why they are not
    """

    def __init__(self, program):
        self.program, self.steps, self.apart = program, [], []
        self._layers = [line.layer for line in program.lines]
        self._with_relu = [layer for layer in self._layers if hasattr(layer, "relu")]
        self._modes = self._current_modes()
        self._uses = {value: 0 for value in range(len(program.inputs) + len(program.lines))}
        for line in program.lines:
            for value in line.inputs:
                self._uses[value] += 1
        for value in program.outputs:
            self._uses[value] += 1
        self._from = {}
        for line in program.lines:
            self._place(line)
        self._time()
        self._twins, self._modules = program.twins, [*program.compositions, *self._layers]

    def holds(self):
        """Whether the net's structure and modes are still what the plan was made of."""
        return self.program.holds() and self._current_modes() == self._modes

    def _current_modes(self):
        relus = map(_relu, self._with_relu)
        return [*map(_modes, self._layers), *relus, *map(PASSES.isdisjoint, map(vars, self._layers))]

    # ---- what runs as one

    def _place(self, line):
        """Give a layer to the step of one before it that can do its work, or a step of its own."""
        step = self._absorbing(line)
        if step is None:
            step = Step(line)
            self._gather(step)
            self.steps.append(step)
        else:
            step.absorb(line)
            if len(line.inputs) > 1:  # it runs once all that it now takes is there
                self.steps.remove(step)
                self.steps.append(step)
        self._from[step.output] = step

    def _absorbing(self, line):
        """The step that takes over a layer, if there is one."""
        for value in line.inputs:
            step = self._from.get(value)
            obstacle = "" if step is None else self._obstacle(step, line)
            if obstacle is None:
                return step
            if obstacle:
                self.apart.append((step.names[-1], line.name, obstacle))
        return None

    def _obstacle(self, step, line):
        """Why a step must not take over a layer: None if it may, "" if nobody would expect it to."""
        layer, lead = line.layer, step.lead
        if not _computes(step, layer):
            expected = isinstance(layer, Elementwise) and len(step.layers) == 1 and hasattr(lead, "weight")
            return f"no kernel of {type(lead).__name__} goes on with {type(layer).__name__}" if expected else ""
        if self._uses[step.output] > 1:
            return "its output is needed elsewhere, too"
        if plain(layer, Add) and len(line.inputs) != 2:
            return f"a sum of {len(line.inputs)} terms is computed by itself"
        if len({each.gradients for each in (*step.layers, layer)}) > 1:
            return "one of them keeps what a backward pass needs, the other does not"
        if isinstance(lead, BatchNorm2d) and lead.relu and plain(layer, Add):
            return "its own ReLU comes before the sum"
        return None

    def _gather(self, step):
        """Have the convolution before a batch norm in training gather the moments for it."""
        if not plain(step.lead, BatchNorm2d) or not step.lead.training:
            return
        source = self._from.get(step.inputs[0])
        if source is not None and plain(source.lead, Conv2d) and len(source.layers) == 1:
            source.gathers, step.source = True, source

    def rows(self, views):
        """The rows of a summary, for inputs that are seen as `views`."""
        within = {layer for step in self.steps for layer in step.layers[:-1]}  # which have no output of their own
        within |= {step.layers[-1] for step in self.steps if step.brief[1]}
        rows, views = [], list(views)
        for line in self.program.lines:
            more, view = line.layer.trace(line.name, *(views[value] for value in line.inputs))
            views.append(view)
            if line.layer in within:
                more = [row._replace(memory=0) for row in more]
            if line.original is not None:
                more = [row._replace(parameters=0) for row in more]
            rows += more
        return rows

    # ---- running

    def _time(self):
        """Say for each step how long its inputs and its output are needed."""
        needed, brief, places = set(self.program.outputs), self._brief_values(), self._places()
        for step in reversed(self.steps):
            needed.discard(step.output)
            step.last = set(step.inputs) - needed
            there = Counter(place for value in (*needed, *step.inputs) for place in places[value])
            alone = [ours(step.lead) and all(there[place] == 1 for place in places[value]) for value in step.inputs]
            step.uses = list(zip(step.inputs, alone, strict=True))
            step.brief = step.inputs[0] in brief, step.output in brief
            needed.update(step.inputs)

    def _places(self):
        """For each value, those in whose memory it may lie: itself, and what it was handed on from."""
        places = {value: {value} for value in self.program.inputs}
        for step in self.steps:
            hands_on = step.lead.passes_on or not ours(step.lead)
            places[step.output] = {step.output}.union(*(places[value] for value in step.inputs if hands_on))
        return places

    def _brief_values(self):
        """The values that no backward pass reads: their memory is lent, and comes back within the forward pass."""
        read = set(self.program.outputs)
        for step in reversed(self.steps):
            lead = step.lead
            reads = lead.reads if ours(lead) else Module.reads
            if len(step.layers) > 1 or "out" in reads or not lead.gradients:
                read.add(step.output)
            if "x" in reads or (lead.passes_on and step.output in read):
                read.update(step.inputs[:1] if step.add is not None else step.inputs)
        return {step.output for step in self.steps} - read

    def _begin(self, memory):
        for module in self._modules:
            module._memory = memory

    def forward(self, inputs, memory, watch=None):
        """The values of the program's outputs, a tuple, for these inputs.

        `watch`: called with "output", the number of each value, and the array.
        """
        self._begin(memory)
        try:
            return self._run(inputs, memory, watch)
        except BaseException:
            for layer in self._layers:
                layer.forget_pass()
            raise

    def _run(self, inputs, memory, watch):
        with memory.passing(*inputs) as inputs:
            inputs = map(shared, inputs) if len(inputs) > 1 else inputs  # which may be one array
            values = dict(zip(self.program.inputs, inputs, strict=True))
            del inputs
            for step in self.steps:
                given = [values[value] if alone else shared(values[value]) for value, alone in step.uses]
                for value in step.last:
                    del values[value]
                values[step.output] = step.forward(given)
                del given
                if watch is not None:
                    watch("output", step.output, values[step.output])
            return tuple(values[value] for value in self.program.outputs)

    def backward(self, douts, memory, need_dx=True, watch=None):
        """Write the gradients of all parameters; returns those of the inputs, a tuple, None for one that has none.

        `douts`: the gradient of each output, or None; without `need_dx` inputs have none. `watch`: called with
        "gradient", the number of each value, and each array that is a part or the whole of it.
        """
        self._begin(memory)
        reached = set(self.program.inputs if need_dx else ())
        for step in self.steps:
            if not reached.isdisjoint(step.inputs) or any(layer.learns for layer in step.layers):
                reached.add(step.output)
        with memory.passing(*douts) as douts:
            douts = map(shared, douts) if len(douts) > 1 else douts
            gradients = {}
            for value, dout in zip(self.program.outputs, douts, strict=True):
                if dout is not None and value in reached:
                    _collect(gradients, value, dout, memory)
            del douts, dout
            for step in reversed(self.steps):
                if step.output not in reached:
                    continue
                if step.output not in gradients:
                    _no_gradients(step)
                    continue
                needed = [value in reached for value in step.inputs]
                given = step.backward(gradients.pop(step.output), needed)
                for value, gradient, need in zip(step.inputs, given, needed, strict=True):
                    if need:
                        _collect(gradients, value, gradient, memory)
                    if need and watch is not None:
                        watch("gradient", value, gradient)
                        watch("gradient", value, gradients[value])
                del given
            for layer, twin in self._twins:
                _add_gradients(layer, twin)
            return tuple(gradients.get(value) for value in self.program.inputs)


def _computes(step, layer):
    """Whether the kernel of a step's first layer can go on with an Add or a ReLU of its output."""
    if step.relu is not None or (step.add is not None and step.add.relu):
        return False
    if plain(layer, ReLU):
        return any(plain(step.lead, kind) for kind in (Conv2d, Linear, BatchNorm2d, Add))
    return plain(layer, Add) and step.add is None and (plain(step.lead, Conv2d) or plain(step.lead, BatchNorm2d))


def _collect(gradients, value, gradient, memory):
    """Add to the gradient of a value, which is there in parts where paths meet."""
    if value not in gradients:
        gradients[value] = gradient
        return
    total, gradient = checks.floats(dout=gradients.pop(value), gradient=gradient)
    checks.shape("dout", total, gradient.shape)
    if not memory.owns(total):
        total, gradient = gradient, total
    gradients[value] = floor("activation", total).add_forward(total, gradient, out=memory.over(total))


def _no_gradients(step):
    for layer in step.layers:
        for _, parameter in layer.named_parameters():
            if parameter.trainable:
                device.assign(parameter.grad, 0)


def _add_gradients(layer, twin):
    others = dict(twin.named_parameters())
    for name, parameter in layer.named_parameters():
        if parameter.trainable:
            add = floor("activation", parameter.grad).add_forward
            add(parameter.grad, others[name].grad, out=parameter.grad)
