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
from fastcnn.data.files import load
from fastcnn.data.preprocess import Standardize
from fastcnn.data.testtime import predict_crops, resize_short_side, ten_crops

__all__ = [
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
    "Standardize",
    "Translate",
    "load",
    "load_fashion_mnist",
    "predict_crops",
    "resize_short_side",
    "ten_crops",
]
