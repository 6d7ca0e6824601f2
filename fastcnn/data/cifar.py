"""CIFAR-10 and CIFAR-100, binary version (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009).

A file is a row of records: one label byte (CIFAR-100: the coarse, then the fine label), then 3 x 32 x 32 pixels.
"""

from typing import NamedTuple

import numpy as np

from fastcnn.data.dataset import Dataset, check_labels

LAYOUT = (
    "CIFAR-10 or CIFAR-100, binary version: data_batch_1.bin .. data_batch_5.bin and test_batch.bin, "
    "or train.bin and test.bin (or a folder cifar-10-batches-bin / cifar-100-binary that holds them)"
)
_IMAGE = (3, 32, 32)


class _Version(NamedTuple):
    name: str
    folder: str  # as in the published archive
    train: tuple[str, ...]
    test: str
    class_file: str
    label_bytes: int
    classes: int


_VERSIONS = (
    _Version(
        name="cifar-10",
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        class_file="batches.meta.txt",
        label_bytes=1,
        classes=10,
    ),
    _Version(
        name="cifar-100",
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        class_file="fine_label_names.txt",
        label_bytes=2,
        classes=100,
    ),
)


def recognises(path):
    """Whether `path` is a folder of CIFAR files."""
    return _locate(path) is not None


def read(path):
    """The Dataset in a folder of CIFAR files: images (N, 3, 32, 32); CIFAR-100 with its fine labels.

    Raises
    ------
    FileNotFoundError
        A data file is missing (without the file of class names, classes are called by their number).
    ValueError
        A file is not a whole number of records, or a label is out of range.
    """
    folder, version = _locate(path)
    for file in (*version.train, version.test):
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} is missing: {version.name} is not complete")
    batches = [_read_records(folder / file, version) for file in version.train]
    x_train, y_train = (np.concatenate(arrays) for arrays in zip(*batches))
    x_test, y_test = _read_records(folder / version.test, version)
    return Dataset(x_train, y_train, x_test, y_test, _read_class_names(folder, version), version.name)


def _locate(path):
    """(folder, version) of the CIFAR files in the folder `path` or just below it, or None."""
    for version in _VERSIONS:
        for folder in (path, path / version.folder):
            if any((folder / file).is_file() for file in (*version.train, version.test)):
                return folder, version
    return None


def _read_records(file, version):
    data = np.fromfile(file, np.uint8)
    length = version.label_bytes + np.prod(_IMAGE)
    if len(data) == 0 or len(data) % length:
        raise ValueError(f"{file}: {len(data)} bytes, expected a multiple of {length} (one {version.name} record)")
    records = data.reshape(-1, length)
    y = records[:, version.label_bytes - 1]
    check_labels(y, len(records), version.classes, str(file))
    return records[:, version.label_bytes :].reshape(-1, *_IMAGE), y


def _read_class_names(folder, version):
    file = folder / version.class_file
    if not file.is_file():
        return tuple(map(str, range(version.classes)))
    names = file.read_text(encoding="utf-8", errors="replace").split()
    if len(names) != version.classes:
        raise ValueError(f"{file}: {len(names)} class names, expected {version.classes}")
    return tuple(names)
