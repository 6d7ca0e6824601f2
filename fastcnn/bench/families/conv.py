"""Convolution layers of real networks: each pass alone, and the three passes of a training step together."""

import math

from fastcnn.bench.cases import Case, layer_shapes, normal
from fastcnn.common.geometry import output_shape

PASSES = {"conv_forward": 1, "conv_backward_input": 1, "conv_backward_filter": 1, "conv_training": 3}
_QUICK = ("resnet20.conv2", "resnet18_cifar.conv4", "resnet18.conv2", "resnet50.conv3_reduce")


def cases():
    """Every distinct layer with its training batch, all passes; and with one image, forward."""
    found, seen = [], set()
    for shape, batch, names in layer_shapes():
        for work in PASSES:
            found.append(_case(work, shape, batch, names))
        if shape not in seen:
            seen.add(shape)
            found.append(_case("conv_forward", shape, 1, names))
    return found


def _case(work, shape, batch, names):
    x = (batch, shape.channels, shape.height, shape.width)
    w = (shape.filters, shape.channels, shape.kernel, shape.kernel)
    stride, pad = (shape.stride,) * 2, (shape.pad,) * 2
    out = (batch, shape.filters, *output_shape(x[2:], w[2:], stride, pad, (1, 1)))
    networks = sorted({name.partition(".")[0] for name in names})
    kind = f"{shape.kernel}x{shape.kernel}s{shape.stride}"
    return Case(
        name=f"{work} {names[0]} n{batch}",
        family="conv",
        work=work,
        params=dict(x=x, w=w, stride=stride, pad=pad, out=out),
        flops=PASSES[work] * 2 * math.prod(out) * math.prod(w[1:]),
        nbytes=PASSES[work] * 4 * (math.prod(x) + math.prod(w) + math.prod(out)),
        tags=(kind, "one image" if batch == 1 else "training batch", *networks, *names),
        quick=batch > 1 and names[0] in _QUICK,
    )


def inputs(case, rng):
    """x, w and the gradient of the output."""
    p = case.params
    scale = (2 / math.prod(p["w"][1:])) ** 0.5
    return {"x": normal(rng, *p["x"]), "w": scale * normal(rng, *p["w"]), "dout": normal(rng, *p["out"])}
