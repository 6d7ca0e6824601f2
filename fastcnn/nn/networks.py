"""Networks, ready to be trained. Each is a function of its seed; `dtype` is float32 or float64.

No bias where a batch norm follows. Sources: He et al., "Deep Residual Learning for Image Recognition" (2015), table 1
and section 4.2; Simonyan and Zisserman, "Very Deep Convolutional Networks" (2015), table 1; LeCun et al.,
"Gradient-Based Learning Applied to Document Recognition" (1998), figure 2.
"""

import difflib
import inspect

import numpy as np

from fastcnn.common.philox import derive_key
from fastcnn.layers import checks
from fastcnn.nn.activation import ReLU
from fastcnn.nn.containers import Residual, Sequential
from fastcnn.nn.conv import Conv2d
from fastcnn.nn.dropout import Dropout
from fastcnn.nn.linear import Flatten, Linear
from fastcnn.nn.norm import BatchNorm2d
from fastcnn.nn.pool import GlobalAvgPool2d, MaxPool2d

_VGG_WIDTHS = (1, 2, 4, 8, 8)  # filters of the five blocks, in those of the first


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
    channels, rng = _channels(input_shape, 4), _generator(seed)
    features = Sequential(
        *_conv(channels, width, 3, 1, rng, dtype),
        MaxPool2d(2),
        *_conv(width, 2 * width, 3, 1, rng, dtype),
        MaxPool2d(2),
        Dropout(drop, derive_key(seed, 1)),
        Flatten(),
    )
    (size,) = features.output_shape(input_shape)
    return Sequential(*features.layers, Linear(size, classes, rng=rng, dtype=dtype))


def mlp(input_shape, classes, hidden=(100,), batch_norm=False, drop=0.0, seed=0, dtype=np.float32):
    """A fully connected net: affine layers with ReLU, and one that gives the scores.

    Parameters
    ----------
    input_shape : shape of one example, (D,) or (C, H, W)
    classes : int
    hidden : ints, the neurons of each hidden layer
    batch_norm : bool, before every ReLU
    drop : float, probability of dropping a hidden neuron
    seed : int, of the initial weights and the dropout masks
    """
    rng, (size,) = _generator(seed), Flatten().output_shape(input_shape)
    return Sequential(Flatten(), *_affine(size, hidden, classes, batch_norm, drop, seed, rng, dtype))


def lenet(classes=10, input_shape=(1, 28, 28), seed=0, dtype=np.float32):
    """LeNet-5 as it is trained today, with ReLU and max-pooling: two convolutions of 5x5, affine layers of 120 and 84.

    The first convolution pads with 2 pixels, so that images of 28x28 are to it what the paper's of 32x32 are.

    Parameters
    ----------
    classes : int
    input_shape : (C, H, W) of the images, H and W at least 12
    seed : int, of the initial weights

    Raises
    ------
    ValueError
        If the images are too small.
    """
    channels, rng = _channels(input_shape, 12), _generator(seed)
    features = Sequential(
        Conv2d(channels, 6, 5, padding=2, rng=rng, dtype=dtype),
        ReLU(),
        MaxPool2d(2),
        Conv2d(6, 16, 5, rng=rng, dtype=dtype),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
    )
    (size,) = features.output_shape(input_shape)
    return Sequential(*features.layers, *_affine(size, (120, 84), classes, False, 0.0, seed, rng, dtype))


def resnet20(classes=10, channels=3, width=16, seed=0, dtype=np.float32):
    """ResNet-20 for CIFAR-size images: three stages of three basic blocks, with 1, 2 and 4 times `width` filters.

    A shortcut between stages is a 1x1 convolution of stride 2 with batch norm (option B of section 4.1; the paper's
    CIFAR nets have option A, which has no parameters). Images (channels, H, W) may have any size.

    Parameters
    ----------
    classes, channels, width : int
    seed : int, of the initial weights
    """
    return _resnet(_basic_block, (3, 3, 3), classes, channels, "cifar", width, seed, dtype)


def resnet32(classes=10, channels=3, width=16, seed=0, dtype=np.float32):
    """ResNet-32: as `resnet20`, with stages of five blocks."""
    return _resnet(_basic_block, (5, 5, 5), classes, channels, "cifar", width, seed, dtype)


def resnet56(classes=10, channels=3, width=16, seed=0, dtype=np.float32):
    """ResNet-56: as `resnet20`, with stages of nine blocks."""
    return _resnet(_basic_block, (9, 9, 9), classes, channels, "cifar", width, seed, dtype)


def resnet18(classes=1000, channels=3, stem="imagenet", width=64, seed=0, dtype=np.float32):
    """ResNet-18: four stages of two basic blocks, with 1, 2, 4 and 8 times `width` filters; 1x1 shortcuts (option B).

    Parameters
    ----------
    classes, channels, width : int
    stem : {"imagenet", "cifar"}
        "imagenet": a 7x7 convolution of stride 2 and 3x3 max-pooling of stride 2; "cifar", for small images: a 3x3
        convolution of stride 1.
    seed : int, of the initial weights
    """
    return _resnet(_basic_block, (2, 2, 2, 2), classes, channels, stem, width, seed, dtype)


def resnet34(classes=1000, channels=3, stem="imagenet", width=64, seed=0, dtype=np.float32):
    """ResNet-34: as `resnet18`, with stages of three, four, six and three blocks."""
    return _resnet(_basic_block, (3, 4, 6, 3), classes, channels, stem, width, seed, dtype)


def resnet50(classes=1000, channels=3, stem="imagenet", width=64, seed=0, dtype=np.float32):
    """ResNet-50: as `resnet34`, of bottleneck blocks, whose outputs have four times as many channels.

    The stride of a stage is that of its first 3x3 convolution, where most weights for download have it; the paper's is
    that of the 1x1 before it.
    """
    return _resnet(_bottleneck, (3, 4, 6, 3), classes, channels, stem, width, seed, dtype)


def vgg11(classes=10, input_shape=(3, 32, 32), seed=0, dtype=np.float32, batch_norm=True, head="cifar", width=64):
    """VGG-11: the eight convolutions of column A in five blocks, each ended by 2x2 max-pooling, and affine layers.

    Parameters
    ----------
    classes : int
    input_shape : (C, H, W) of the images, H and W at least 32
    seed : int, of the initial weights and the dropout masks
    batch_norm : bool, before every ReLU of the convolutions
    head : {"cifar", "imagenet"}
        "cifar": one affine layer; "imagenet": the paper's three, 64 times `width` neurons in the hidden ones, with
        dropout, for images of 224x224.
    width : int, filters of the first block; the others have 2, 4, 8 and 8 times as many

    Raises
    ------
    ValueError
        If the images are too small to be pooled five times.
    """
    return _vgg((1, 1, 2, 2, 2), classes, input_shape, seed, dtype, batch_norm, head, width)


def vgg13(classes=10, input_shape=(3, 32, 32), seed=0, dtype=np.float32, batch_norm=True, head="cifar", width=64):
    """VGG-13: as `vgg11`, with the ten convolutions of column B."""
    return _vgg((2, 2, 2, 2, 2), classes, input_shape, seed, dtype, batch_norm, head, width)


def vgg16(classes=10, input_shape=(3, 32, 32), seed=0, dtype=np.float32, batch_norm=True, head="cifar", width=64):
    """VGG-16: as `vgg11`, with the thirteen convolutions of column D."""
    return _vgg((2, 2, 3, 3, 3), classes, input_shape, seed, dtype, batch_norm, head, width)


def vgg19(classes=10, input_shape=(3, 32, 32), seed=0, dtype=np.float32, batch_norm=True, head="cifar", width=64):
    """VGG-19: as `vgg11`, with the sixteen convolutions of column E."""
    return _vgg((2, 2, 4, 4, 4), classes, input_shape, seed, dtype, batch_norm, head, width)


NETWORKS = {
    network.__name__: network
    for network in (
        small_cnn, mlp, lenet, resnet20, resnet32, resnet56, resnet18, resnet34, resnet50, vgg11, vgg13, vgg16, vgg19,
    )
}  # fmt: skip
_OF_BUILD = {"input_shape", "channels", "classes", "seed", "dtype"}


def build(name, input_shape, classes, seed=0, dtype=np.float32, **options):
    """The network of this name for images of one shape.

    A ResNet with a choice of stems has the one for small images where these have fewer than 64 pixels along a side, and
    a VGG net the head for small images; `options` say otherwise.

    Parameters
    ----------
    name : str, of `NETWORKS`
    input_shape : (C, H, W) of the images
    classes : int
    seed : int, of the initial weights and the dropout masks
    dtype : float32 or float64
    options : further arguments of the network's function, such as `width`

    Raises
    ------
    ValueError
        If no network has this name, or the network does not have an option.
    """
    common = dict(input_shape=tuple(input_shape), channels=input_shape[0], classes=classes, seed=seed, dtype=dtype)
    known = inspect.signature(_network(name)).parameters
    given = {option: value for option, value in common.items() if option in known}
    return NETWORKS[name](**given, **network_options(name, input_shape, **options))


def network_options(name, input_shape, **options):
    """All options of a network, as a dict: those given, and for the others what `build` takes; errors are its own."""
    size = "cifar" if min(input_shape[1:], default=0) < 64 else "imagenet"
    defaults = {
        option: size if option in ("stem", "head") else parameter.default
        for option, parameter in inspect.signature(_network(name)).parameters.items()
        if option not in _OF_BUILD
    }
    for option in options:
        if option not in defaults:
            has = f"it has {', '.join(defaults)}" if defaults else "it has none"
            raise ValueError(f"{name} has no option {option!r}{nearest(option, defaults)}; {has}")
    return defaults | options


def _network(name):
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}{nearest(name, NETWORKS)}; known are {', '.join(NETWORKS)}")
    return NETWORKS[name]


def nearest(name, names):
    """A guess at what was meant, to be put into a message."""
    found = difflib.get_close_matches(name, names, 1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _generator(seed):
    return np.random.Generator(np.random.Philox(key=derive_key(seed, 0)))


def _channels(input_shape, smallest):
    """The channels of images that are large enough."""
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ValueError(f"input_shape: expected images of at least {smallest} x {smallest}, got {height} x {width}")
    return channels


def _conv(channels, filters, size, stride, rng, dtype, batch_norm=True, relu=True):
    """The layers of a convolution that keeps the image's size (but for the stride)."""
    conv = Conv2d(channels, filters, size, stride, size // 2, bias=not batch_norm, rng=rng, dtype=dtype)
    after = [BatchNorm2d(filters, relu=relu, dtype=dtype)] if batch_norm else [ReLU()] * relu
    return [conv, *after]


def _affine(size, hidden, classes, batch_norm, drop, seed, rng, dtype):
    """The affine layers of a net, with what stands between them."""
    layers = []
    for i, neurons in enumerate(hidden):
        layers.append(Linear(size, neurons, bias=not batch_norm, relu=True, rng=rng, dtype=dtype))
        layers.append(BatchNorm2d(neurons, relu=True, dtype=dtype) if batch_norm else ReLU())
        if drop:
            layers.append(Dropout(drop, derive_key(seed, 1 + i)))
        size = neurons
    return [*layers, Linear(size, classes, rng=rng, dtype=dtype)]


def _vgg(convolutions, classes, input_shape, seed, dtype, batch_norm, head, width):
    """Blocks of so many convolutions each."""
    channels, rng, layers = _channels(input_shape, 32), _generator(seed), []
    hidden = () if checks.choice("head", head, ("cifar", "imagenet")) == "cifar" else (64 * width, 64 * width)
    for count, times in zip(convolutions, _VGG_WIDTHS, strict=True):
        for _ in range(count):
            layers += _conv(channels, times * width, 3, 1, rng, dtype, batch_norm)
            channels = times * width
        layers.append(MaxPool2d(2))
    layers.append(Flatten())
    (size,) = Sequential(*layers).output_shape(input_shape)
    return Sequential(*layers, *_affine(size, hidden, classes, False, 0.5, seed, rng, dtype))


def _resnet(make_block, blocks, classes, channels, stem, width, seed, dtype):
    """Stages of so many blocks each; each stage but the first halves the images' size, and has twice the filters."""
    rng = _generator(seed)
    if checks.choice("stem", stem, ("imagenet", "cifar")) == "cifar":
        layers = _conv(channels, width, 3, 1, rng, dtype)
    else:
        layers = [*_conv(channels, width, 7, 2, rng, dtype), MaxPool2d(3, 2, 1)]
    channels = width
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride, shortcut = 2 if stage and i == 0 else 1, None
            main = Sequential(*make_block(channels, width << stage, stride, rng, dtype))
            filters = main.layers[-2].weight.data.shape[0]
            if (channels, stride) != (filters, 1):
                shortcut = Sequential(*_conv(channels, filters, 1, stride, rng, dtype, relu=False))
            layers.append(Residual(main, shortcut))
            channels = filters
    return Sequential(*layers, GlobalAvgPool2d(), Linear(channels, classes, rng=rng, dtype=dtype))


def _basic_block(channels, filters, stride, rng, dtype):
    """The layers of the main branch."""
    first = _conv(channels, filters, 3, stride, rng, dtype)
    return [*first, *_conv(filters, filters, 3, 1, rng, dtype, relu=False)]


def _bottleneck(channels, filters, stride, rng, dtype):
    reduce = _conv(channels, filters, 1, 1, rng, dtype)
    middle = _conv(filters, filters, 3, stride, rng, dtype)
    return [*reduce, *middle, *_conv(filters, 4 * filters, 1, 1, rng, dtype, relu=False)]
