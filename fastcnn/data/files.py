"""Reading a data set from disk, whatever its layout."""

from pathlib import Path

from fastcnn.data import cifar, idx, images, npz

_LAYOUTS = (npz, idx, cifar, images)  # each has LAYOUT, recognises(path), read(path)


def load(path, size=None, on_bad_image="error", seed=0):
    """The `Dataset` in a file or folder; the layout is recognised by what lies there.

    Understood are IDX files (MNIST, Fashion-MNIST), CIFAR-10 and CIFAR-100 in their binary version, folders of images
    per class, and .npz files: see ``read`` in `idx`, `cifar`, `images` and `npz`.

    Parameters
    ----------
    path : str or path
    size, on_bad_image, seed
        For folders of images only: see `fastcnn.data.images.read`.

    Raises
    ------
    FileNotFoundError
        `path`, or a file that belongs to the layout, does not exist.
    ValueError
        The layout is not understood, or a file is damaged: the message names it, what was expected and what came.
    """
    path, layout = Path(path), _layout(path)
    if layout is images:
        return images.read(path, size, on_bad_image, seed)
    if size is not None:
        raise ValueError(f"{path}: size is for folders of images; this is {layout.LAYOUT}")
    return layout.read(path)


def takes_size(path):
    """Whether what lies there, a folder of images, can be resized as it is read; errors as of `load`."""
    return _layout(path) is images


def _layout(path):
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    layout = next((layout for layout in _LAYOUTS if layout.recognises(path)), None)
    if layout is None:
        understood = "".join(f"\n  - {layout.LAYOUT}" for layout in _LAYOUTS)
        raise ValueError(f"{path}: no layout that is understood; found {_contents(path)}. Understood are:{understood}")
    return layout


def _contents(path, most=10):
    if path.is_file():
        return "a file"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "an empty folder"
