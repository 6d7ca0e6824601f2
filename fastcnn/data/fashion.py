"""The data set that comes with the package: 10,000 images of Fashion-MNIST.

Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747 (2017); MIT License, see FASHION_MNIST_LICENSE beside this file.

The shipped file is an ordinary .npz whose members are LZMA-compressed: ``numpy.load`` reads it too.
"""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastcnn.data import idx, npz

_SHIPPED = Path(__file__).with_name("fashion_mnist_10k.npz")


def load_fashion_mnist():
    """8,000 training and 2,000 test images, (N, 1, 28, 28) uint8: `Dataset`.

    Of each of the ten classes the first 800 images of Fashion-MNIST's training file and the first 200 of its test file,
    in the order of these files.
    """
    return replace(npz.read(_SHIPPED), name="fashion-mnist-10k")


def pack(folder, path, train_per_class=800, test_per_class=200):
    """Make the shipped file from a folder of Fashion-MNIST's four IDX files; the same input gives the same bytes.

    Raises
    ------
    FileNotFoundError, ValueError
        As `fastcnn.data.load`; also if a class has fewer images than asked for.
    """
    full = idx.read(Path(folder))
    train = _first_per_class(full.y_train, train_per_class, f"{folder}: training part")
    test = _first_per_class(full.y_test, test_per_class, f"{folder}: test part")
    arrays = {
        "x_train": full.x_train[train, 0],
        "y_train": full.y_train[train].astype(np.uint8),
        "x_test": full.x_test[test, 0],
        "y_test": full.y_test[test].astype(np.uint8),
        "class_names": np.array(full.class_names),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for key, array in arrays.items():
            member = zipfile.ZipInfo(f"{key}.npy")  # its date is 1980-01-01, whenever this runs
            member.compress_type = zipfile.ZIP_LZMA
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _first_per_class(y, count, what):
    """Ascending indices of the first `count` images of each class."""
    chosen = [np.flatnonzero(y == label)[:count] for label in range(len(idx.FASHION))]
    short = [label for label, members in enumerate(chosen) if len(members) < count]
    if short:
        raise ValueError(f"{what}: fewer than {count} images of class {', '.join(map(str, short))}")
    return np.sort(np.concatenate(chosen))
