"""Stand-ins for arrays, which a graph of layers is written with: what a layer gives for one is another one."""

import itertools

_order = itertools.count()


class Node:
    """An array that does not exist yet: `output` number so and so of a call of a layer; of no call, an input.

    Layers take nodes where they take arrays; `a + b` is what `nn.Add()(a, b)` is.
    """

    __array_ufunc__ = None  # so that an array + a node is an error, and not an array of nodes

    def __init__(self, call=None, output=0):
        self.call, self.output, self.order = call, output, next(_order)

    def __add__(self, other):
        from fastcnn.nn.joins import Add  # a layer, and layers know nodes

        return Add()(self, other) if isinstance(other, Node) else NotImplemented

    def __repr__(self):
        return f"Node of {type(self.call.layer).__name__}" if self.call else "Input"


class Call:
    """A layer, the nodes that it is called with, and what it is to be called in a graph (None: a number)."""

    def __init__(self, layer, inputs, name):
        for i, node in enumerate(inputs):
            if not isinstance(node, Node):
                raise TypeError(f"inputs[{i}]: expected a node, as the others are, got {type(node).__name__}")
        if name is not None and (not isinstance(name, str) or not name or "." in name):
            raise ValueError(f"name: expected a word without dots, got {name!r}")
        self.layer, self.inputs, self.name = layer, inputs, name


def Input():
    """A node for an array that a graph will be given."""
    return Node()
