"""Networks, ready to be trained."""

import numpy as np

from fastcnn.common.philox import derive_key
from fastcnn.nn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Sequential


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
    rng = np.random.Generator(np.random.Philox(key=derive_key(seed, 0)))
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
