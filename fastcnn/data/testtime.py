"""Predictions averaged over crops and scales of the test images."""

import numpy as np

from fastcnn.data.augmentation import resize_maps
from fastcnn.layers import checks
from fastcnn.layers.backend import host_floor


def ten_crops(x, size):
    """The four corners and the centre of each image, and their mirror images.

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep CNNs" (2012), section 4.1.

    Parameters
    ----------
    x : (N, C, H, W)
    size : int or (height, width), at most (H, W)

    Returns
    -------
    (N, 10, C, height, width), dtype of x
        Upper left, upper right, lower left, lower right, centre; then the same mirrored left to right.

    Raises
    ------
    ValueError
        x is no batch of images, or smaller than the crops.
    """
    height, width = checks.pair("size", size, 1)
    if x.ndim != 4 or x.shape[2] < height or x.shape[3] < width:
        raise ValueError(f"x: expected images (N, C, H, W) of at least {(height, width)}, got shape {x.shape}")
    down, right = x.shape[2] - height, x.shape[3] - width
    corners = (0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)
    crops = np.stack([x[:, :, i : i + height, j : j + width] for i, j in corners], axis=1)
    return np.concatenate([crops, crops[..., ::-1]], axis=1)


def resize_short_side(x, length, dtype=np.float32):
    """Images resized so that their short side is `length` pixels, the long side in proportion; bilinear, values kept.

    Parameters
    ----------
    x : (N, C, H, W) uint8 or floating
    length : int
    dtype : float32 or float64, of the result (N, C, H', W')
    """
    length = checks.integer("length", length, 1)
    size = x.shape[2:]
    resized = tuple(max(1, round(side * length / min(size))) for side in size)
    x = x if x.dtype == np.uint8 else x.astype(dtype, copy=False)
    zero, one = (np.full(x.shape[1], value, dtype) for value in (0, 1))
    return host_floor("augment").warp_images(x, resize_maps(len(x), size, resized)[:, :2], resized, zero, one, zero)


def predict_crops(predict, x, size, shortest=None, preprocess=None, dtype=np.float32, batch_size=32):
    """Predictions averaged over the ten crops of each image, at one or several scales.

    Parameters
    ----------
    predict : function of images (M, C, height, width) in `dtype` -> (M, classes)
        What it gives is averaged: probabilities, or scores.
    x : (N, C, H, W) uint8 or floating
    size : int or (height, width), of the crops
    shortest : lengths that the images' short sides are resized to, one scale after the other; None: as they are
    preprocess : object with ``apply(images, dtype)``, as fitted to the training images, or None
    batch_size : int, images at a time, each of ten crops

    Returns
    -------
    (N, classes), the dtype of what `predict` gives

    Raises
    ------
    ValueError
        There are no images or no scales, or the crops are larger than the images.
    """
    scales = (None,) if shortest is None else tuple(shortest)
    if not len(x) or not scales:
        raise ValueError(f"x, shortest: expected some images and scales, got {len(x)} and {len(scales)}")

    def mean_of_crops(images, length):
        images = images.astype(dtype) if length is None else resize_short_side(images, length, dtype)
        crops = ten_crops(images, size).reshape(-1, images.shape[1], *checks.pair("size", size, 1))
        predictions = np.asarray(predict(preprocess.apply(crops, dtype) if preprocess else crops))
        return predictions.reshape(len(images), 10, -1).mean(axis=1)

    checks.integer("batch_size", batch_size, 1)
    parts = [x[first : first + batch_size] for first in range(0, len(x), batch_size)]
    return np.concatenate([np.mean([mean_of_crops(part, length) for length in scales], axis=0) for part in parts])
