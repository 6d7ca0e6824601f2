"""What a net is made of: shapes, parameters, operations, receptive fields and memory, layer by layer.

Nothing is computed for it but shapes. The receptive field is folded through the layers as in Araujo, Norris and Sim,
"Computing Receptive Fields of Convolutional Neural Networks" (2019): r' = r + (k - 1) d j and j' = j s, for a kernel of
size k, dilation d and stride s, where j is how far apart neighbouring outputs look.
"""

import math
from typing import NamedTuple


class View(NamedTuple):
    """What one number of a layer's output stands for.

    Attributes
    ----------
    shape : tuple, of one image's output
    field : tuple, size of its receptive field along the axes of the images; None: all of the image
    jump : tuple, the distance between the fields of neighbours
    itemsize : int, bytes of a number
    """

    shape: tuple
    field: tuple | None
    jump: tuple
    itemsize: int

    def through(self, shape, window):
        """The view after a layer with this output and window: kernel, stride and dilation; None: it sees everything."""
        if window is None or self.field is None:
            return self._replace(shape=shape, field=None)
        along = list(zip(self.field, self.jump, *window, strict=False))
        return self._replace(
            shape=shape,
            field=tuple(field + (kernel - 1) * dilation * jump for field, jump, kernel, _, dilation in along),
            jump=tuple(jump * stride for _, jump, _, stride, _ in along),
        )

    @staticmethod
    def joined(views):
        """One view of several outputs that meet: its field is the largest of theirs."""
        fields = [view.field for view in views]
        return views[0]._replace(
            field=None if None in fields else tuple(map(max, *fields)) if fields[1:] else fields[0]
        )

    @property
    def memory(self):
        """Bytes of the output."""
        return math.prod(self.shape) * self.itemsize


class Row(NamedTuple):
    """A layer of a net, for one image.

    Attributes
    ----------
    name : str, as in the net's state dict
    kind : str, the layer's type
    shape : tuple, of the output
    parameters : int
    flops : int, of the products of a forward pass, two for each multiply-add
    field : tuple, the receptive field of an output; None: all of the image
    memory : int, bytes of the output that a forward pass keeps for the backward pass
    """

    name: str
    kind: str
    shape: tuple
    parameters: int
    flops: int
    field: tuple | None
    memory: int


class Summary:
    """A table of a net's layers; `str` writes it out.

    FLOPs are those of convolutions and affine layers, two for each multiply-add; biases and what is done number by
    number (activations, normalisation, pooling, sums) are not counted. The receptive field is that of kernels, without
    what a normalisation sees to find its mean and variance. Memory is that of the outputs that a forward pass in
    training keeps for the backward pass, for one image and without the image itself.

    Attributes
    ----------
    rows : list of Row, in forward order
    parameters, flops, memory : int, the sums
    """

    def __init__(self, rows):
        self.rows = rows
        self.parameters, self.flops, self.memory = (
            sum(getattr(row, name) for row in rows) for name in ("parameters", "flops", "memory")
        )

    def __str__(self):
        head = ("layer", "type", "output", "parameters", "FLOPs", "field", "memory")
        total = ("total", "", "", f"{self.parameters:,}", f"{self.flops:,}", "", f"{self.memory:,}")
        body = [
            (
                row.name, row.kind, _product(row.shape), f"{row.parameters:,}", f"{row.flops:,}",
                "all" if row.field is None else _product(row.field), f"{row.memory:,}",
            )
            for row in self.rows
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(head, *body, total, strict=True)]
        rule = tuple("-" * width for width in widths)
        layout = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<<>>>>", widths, strict=True))
        lines = [layout.format(*row) for row in (head, rule, *body, rule, total)]
        note = "for one image; FLOPs: two for each multiply-add; memory: bytes kept for the backward pass"
        return "\n".join([*lines, note])


def _product(shape):
    return " x ".join(map(str, shape))
