"""A labelled set of images in memory."""

from dataclasses import dataclass, replace

import numpy as np

from fastcnn.data.shuffle import draw, stratified_split


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Training and test images with their labels; the arrays are read-only views of those given.

    Parameters
    ----------
    x_train, x_test : (N, C, H, W) uint8
        At least one training image; the test part may be empty.
    y_train, y_test : (N,) integers in [0, len(class_names)), kept as intp
    class_names : sequence of str
    name : str

    Raises
    ------
    ValueError
        A shape, a dtype or a label is not as said above.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self):
        fields = {"class_names": tuple(map(str, self.class_names))}
        for part in ("train", "test"):
            x, y = np.asarray(getattr(self, f"x_{part}")), np.asarray(getattr(self, f"y_{part}"))
            if x.ndim != 4 or x.dtype != np.uint8 or 0 in x.shape[1:]:
                raise ValueError(f"{self.name}: x_{part} must be (N, C, H, W) uint8, not {x.shape} {x.dtype}")
            if part == "train" and not len(x):
                raise ValueError(f"{self.name}: there are no training images")
            check_labels(y, len(x), len(fields["class_names"]), f"{self.name}: y_{part}")
            fields[f"x_{part}"], fields[f"y_{part}"] = read_only(x), read_only(y.astype(np.intp, copy=False))
        shapes = {part: fields[f"x_{part}"].shape[1:] for part in ("train", "test")}
        if shapes["train"] != shapes["test"]:
            raise ValueError(f"{self.name}: training images are {shapes['train']}, test images {shapes['test']}")
        for field, value in fields.items():
            object.__setattr__(self, field, value)  # the way into a frozen dataclass

    def __repr__(self):
        shape = " x ".join(map(str, self.x_train.shape[1:]))
        sizes = f"{len(self.x_train)} training and {len(self.x_test)} test images"
        return f"<Dataset {self.name}: {sizes} of {shape}, {len(self.class_names)} classes>"

    def split_validation(self, fraction=0.1, seed=0):
        """Take a stratified validation part off the training data; the test data are not touched.

        Returns
        -------
        dataset : Dataset
            The same, with the remaining training images in their order.
        x_val, y_val : arrays
            About `fraction` of the images of each class (rounding: `stratified_split`).

        Raises
        ------
        ValueError
            The fraction is not in (0, 1), or no class has two training images.
        """
        rest, part = stratified_split(self.y_train, fraction, seed)
        smaller = replace(self, x_train=self.x_train[rest], y_train=self.y_train[rest])
        return smaller, self.x_train[part], self.y_train[part]

    def bootstrap(self, seed=0):
        """The same with as many training images, drawn from them with replacement: for the members of an ensemble.

        Some 63 % of the images are among them. Source: Breiman, "Bagging Predictors" (1996).
        """
        chosen = draw(len(self.x_train), seed)
        return replace(self, x_train=self.x_train[chosen], y_train=self.y_train[chosen])


def check_labels(y, images, classes, what):
    """Raise ValueError, beginning with `what`, unless y is (images,) integers in [0, classes)."""
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(f"{what}: labels must be (N,) integers, not {y.shape} {y.dtype}")
    if len(y) != images:
        raise ValueError(f"{what}: {len(y)} labels for {images} images")
    if len(y) and not (0 <= y.min() and y.max() < classes):
        raise ValueError(f"{what}: labels must lie in 0 .. {classes - 1}, found {y.min()} .. {y.max()}")


def read_only(array):
    """A view of an array that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
