"""Augmentation of whole batches, on one thread, as it runs beside training; and both together.

The work "input_pipeline" is to make the batches of some training steps, "training_with_input" to take these steps on
batches that are made meanwhile. The contestant "step alone" takes them on a batch that is ready.
"""

import math

import numpy as np

from fastcnn import data
from fastcnn.bench import nets
from fastcnn.bench.cases import Case

_CIFAR, _PHOTOS, _CLASSES = (128, 3, 32, 32), (8, 3, 375, 500), 10
PIPELINES = {  # shape of the batch, size of the results, transforms
    "flip, pad and crop": (_CIFAR, 32, lambda: [data.RandomFlip(), data.PadAndCrop(4)]),
    "rotate": (_CIFAR, 32, lambda: [data.Rotate(15)]),
    "colour jitter": (_CIFAR, 32, lambda: [data.ColorJitter(0.4, 0.4, 0.4, 0.1)]),
    "noise": (_CIFAR, 32, lambda: [data.Noise(10)]),
    "cutout and mixup": (_CIFAR, 32, lambda: [data.Cutout(16), data.Mixup(0.2, _CLASSES)]),
    "flip, crop, cutout and mixup": (
        _CIFAR,
        32,
        lambda: [data.RandomFlip(), data.PadAndCrop(4), data.Cutout(8), data.Mixup(0.2, _CLASSES)],
    ),
    "random resized crop": (_PHOTOS, 224, lambda: [data.RandomResizedCrop(224), data.RandomFlip()]),
    "resize and crop": (_PHOTOS, 224, lambda: [data.ResizeAndCrop(224), data.RandomFlip()]),
}


def cases():
    """Small images for CIFAR's augmentation, photographs for ImageNet's; batches beside the steps of ResNet-20."""
    return [*_augmentations(), *_beside_training()]


def _augmentations():
    return [
        Case(
            name=f"augment_batch {name}",
            family="data",
            work="augment_batch",
            params=dict(pipeline=name, x=shape, seed=1),
            nbytes=math.prod(shape) + 4 * shape[0] * shape[1] * size**2,
            images=shape[0],
            quick=name == "flip, pad and crop",
        )
        for name, (shape, size, _) in PIPELINES.items()
    ]


def _beside_training(steps=8):
    batch, net = _CIFAR[0], "resnet20"
    params = dict(
        pipeline="flip, crop, cutout and mixup", x=(8192, *_CIFAR[1:]), batch=batch, steps=steps, prefetch=4, seed=1,
        net=net, lr=1e-4, momentum=0.9,
    )  # fmt: skip
    common = dict(family="data", params=params, images=steps * batch, tags=(net,), comparable=False)
    pixels = steps * math.prod(_CIFAR)
    return [
        Case(f"input_pipeline {net} n{batch}", work="input_pipeline", nbytes=5 * pixels, quick=True, **common),
        Case(
            f"training_with_input {net} n{batch}",
            work="training_with_input",
            flops=6 * steps * batch * nets.cost(net),
            **common,
        ),
    ]


def inputs(case, rng):
    """Images and labels."""
    shape = case.params["x"]
    return {"x": rng.integers(0, 256, shape, np.uint8), "y": rng.integers(0, _CLASSES, shape[0])}
