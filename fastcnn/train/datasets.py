"""The data set that a run is of, as it was when that was trained."""

import sys
import warnings
from dataclasses import replace

from fastcnn import data


def load_dataset(path, size=None, on_bad_image="error", seed=0):
    """The data set at `path`, None the images that come with the package; warnings are printed.

    The arguments and errors are those of `data.load`.
    """
    if path is None:
        return data.load_fashion_mnist()
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: print(f"fastcnn: {message}", file=sys.stderr)
        return data.load(path, size=None if size is None else tuple(size), on_bad_image=on_bad_image, seed=seed)


def dataset_of(config, path=None):
    """The data of a run, or other data, as the run's net takes them.

    Folders of images are read as in the training, so that the test part is the same where it was drawn.

    Parameters
    ----------
    config : dict, the contents of the run's config.json
    path : str or path, or None: where the run had its data

    Raises
    ------
    FileNotFoundError, ValueError
        As of `data.load`; also if images cannot be made such as the run's, or classes are others.
    """
    described, options = config["dataset"], config["options"]
    channels, *size = described["image_shape"]
    path = described["path"] if path is None else path
    if path is None or not data.takes_size(path):
        size = None
    dataset = load_dataset(path, size, options.get("on_bad_image", "error"), options.get("seed", 0))
    dataset = with_channels(dataset, channels)
    shape, classes = dataset.x_train.shape[1:], tuple(described["classes"])
    if shape != tuple(described["image_shape"]):
        raise ValueError(
            f"{dataset.name}: images are {shape}, those of the training were {tuple(described['image_shape'])}"
        )
    if dataset.class_names != classes:
        raise ValueError(
            f"{dataset.name}: classes are {_some(dataset.class_names)}, those of the training were {_some(classes)}"
        )
    return dataset


def with_channels(dataset, channels):
    """The data set with images of so many channels: `data.convert_channels`."""
    x_train, x_test = (data.convert_channels(x, channels) for x in (dataset.x_train, dataset.x_test))
    return replace(dataset, x_train=x_train, x_test=x_test)


def _some(names, most=10):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
