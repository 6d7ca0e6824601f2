"""Data sets in NumPy's .npz archives."""

import numpy as np

from fastcnn.data.dataset import Dataset

LAYOUT = "an .npz file with the arrays x_train, y_train, x_test, y_test and, if wanted, class_names"
_KEYS = ("x_train", "y_train", "x_test", "y_test")
_CHANNELS = (1, 2, 3, 4)
_MOST_CLASSES = 2**16  # one wild label must not ask for a billion names


def recognises(path):
    """Whether `path` is an .npz file."""
    return path.is_file() and path.suffix.lower() == ".npz"


def read(path):
    """The Dataset in an .npz file; nothing in it is unpickled.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to 4 channels. Integers must lie in 0 .. 255. Floats are
    brightness in [0, 1] if no training image exceeds 1, else in [0, 255]; they are rounded to uint8. Labels are
    integers, (N,) or (N, 1). Without class_names the classes are called by number, up to the largest training label.

    Raises
    ------
    ValueError
        The file is damaged, an array is missing, or its shape, dtype or values are not as said above.
    """
    arrays = _read_arrays(path)
    scale = _scale(arrays["x_train"])
    for key in ("x_train", "x_test"):
        arrays[key] = _channels_first(_to_uint8(arrays[key], scale, f"{path}: {key}"), f"{path}: {key}")
    for key in ("y_train", "y_test"):
        y = arrays[key]
        arrays[key] = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    names = arrays.setdefault("class_names", _numbers(arrays["y_train"]))
    if names.ndim != 1 or names.dtype.kind != "U":
        raise ValueError(f"{path}: class_names must be a row of strings, not {names.shape} {names.dtype}")
    return Dataset(**arrays, name=path.stem)


def _read_arrays(path):
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            found = archive.files
            arrays = {key: archive[key] for key in (*_KEYS, "class_names") if key in found}
        except Exception as error:  # a damaged archive makes zipfile and numpy raise nearly anything
            raise ValueError(f"{path}: not a readable .npz file without pickled objects ({error})") from error
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{path}: {', '.join(missing)} missing; found {', '.join(found) or 'nothing'}")
    return arrays


def _scale(x):
    """What one unit of x is worth in steps of 0 .. 255."""
    return 255 if x.dtype.kind == "f" and x.size and x.max() <= 1 else 1


def _to_uint8(x, scale, what):
    if x.dtype.kind not in "iuf":
        raise ValueError(f"{what}: images must be integers or floats, not {x.dtype}")
    if x.size and not (x.min() >= 0 and x.max() <= 255 // scale):  # so written that NaN fails
        raise ValueError(f"{what}: values must lie in 0 .. {255 // scale}, found {x.min()} .. {x.max()}")
    return np.rint(x * scale).astype(np.uint8) if x.dtype.kind == "f" else x.astype(np.uint8, copy=False)


def _channels_first(x, what):
    """The images as (N, C, H, W)."""
    if x.ndim == 3:
        return x[:, None]
    axes = [axis for axis in (1, 3) if x.ndim == 4 and x.shape[axis] in _CHANNELS]
    if len(axes) != 1:
        raise ValueError(f"{what}: cannot tell the channels of {x.shape}: (N, H, W), (N, H, W, C) or (N, C, H, W)?")
    return np.moveaxis(x, axes[0], 1)


def _numbers(y):
    classes = int(y.max()) + 1 if y.size and y.dtype.kind in "iu" else 0
    return np.arange(min(classes, _MOST_CLASSES)).astype(str)
