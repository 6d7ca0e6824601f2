"""Folders of image files, one folder per class (read with Pillow)."""

import warnings

import numpy as np

from fastcnn.data.dataset import Dataset
from fastcnn.data.shuffle import stratified_split

LAYOUT = (
    "image files in one folder per class: train/<class>/*.png with test/<class>/*.png (or val/), "
    "or <class>/*.png alone (a fifth of each class, drawn by the seed, becomes the test part)"
)
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_PARTS = {"train", "test", "val"}
_TEST_FRACTION = 0.2


def recognises(path):
    """Whether `path` is a folder of image folders."""
    return path.is_dir() and (_has_parts(path) or any(image_files(folder) for folder in _class_folders(path)))


def read(path, size=None, on_bad_image="error", seed=0):
    """The Dataset in a folder of image folders: grayscale if every image is, else RGB (an alpha channel is dropped).

    Classes are the folders of the training part in the order of their names. Photographs are turned as their EXIF says.

    Parameters
    ----------
    size : (height, width) or None
        Every image is resized to it (bilinear, the aspect ratio is not kept). None: sizes must agree.
    on_bad_image : "error" | "skip"
        What to do about an image that cannot be decoded or has more than 8 bits per channel: "skip" warns.
    seed : int
        Draws the test part where the folder has none.

    Raises
    ------
    ImportError
        Pillow is not installed.
    ValueError
        A bad image, sizes that differ, an empty folder, a test class without training images.
    """
    if on_bad_image not in ("error", "skip"):
        raise ValueError(f"on_bad_image must be 'error' or 'skip', not {on_bad_image!r}")
    if size is not None and not (len(size) == 2 and all(length >= 1 for length in size)):
        raise ValueError(f"size must be (height, width), both positive, not {size!r}")
    train_folder, test_folder = _part_folders(path)
    class_names = [folder.name for folder in _class_folders(train_folder)]
    if len(class_names) < 2:
        raise ValueError(f"{train_folder}: need a folder for each of two or more classes, found {class_names}")

    files, y = _list_images(train_folder, class_names)
    is_test = np.zeros(len(y), bool)
    if test_folder:
        test_files, test_y = _list_images(test_folder, class_names)
        files, y, is_test = files + test_files, y + test_y, np.append(is_test, np.ones(len(test_y), bool))
    x, decoded = _read_images(files, size, on_bad_image)
    y, is_test = np.array(y)[decoded], is_test[decoded]
    if not test_folder:
        is_test[stratified_split(y, _TEST_FRACTION, seed)[1]] = True
    lost = set(range(len(class_names))) - set(y[~is_test].tolist())
    if lost:
        raise ValueError(
            f"{train_folder}: no image of {', '.join(class_names[i] for i in sorted(lost))} can be decoded"
        )
    return Dataset(x[~is_test], y[~is_test], x[is_test], y[is_test], class_names, path.resolve().name)


def _has_parts(path):
    """Whether the folder is divided into train/ and others. (A folder 'train' of images alone is a class: vehicles.)"""
    return (path / "train").is_dir() and bool(_class_folders(path / "train"))


def _part_folders(path):
    """Folders that hold the class folders of the training and of the test part; the latter may be None."""
    if not _has_parts(path):
        if {folder.name for folder in _class_folders(path)} <= _PARTS:
            raise ValueError(f"{path}: the images in its folders are not sorted into class folders")
        return path, None
    present = [path / part for part in ("test", "val") if (path / part).is_dir()]
    if not present:
        raise ValueError(f"{path}: has train/ but neither test/ nor val/ (load {path / 'train'} to have it divided)")
    if len(present) == 2:
        warnings.warn(f"{present[1]} is not read: {present[0]} is the test part", stacklevel=4)
    return path / "train", present[0]


def _class_folders(path):
    folders = (f for f in path.iterdir() if f.is_dir() and not f.name.startswith((".", "__MACOSX")))
    return sorted(folders, key=lambda folder: folder.name)


def image_files(folder):
    """The image files in a folder, by the endings of their names, sorted."""
    files = (f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    return sorted(files, key=lambda file: file.name)


def _list_images(folder, class_names):
    """All image files below the class folders, and their labels."""
    files, y = [], []
    for class_folder in _class_folders(folder):
        if class_folder.name not in class_names:
            raise ValueError(f"{class_folder}: the training part has no class of this name")
        found = image_files(class_folder)
        if not found:
            raise ValueError(f"{class_folder}: no image files ({', '.join(sorted(SUFFIXES))}) in this folder")
        files += found
        y += [class_names.index(class_folder.name)] * len(found)
    if not files:
        raise ValueError(f"{folder}: no class folders")
    return files, y


def _read_images(files, size, on_bad_image):
    """All images that can be decoded, (N, C, H, W) uint8, and which files these are, (len(files),) bool."""
    images, decoded = [], np.zeros(len(files), bool)
    for i, file in enumerate(files):
        try:
            image = read_image(file, size)
        except ValueError as error:
            if on_bad_image == "error":
                raise
            warnings.warn(f"{file} is skipped: {error.args[0].removeprefix(f'{file}: ')}", stacklevel=4)
            continue
        if images and image.shape[1:] != images[0].shape[1:]:
            first, shape = files[decoded.argmax()], images[0].shape[1:]
            raise ValueError(f"{file} is {image.shape[1:]}, {first} {shape}: give size=(height, width) to resize them")
        images.append(image)
        decoded[i] = True
    if not images:
        raise ValueError(f"none of the {len(files)} images, {files[0]} .., can be decoded")
    channels = max(len(image) for image in images)
    x = np.empty((len(images), channels, *images[0].shape[1:]), np.uint8)
    for i, image in enumerate(images):
        x[i] = image  # a grayscale image fills all three channels
    return x, decoded


def read_image(path, size=None, channels=None):
    """One image file, as those of a folder are read.

    Parameters
    ----------
    path : str or path
    size : (height, width), to resize it to (bilinear, the aspect ratio is not kept), or None
    channels : 1, 3 or None
        1: luminance; 3: red, green and blue, which are alike for a grayscale image; None: 1 for those, else 3.

    Returns
    -------
    (channels, H, W) uint8

    Raises
    ------
    ImportError
        Pillow is not installed.
    ValueError
        The file is missing, cannot be decoded, or has more than 8 bits per channel.
    """
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError("reading image files needs Pillow: pip install fastcnn[train]") from error
    try:
        return _decode(path, size, channels)
    except Exception as error:  # Pillow's decoders raise nearly anything
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
        raise ValueError(f"{path}: cannot be decoded ({reason})") from error


def _decode(path, size, channels):
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):  # converting would clip, not scale
            raise ValueError(f"mode {image.mode}: more than 8 bits per channel")
        if image.mode == "P":  # whose colours may be transparent, which Pillow warns of where it drops that
            image = image.convert("RGBA")
        gray = image.mode in ("1", "L", "LA")
        image = image.convert({None: "L" if gray else "RGB", 1: "L", 3: "RGB"}[channels])
        if size is not None:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def convert_channels(x, channels):
    """Images of another number of channels, as `read_image` makes them of files.

    Parameters
    ----------
    x : (N, 1, H, W) or (N, 3, H, W) uint8
    channels : 1 or 3

    Returns
    -------
    (N, channels, H, W) uint8; x itself if it has so many channels
        From one to three all are the same; from three to one that is the luminance by ITU-R recommendation BT.601.

    Raises
    ------
    ValueError
        For other numbers of channels.
    """
    if x.shape[1] == channels:
        return x
    if {x.shape[1], channels} != {1, 3}:
        raise ValueError(f"x: images of {x.shape[1]} channels cannot be turned into such of {channels}")
    if channels == 3:
        return np.repeat(x, 3, axis=1)
    weights = np.array([19595, 38470, 7471], np.uint32)  # 0.299, 0.587 and 0.114 of 2**16
    return ((np.einsum("nchw,c->nhw", x, weights, dtype=np.uint32) + 2**15) >> 16).astype(np.uint8)[:, None]
