"""Batch norm with ReLU on the feature maps of ResNet-20, VGG-11 and ResNet-18; group norm."""

import math

from fastcnn.bench.cases import Case, normal

_MAPS = {
    "resnet20.stage1": (128, 16, 32, 32),
    "resnet20.stage2": (128, 32, 16, 16),
    "resnet20.stage3": (128, 64, 8, 8),
    "vgg11.bn1": (128, 64, 32, 32),
    "resnet18_cifar.stage1": (64, 64, 32, 32),
    "resnet18_cifar.stage2": (64, 128, 16, 16),
    "resnet18_cifar.stage3": (64, 256, 8, 8),
    "resnet18_cifar.stage4": (64, 512, 4, 4),
    "resnet18.stage1": (8, 64, 56, 56),
}
_ARRAYS = {"batchnorm_relu_forward": 2, "batchnorm_relu_training": 5, "groupnorm_training": 5}  # read or written


def cases():
    """Training mode: statistics of the batch."""
    found = [_case(work, name) for work in ("batchnorm_relu_forward", "batchnorm_relu_training") for name in _MAPS]
    return [*found, _case("groupnorm_training", "resnet18_cifar.stage1", groups=32)]


def _case(work, name, **options):
    return Case(
        name=f"{work} {name}",
        family="norm",
        work=work,
        params=dict(x=_MAPS[name], eps=1e-5, **options),
        nbytes=4 * _ARRAYS[work] * math.prod(_MAPS[name]),
        tags=(name,),
        quick=name == "resnet18_cifar.stage1" and work == "batchnorm_relu_training",
    )


def inputs(case, rng):
    """x, gamma, beta and the gradient of the output."""
    shape = case.params["x"]
    gamma = 1 + 0.1 * normal(rng, shape[1])
    return {"x": normal(rng, *shape), "gamma": gamma, "beta": normal(rng, shape[1]), "dout": normal(rng, *shape)}
