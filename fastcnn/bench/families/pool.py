"""Pooling layers of VGG-11, VGG-16 and the ResNets: forward, and forward with backward."""

import math

from fastcnn.bench.cases import Case, normal

_MAX = {
    "vgg11.pool1": ((128, 64, 32, 32), 2, 2, 0),
    "vgg11.pool2": ((128, 128, 16, 16), 2, 2, 0),
    "vgg11.pool3": ((128, 256, 8, 8), 2, 2, 0),
    "vgg11.pool4": ((128, 512, 4, 4), 2, 2, 0),
    "vgg16.pool1": ((4, 64, 224, 224), 2, 2, 0),
    "resnet18.pool": ((8, 64, 112, 112), 3, 2, 1),
}
_AVERAGE = {"average": ((64, 64, 32, 32), 2, 2, 0)}
_PASSES = ("forward", "training")
_GLOBAL = {"resnet20": (128, 64, 8, 8), "resnet18_cifar": (64, 512, 4, 4), "resnet50": (4, 2048, 7, 7)}


def cases(larger=1):
    """Maximum, average, and the mean of whole images; of so many times the images."""
    found = []
    for kind, layers in (("max_pool", _MAX), ("avg_pool", _AVERAGE)):
        for name, (images, size, stride, pad) in layers.items():
            x = (larger * images[0], *images[1:])
            spatial = [(length + 2 * pad - size) // stride + 1 for length in x[2:]]
            p = dict(x=x, size=(size, size), stride=(stride, stride), pad=(pad, pad), out=(*x[:2], *spatial))
            found += [_case(f"{kind}_{passes}", name, p) for passes in _PASSES]
    for name, images in _GLOBAL.items():
        x = (larger * images[0], *images[1:])
        found += [_case(f"global_avg_pool_{passes}", name, dict(x=x, out=x[:2])) for passes in _PASSES]
    return found


def _case(work, name, p):
    passes = 2 if work.endswith("training") else 1
    elements = math.prod(p["x"]) + math.prod(p["out"])
    return Case(
        name=f"{work} {name}",
        family="pool",
        work=work,
        params=p,
        nbytes=4 * passes * elements,
        tags=(work.removesuffix("_training").removesuffix("_forward"), name),
        quick=name == "vgg11.pool1",
    )


def inputs(case, rng):
    """x and the gradient of the output."""
    return {"x": normal(rng, *case.params["x"]), "dout": normal(rng, *case.params["out"])}
