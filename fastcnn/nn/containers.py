"""Layers made of layers."""

from fastcnn.nn.joins import Add
from fastcnn.nn.module import Module
from fastcnn.nn.plan import PASSES, Plan, Program


class Composition(Module):
    """Layers that run as a `Plan` says; a subclass defines `expand`, and `parts` where children may be replaced.

    What is derived further and has passes of its own is to others a layer like any.
    """

    inputs = 1  # how many arrays it takes
    single, keys = True, None  # whether it gives one array, the keys if it gives a dictionary, otherwise a tuple

    def expand(self, program, values, name):
        """Add the layers to a `Program`, for inputs of these values; returns the values that it gives, a tuple."""
        raise NotImplementedError

    def parts(self):
        """The sub-layers, in any order."""
        return list(self.children().values())

    def lower(self, program, values, name):
        own = type(self).forward is not Composition.forward or type(self).backward is not Composition.backward
        if own or not PASSES.isdisjoint(vars(self)):
            return super().lower(program, values, name)
        return self.expand(program, values, name)

    def forward(self, *inputs):
        if len(inputs) != self.inputs:
            raise ValueError(f"inputs: expected {self.inputs}, got {len(inputs)}")
        return self._packed(self._planned().forward(inputs, self.memory))

    def backward(self, dout, need_dx=True):
        plan = vars(self).get("_plan")  # that of the forward pass, whatever the modes are now
        if plan is None or not plan.program.holds():
            plan = self._planned()
        gradients = plan.backward(self._unpacked(dout, len(plan.program.outputs)), self.memory, need_dx)
        return (gradients if self.inputs > 1 else gradients[0]) if need_dx else None

    def output_shape(self, *shapes):
        program = self._planned().program
        shapes = program.shapes(*shapes)
        return self._packed(tuple(shapes[value] for value in program.outputs))

    def _planned(self):
        plan = vars(self).get("_plan")
        if plan is None or not plan.holds():
            plan = self._plan = Plan(Program(self, self.inputs))
            if self.single and len(plan.program.outputs) != 1:
                raise ValueError(
                    f"net: expected one output, got {len(plan.program.outputs)}; nn.Graph may have several"
                )
        return plan

    def _packed(self, outputs):
        """What a caller is given of these outputs."""
        if self.keys is not None:
            return dict(zip(self.keys, outputs, strict=True))
        return outputs[0] if self.single else outputs

    def _unpacked(self, douts, count):
        """The gradient of each output, of what a caller gave."""
        if self.keys is not None:
            if not isinstance(douts, dict) or not douts.keys() <= set(self.keys):
                expected = ", ".join(map(repr, self.keys))
                given = ", ".join(map(repr, douts)) if isinstance(douts, dict) else type(douts).__name__
                raise ValueError(f"dout: expected a dictionary of gradients for {expected}, got {given}")
            return tuple(douts.get(key) for key in self.keys)
        if self.single:
            return (douts,)
        if not isinstance(douts, tuple | list) or len(douts) != count:
            given = len(douts) if isinstance(douts, tuple | list) else type(douts).__name__
            raise ValueError(f"dout: expected a tuple of {count} gradients, got {given}")
        return tuple(douts)


class Sequential(Composition):
    """Layers one after the other, named "0", "1", ... as in torchvision's state dicts.

    Each stands there once, also within others; an `nn.Graph` can call a layer several times.

    Raises
    ------
    ValueError
        If a layer stands there twice.
    """

    def __init__(self, *modules):
        _check_different("modules", modules)
        self.layers = list(modules)

    def children(self):
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def parts(self):
        return self.layers

    def expand(self, program, values, name):
        program.made_of(self, self.layers)
        for child, layer in self.children().items():
            values = layer.lower(program, values, below(name, child))
        return values


class Residual(Composition):
    """relu(main(x) + shortcut(x)), the block of He et al., "Deep Residual Learning" (2015), figure 2.

    Parameters
    ----------
    main : Module
    shortcut : Module or None
        None: x itself, which must then have the shape of main(x).

    Attributes
    ----------
    sum : Add, the end of the block, its ReLU included

    Raises
    ------
    ValueError
        If a layer stands in both.
    """

    def __init__(self, main, shortcut=None):
        _check_different("shortcut", [main] if shortcut is None else [main, shortcut])
        self.main, self.shortcut, self.sum = main, shortcut, Add(relu=True)

    def expand(self, program, values, name):
        program.made_of(self, self.parts())
        shortcut = values
        if self.shortcut is not None:
            shortcut = self.shortcut.lower(program, values, below(name, "shortcut"))
        main = self.main.lower(program, values, below(name, "main"))
        return self.sum.lower(program, (*main, *shortcut), below(name, "sum"))


def _check_different(name, layers):
    """ValueError if a layer stands twice among these and those below them: its parameters would have two names."""
    modules = [module for layer in layers for module in layer.modules()]
    if len(set(modules)) != len(modules):
        raise ValueError(f"{name}: expected different layers, got one of them twice (nn.Graph can call one twice)")


def below(name, child):
    """The name of a layer within the layer of that name."""
    return f"{name}.{child}" if name else child
