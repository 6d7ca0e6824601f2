"""Networks, ready to be trained. Each is a function of its seed.

Sources: He et al., "Deep Residual Learning for Image Recognition" (2015), table 1 and section 4.2; Simonyan and
Zisserman, "Very Deep Convolutional Networks" (2015), table 1; batch norm before every ReLU, no bias in front of it.
"""

import numpy as np

from fastcnn.common.philox import derive_key
from fastcnn.layers import checks
from fastcnn.nn.layers import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Residual,
    Sequential,
)

_VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")  # filters; M: 2x2 max-pooling


def small_cnn(input_shape, classes, width=24, drop=0.3, seed=0, dtype=np.float32):
    """Two blocks of convolution, batch norm with ReLU and 2x2 max-pooling; dropout; one affine layer.

    Parameters
    ----------
    input_shape : (C, H, W) of the images, H and W at least 4
    classes : int
    width : int, filters of the first convolution; the second has twice as many
    drop : float, probability of dropping a feature before the affine layer
    seed : int, of the initial weights and the dropout masks

    Raises
    ------
    ValueError
        If the images are too small to be pooled twice.
    """
    channels, height, image_width = input_shape
    if min(height, image_width) < 4:
        raise ValueError(f"input_shape: expected images of at least 4 x 4, got {height} x {image_width}")
    rng = _generator(seed)
    features = Sequential(
        Conv2d(channels, width, 3, padding=1, bias=False, rng=rng, dtype=dtype),
        BatchNorm2d(width, relu=True, dtype=dtype),
        MaxPool2d(2),
        Conv2d(width, 2 * width, 3, padding=1, bias=False, rng=rng, dtype=dtype),
        BatchNorm2d(2 * width, relu=True, dtype=dtype),
        MaxPool2d(2),
        Dropout(drop, derive_key(seed, 1)),
        Flatten(),
    )
    (size,) = features.output_shape(input_shape)
    return Sequential(*features.layers, Linear(size, classes, rng=rng, dtype=dtype))


def resnet20(classes=10, channels=3, width=16, seed=0, dtype=np.float32):
    """ResNet-20 for CIFAR-size images: three stages of three basic blocks, with 1, 2 and 4 times `width` filters.

    A shortcut between stages is a 1x1 convolution of stride 2 with batch norm (option B of section 4.1; the paper's
    CIFAR nets have option A, which has no parameters). Images (channels, H, W) may have any size.

    Parameters
    ----------
    classes, channels, width : int
    seed : int, of the initial weights
    dtype : float32 or float64
    """
    rng = _generator(seed)
    stem = _conv_bn(channels, width, 3, 1, True, rng, dtype)
    return _resnet(stem, (width, 2 * width, 4 * width), 3, classes, rng, dtype)


def resnet18(classes=1000, channels=3, stem="imagenet", width=64, seed=0, dtype=np.float32):
    """ResNet-18: four stages of two basic blocks, with 1, 2, 4 and 8 times `width` filters; 1x1 shortcuts (option B).

    Parameters
    ----------
    classes, channels, width : int
    stem : {"imagenet", "cifar"}
        "imagenet": a 7x7 convolution of stride 2 and 3x3 max-pooling of stride 2; "cifar", for small images: a 3x3
        convolution of stride 1.
    seed : int, of the initial weights
    dtype : float32 or float64
    """
    rng = _generator(seed)
    if checks.choice("stem", stem, ("imagenet", "cifar")) == "cifar":
        first = _conv_bn(channels, width, 3, 1, True, rng, dtype)
    else:
        first = *_conv_bn(channels, width, 7, 2, True, rng, dtype), MaxPool2d(3, 2, 1)
    return _resnet(first, (width, 2 * width, 4 * width, 8 * width), 2, classes, rng, dtype)


def vgg11(classes=10, input_shape=(3, 32, 32), seed=0, dtype=np.float32):
    """VGG-11 with batch norm for CIFAR-size images: the eight convolutions of column A, then one affine layer.

    Parameters
    ----------
    classes : int
    input_shape : (C, H, W) of the images, H and W at least 32
    seed : int, of the initial weights
    dtype : float32 or float64

    Raises
    ------
    ValueError
        If the images are too small to be pooled five times.
    """
    channels, height, image_width = input_shape
    if min(height, image_width) < 32:
        raise ValueError(f"input_shape: expected images of at least 32 x 32, got {height} x {image_width}")
    rng, layers = _generator(seed), []
    for filters in _VGG11:
        if filters == "M":
            layers.append(MaxPool2d(2))
        else:
            layers += _conv_bn(channels, filters, 3, 1, True, rng, dtype)
            channels = filters
    (size,) = Sequential(*layers, Flatten()).output_shape(input_shape)
    return Sequential(*layers, Flatten(), Linear(size, classes, rng=rng, dtype=dtype))


def _generator(seed):
    return np.random.Generator(np.random.Philox(key=derive_key(seed, 0)))


def _conv_bn(channels, filters, size, stride, relu, rng, dtype):
    """A convolution that keeps the image's size (but for the stride), and its batch norm."""
    conv = Conv2d(channels, filters, size, stride, size // 2, bias=False, rng=rng, dtype=dtype)
    return conv, BatchNorm2d(filters, relu=relu, dtype=dtype)


def _resnet(stem, widths, blocks, classes, rng, dtype):
    """Stages of `blocks` basic blocks; each stage but the first halves the images' size."""
    layers, channels = list(stem), widths[0]
    for stage, filters in enumerate(widths):
        for block in range(blocks):
            layers.append(_basic_block(channels, filters, 2 if stage and block == 0 else 1, rng, dtype))
            channels = filters
    return Sequential(*layers, GlobalAvgPool2d(), Linear(channels, classes, rng=rng, dtype=dtype))


def _basic_block(channels, filters, stride, rng, dtype):
    main = Sequential(
        *_conv_bn(channels, filters, 3, stride, True, rng, dtype), *_conv_bn(filters, filters, 3, 1, False, rng, dtype)
    )
    same = stride == 1 and channels == filters
    return Residual(main, None if same else Sequential(*_conv_bn(channels, filters, 1, stride, False, rng, dtype)))
