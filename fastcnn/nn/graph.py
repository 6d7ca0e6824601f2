"""Nets whose layers form a directed acyclic graph, with several inputs and outputs."""

from fastcnn.nn.containers import Composition, below
from fastcnn.nn.symbols import Node


class Graph(Composition):
    """Layers connected as nodes say: what leads from `inputs` to `outputs`.

    >>> x = nn.Input()
    >>> h = nn.ReLU()(nn.Conv2d(3, 8, 3, padding=1)(x))
    >>> h = nn.ReLU()(nn.Conv2d(8, 8, 3, padding=1)(h) + h)
    >>> net = nn.Graph(x, nn.Linear(8, 10)(nn.GlobalAvgPool2d()(h), name="scores"))

    Any layer or composition can stand in it. One that is called twice has one set of parameters, whose gradients are
    summed. Layers are named as they were when called, or by their place, "0", "1", ...

    `forward` takes an array for each input, and gives what `outputs` is: an array, a tuple, or a dictionary. `backward`
    takes the gradients in the same form, None for an output (in a dictionary also: no entry) that nothing is learned
    from, and gives that of the input, or a tuple for several; None for one that nothing was learned through.

    Parameters
    ----------
    inputs : node, or list of nodes
    outputs : node, list of nodes, or dictionary of nodes

    Raises
    ------
    ValueError
        If an output depends on an input that is not among `inputs`, or no output on one that is; if two layers have
        one name, or one has two.
    """

    def __init__(self, inputs, outputs):
        single = isinstance(inputs, Node)
        inputs = _nodes("inputs", (inputs,) if single else inputs)
        if len(set(inputs)) != len(inputs):
            raise ValueError("inputs: expected different nodes, got one of them twice")
        self.keys = tuple(outputs) if isinstance(outputs, dict) else None
        self.single = isinstance(outputs, Node)
        if isinstance(outputs, dict):
            outputs = outputs.values()
        outputs = _nodes("outputs", (outputs,) if self.single else outputs)
        calls = _calls(inputs, outputs)
        names = _names(calls)
        self.inputs, self.layers = len(inputs), {names[call.layer]: call.layer for call in calls}
        modules = [module for layer in self.layers.values() for module in layer.modules()]
        if len(set(modules)) != len(modules):
            raise ValueError("outputs: a layer stands in the graph both by itself and within another one")
        places = {node: (None, i) for i, node in enumerate(inputs)}  # of each node: the call that gives it, and which
        numbers = {call: i for i, call in enumerate(calls)}

        def place(node):
            return places.get(node) or (numbers[node.call], node.output)

        self.calls = tuple((names[call.layer], tuple(map(place, call.inputs))) for call in calls)
        self.outputs = tuple(map(place, outputs))

    def children(self):
        return dict(self.layers)

    def call(self, call):
        return self._packed(tuple(Node(call, i) for i in range(len(self.outputs))))

    def expand(self, program, values, name):
        if len(values) != self.inputs:
            raise ValueError(f"{name or 'net'}: expected {self.inputs} inputs, got {len(values)}")
        program.made_of(self, self.parts())
        given = {None: values}
        for i, (child, inputs) in enumerate(self.calls):
            arguments = tuple(given[call][output] for call, output in inputs)
            given[i] = self.layers[child].lower(program, arguments, below(name, child))
        return tuple(given[call][output] for call, output in self.outputs)


def _nodes(name, nodes):
    """A tuple of nodes, of which there is at least one."""
    nodes = tuple(nodes)
    for i, node in enumerate(nodes):
        if not isinstance(node, Node):
            raise TypeError(f"{name}[{i}]: expected a node, as nn.Input() or a layer of one gives, got {node!r}")
    if not nodes:
        raise ValueError(f"{name}: expected at least one node, got none")
    return nodes


def _calls(inputs, outputs):
    """The calls that lead from inputs to outputs, in the order in which they were made."""
    calls, waiting, reached = {}, list(outputs), set()
    while waiting:
        node = waiting.pop()
        if node in reached:
            continue
        reached.add(node)
        if node in inputs:
            continue
        if node.call is None:
            raise ValueError("inputs: an output depends on an input that is not among them")
        calls[node.call] = min(node.order, calls.get(node.call, node.order))
        waiting += node.call.inputs
    for i, node in enumerate(inputs):
        if node not in reached:
            raise ValueError(f"inputs[{i}]: no output depends on it")
    return sorted(calls, key=calls.get)


def _names(calls):
    """The name of each layer that is called."""
    given = {}
    for call in calls:
        if call.name is not None and given.setdefault(call.layer, call.name) != call.name:
            raise ValueError(f"name: a layer is called {given[call.layer]!r} and {call.name!r}")
    names = {}
    for call in calls:
        if call.layer not in names:
            names[call.layer] = given.get(call.layer, str(len(names)))
    if len(set(names.values())) != len(names):
        raise ValueError(f"name: expected another for each layer, got {', '.join(sorted(names.values()))}")
    return names
