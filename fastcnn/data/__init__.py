"""Data sets, preprocessing, augmentation and mini-batches."""

from fastcnn.data.augmentation import (
    ColorJitter,
    Compose,
    Cutout,
    Mixup,
    Noise,
    PadAndCrop,
    RandomFlip,
    RandomResizedCrop,
    ResizeAndCrop,
    Rotate,
    Scale,
    Translate,
)
from fastcnn.data.batches import Batches
from fastcnn.data.dataset import Dataset
from fastcnn.data.fashion import load_fashion_mnist
from fastcnn.data.files import load, takes_size
from fastcnn.data.images import convert_channels, image_files, read_image
from fastcnn.data.preprocess import (
    IMAGENET,
    PCA,
    PREPROCESSING,
    ZCA,
    ScaleToRange,
    Standardize,
    StandardizeEach,
    SubtractMean,
    SubtractMeanImage,
    Whiten,
)
from fastcnn.data.testtime import predict_crops, resize_short_side, ten_crops

__all__ = [
    "IMAGENET",
    "PCA",
    "PREPROCESSING",
    "ZCA",
    "Batches",
    "ColorJitter",
    "Compose",
    "Cutout",
    "Dataset",
    "Mixup",
    "Noise",
    "PadAndCrop",
    "RandomFlip",
    "RandomResizedCrop",
    "ResizeAndCrop",
    "Rotate",
    "Scale",
    "ScaleToRange",
    "Standardize",
    "StandardizeEach",
    "SubtractMean",
    "SubtractMeanImage",
    "Translate",
    "Whiten",
    "convert_channels",
    "image_files",
    "load",
    "load_fashion_mnist",
    "predict_crops",
    "read_image",
    "resize_short_side",
    "takes_size",
    "ten_crops",
]
