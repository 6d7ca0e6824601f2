"""Convolution layers of real networks: each pass alone, and the three passes of a training step together."""

import math

from fastcnn.bench.cases import Case, layer_shapes, normal
from fastcnn.common.convolution import CHOICES
from fastcnn.common.geometry import output_shape

PASSES = {"conv_forward": 1, "conv_backward_input": 1, "conv_backward_filter": 1, "conv_training": 3}
_QUICK = ("resnet20.conv2", "resnet18_cifar.conv4", "resnet18.conv2", "resnet50.conv3_reduce")


def cases(larger=1, algos=("auto",), works=tuple(PASSES)):
    """Every distinct layer with so many times its training batch, all passes; and with one image, forward.

    Each is computed by those of the named algorithms that there are.
    """
    found, seen = [], set()
    algos = [algo for algo in algos if algo in CHOICES]
    for shape, batch, names in layer_shapes():
        found += [_case(work, shape, larger * batch, names, algo) for work in works for algo in algos]
        if shape not in seen:
            seen.add(shape)
            found += [_case("conv_forward", shape, 1, names, algo) for algo in algos]
    return found


def _case(work, shape, batch, names, algo):
    x = (batch, shape.channels, shape.height, shape.width)
    w = (shape.filters, shape.channels, shape.kernel, shape.kernel)
    stride, pad = (shape.stride,) * 2, (shape.pad,) * 2
    out = (batch, shape.filters, *output_shape(x[2:], w[2:], stride, pad, (1, 1)))
    networks = sorted({name.partition(".")[0] for name in names})
    named, asked = ("", {}) if algo == "auto" else (f" {algo}", {"algo": algo})
    kind = f"{shape.kernel}x{shape.kernel}s{shape.stride}"
    return Case(
        name=f"{work} {names[0]} n{batch}" + named,
        family="conv",
        work=work,
        params=dict(x=x, w=w, stride=stride, pad=pad, out=out, **asked),
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
