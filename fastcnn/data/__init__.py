"""Data sets, preprocessing and mini-batches, in plain NumPy."""

from fastcnn.data.batches import Batches
from fastcnn.data.dataset import Dataset
from fastcnn.data.fashion import load_fashion_mnist
from fastcnn.data.files import load
from fastcnn.data.preprocess import Standardize

__all__ = ["Batches", "Dataset", "Standardize", "load", "load_fashion_mnist"]
