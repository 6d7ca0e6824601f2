"""IDX files, the format of MNIST (LeCun, Cortes, Burges, yann.lecun.com/exdb/mnist) and of the sets modelled on it."""

import gzip
import math
import zlib

import numpy as np

from fastcnn.data.dataset import Dataset, check_labels

LAYOUT = (
    "IDX files of MNIST or Fashion-MNIST: train-images-idx3-ubyte, train-labels-idx1-ubyte, "
    "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; also with '.idx', also with '.gz' at the end"
)

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

# The files of these sets have the same names; their first training labels tell them apart.
_KNOWN = {
    (5, 0, 4, 1, 9, 2, 1, 3, 1, 4): ("mnist", DIGITS),
    (9, 0, 0, 3, 0, 2, 7, 2, 5, 5): ("fashion-mnist", FASHION),
}
_FILES = [(part, kind) for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def recognises(path):
    """Whether `path` is a folder of IDX files."""
    return any(_find(path, *file) for file in _FILES)


def read(path):
    """The Dataset in a folder of IDX files: images (N, 1, H, W), ten classes.

    Raises
    ------
    FileNotFoundError
        One of the four files is missing.
    ValueError
        A file is damaged, or the four do not fit together.
    """
    arrays = []
    for part in ("train", "t10k"):
        image_file, label_file = _require(path, part, "images-idx3"), _require(path, part, "labels-idx1")
        x, y = read_idx(image_file, 3), read_idx(label_file, 1)
        check_labels(y, len(x), len(DIGITS), f"{label_file} (images: {image_file.name})")
        arrays += [x[:, None], y]
    name, class_names = _KNOWN.get(tuple(arrays[1][:10].tolist()), (path.resolve().name, DIGITS))
    return Dataset(*arrays, class_names=class_names, name=name)


def read_idx(file, ndim):
    """The uint8 array of `ndim` dimensions in one IDX file, gzip-compressed or not (the first bytes tell).

    Raises ValueError, naming the file, if it is damaged or holds something else.
    """
    data = file.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{file}: damaged gzip data ({error})") from error
    magic, header = bytes([0, 0, 8, ndim]), 4 + 4 * ndim  # 8: unsigned bytes
    if data[:4] != magic:
        raise ValueError(
            f"{file}: not an IDX file of {ndim}-d bytes: magic 0x{data[:4].hex()}, expected 0x{magic.hex()}"
        )
    if len(data) < header:
        raise ValueError(f"{file}: truncated header: {len(data)} bytes, expected {header}")
    shape = tuple(np.frombuffer(data, ">u4", ndim, offset=4).tolist())
    if 0 in shape:
        raise ValueError(f"{file}: holds nothing, an array of shape {shape}")
    expected = header + math.prod(shape)
    if len(data) != expected:
        raise ValueError(f"{file}: {len(data)} bytes, expected {expected} for an array of shape {shape}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _find(path, part, kind):
    stems = (f"{part}-{kind}-ubyte", f"{part}-{kind}-ubyte".replace("-idx", ".idx"))
    candidates = (path / (stem + suffix) for suffix in ("", ".gz") for stem in stems)
    return next((file for file in candidates if file.is_file()), None)


def _require(path, part, kind):
    file = _find(path, part, kind)
    if file is None:
        raise FileNotFoundError(f"{path / f'{part}-{kind}-ubyte'} is missing (nor is there a .gz of it)")
    return file
