"""What a plan does, told: which layers run in one pass, and which memory holds which arrays one after the other."""

import copy
from typing import NamedTuple

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.nn.memory import Memory
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.plan import Plan, Program

MODES = ("train", "test")
_USE = {"output": "{}", "gradient": "d({})", "taken": ""}  # how it is told what an array is


class Buffer(NamedTuple):
    """Memory for arrays of a pass.

    Attributes
    ----------
    bytes : int, what is written to of it: that of its largest array
    reserved : int, its size; what is never written to costs addresses, but no memory
    uses : tuple of str, whose output it holds, and whose gradient, "d(name)", in the order of a step
    lent : bool, whether it is lent to whatever needs memory, and not a layer's own
    """

    bytes: int
    reserved: int
    uses: tuple
    lent: bool


class Explanation:
    """How a net runs; `str` writes it out.

    It is the record of a pass, of a copy of the net and one image: whatever depends on the batch is proportional to
    its size. Parameters, the inputs, and what kernels need while they run are not counted.

    Attributes
    ----------
    mode, batch : as asked for
    steps : list of (str, str), the layers that run as one, joined by "+", and what they do
    apart : list of (str, str, str), names of two layers that do not run as one, though others like them do, and why
    buffers : list of Buffer, those of layers in the order of their first use, and then those that are lent
    bytes : int, the sum of those of the buffers
    bytes_without_reuse : int, if each output and each gradient had memory of its own
    """

    def __init__(self, net, shapes, batch, mode):
        self.mode, self.batch = checks.choice("mode", mode, MODES), checks.integer("batch", batch, 0)
        net = device.to_host(copy.deepcopy(net))
        net.train() if mode == "train" else net.eval()
        self._plan, self._memory, self._uses = Plan(Program(net, len(shapes))), Memory(), []
        self._memory.watch = lambda address, size: self._uses.append(("taken", None, address, size))
        program, steps = self._plan.program, self._plan.steps
        self._names = {value: f"input {value}" for value in program.inputs}
        self._names |= {step.output: "+".join(step.names) for step in steps}
        self.steps = [(self._names[step.output], step.describe()) for step in steps]
        self.apart = self._plan.apart
        self._run(shapes, next((p.data.dtype for _, p in net.named_parameters()), np.dtype(np.float32)))
        views = {step.output for step in steps if step.lead.passes_on}
        sizes = {(kind, value): size for kind, value, _, size in self._uses if kind != "taken" and value not in views}
        self.bytes_without_reuse = batch * sum(sizes.values())
        self.buffers = self._buffers()
        self.bytes = sum(buffer.bytes for buffer in self.buffers)

    def _run(self, shapes, dtype):
        inputs = [np.zeros((1, *shape), dtype) for shape in shapes]
        for _ in range(4):  # in the first ones memory grows, then it is as it stays
            self._uses.clear()
            outputs = self._plan.forward(inputs, self._memory, self._watch)
            if self.mode == "train":
                self._plan.backward(outputs, self._memory, need_dx=False, watch=self._watch)
            del outputs

    def _watch(self, kind, value, array):
        self._uses.append((kind, value, array.ctypes.data, array.nbytes))

    def _buffers(self):
        layers = [layer for step in self._plan.steps for layer in step.layers]
        own = [chunk for layer in layers for chunk in vars(layer).get("_buffers", {}).values()]
        buffers = [self._buffer(chunk, False) for chunk in own]
        return buffers + [self._buffer(chunk, True) for chunk in self._memory.free]

    def _buffer(self, chunk, lent):
        first, uses, most = chunk.ctypes.data, [], 0
        for kind, value, address, size in self._uses:
            if first <= address < first + chunk.size:
                most = max(most, size)
                use = _USE[kind].format(self._names.get(value))
                if use and use not in uses[-1:]:
                    uses.append(use)
        return Buffer(self.batch * most, self.batch * chunk.size, tuple(uses), lent)

    def __str__(self):
        mode = {"train": "a training step", "test": "a pass in test mode"}[self.mode]
        width = max((len(names) for names, _ in self.steps), default=0)
        lines = [f"{mode}, batch of {self.batch}", "", *(f"{names:{width}}  {does}" for names, does in self.steps)]
        if self.apart:
            lines += ["", "not in one pass", *(f"{first}, {second}: {why}" for first, second, why in self.apart)]
        width = max((len(f"{buffer.bytes:,}") for buffer in self.buffers), default=0)
        for lent, title in ((False, "buffers of layers"), (True, "buffers that are lent; d(...) is a gradient")):
            some = [buffer for buffer in self.buffers if buffer.lent == lent]
            if some:
                lines += ["", title, *(f"{buffer.bytes:{width},}  {', '.join(buffer.uses)}" for buffer in some)]
        if self.mode == "test" and any(isinstance(step.lead, BatchNorm2d) for step in self._plan.steps):
            lines += ["", "net.inference() also folds batch norms into the layers before them"]
        lines += ["", f"{self.bytes:,} bytes; {self.bytes_without_reuse:,} if each output and gradient had its own"]
        return "\n".join(lines)
