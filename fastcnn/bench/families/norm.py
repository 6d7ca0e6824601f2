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
_READ = {"batchnorm_relu_forward": 1, "batchnorm_relu_training": 3, "groupnorm_training": 3}  # of these


def cases(larger=1, passes=1):
    """Training mode: statistics of the batch, of so many times the images, read so often by batch norm."""
    works = ("batchnorm_relu_forward", "batchnorm_relu_training")
    found = [_case(work, name, larger, passes) for work in works for name in _MAPS]
    return [*found, _case("groupnorm_training", "resnet18_cifar.stage1", larger, 1, groups=32)]


def _case(work, name, larger, passes, **options):
    x = (larger * _MAPS[name][0], *_MAPS[name][1:])
    arrays = _ARRAYS[work] + (passes - 1) * _READ[work]
    return Case(
        name=f"{work} {name}",
        family="norm",
        work=work,
        params=dict(x=x, eps=1e-5, **options),
        nbytes=4 * arrays * math.prod(x),
        tags=(name,),
        quick=name == "resnet18_cifar.stage1" and work == "batchnorm_relu_training",
    )


def inputs(case, rng):
    """x, gamma, beta and the gradient of the output."""
    shape = case.params["x"]
    gamma = 1 + 0.1 * normal(rng, shape[1])
    return {"x": normal(rng, *shape), "gamma": gamma, "beta": normal(rng, shape[1]), "dout": normal(rng, *shape)}
