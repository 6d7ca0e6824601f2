"""What the parsers of several commands share."""

import argparse
import math

from fastcnn.layers.backend import BACKENDS, DEFAULT

NETWORKS = (
    "small_cnn", "mlp", "lenet", "resnet20", "resnet32", "resnet56", "resnet18", "resnet34", "resnet50",
    "vgg11", "vgg13", "vgg16", "vgg19",
)  # fmt: skip
PREPROCESSING = (
    "Standardize", "SubtractMean", "SubtractMeanImage", "ScaleToRange", "StandardizeEach", "PCA", "Whiten", "ZCA",
)  # fmt: skip


def add_command(commands, name, run, text):
    """A new command of this name, which `run` runs."""
    command = commands.add_parser(name, help=text, description=text, formatter_class=HelpFormatter, allow_abbrev=False)
    command.set_defaults(run=run)
    return command


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows those defaults that say something."""

    def _get_help_string(self, action):
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def add_images(group, preprocess="Standardize"):
    """Options that say which images there are, and what is done to all of them, by default `preprocess`.

    None stands for what was done in the training of weights that there are.
    """
    group.add_argument(
        "--data",
        metavar="PATH",
        help="folder with MNIST or Fashion-MNIST files (IDX, plain or .gz), CIFAR-10 or CIFAR-100 binary files, or "
        "images in one folder per class; or an .npz file",
    )
    group.add_argument(
        "--image-size", type=positive, nargs=2, metavar=("H", "W"), help="resize images of an image folder"
    )
    group.add_argument(
        "--on-bad-image", choices=("error", "skip"), default="error",
        help="what to do about an image file that cannot be decoded",
    )  # fmt: skip
    group.add_argument(
        "--preprocess", choices=PREPROCESSING, default=preprocess, metavar="NAME",
        help=f"what is done to all images, fitted to the training images: {', '.join(PREPROCESSING)}"
        + ("" if preprocess else " (default: that of the weights; of nets for download ImageNet's mean and deviation)"),
    )  # fmt: skip


def add_net(group):
    """Options that say which net."""
    group.add_argument(
        "--net", choices=NETWORKS, default="small_cnn", metavar="NAME", help=f"one of {', '.join(NETWORKS)}"
    )
    group.add_argument(
        "--width", type=positive, metavar="N", help="filters of the first convolution (default: 24 of small_cnn)"
    )
    group.add_argument(
        "--drop", type=fraction, metavar="P", help="probability of dropping a feature (default: 0.3 of small_cnn)"
    )
    group.add_argument(
        "--net-option", action="append", metavar="KEY=VALUE",
        help="an argument of the net's function in fastcnn.nn, as hidden=[500,100]; may be repeated",
    )  # fmt: skip


def add_loss(group):
    """The option that says which loss."""
    group.add_argument("--loss", choices=("softmax", "hinge"), default="softmax", help="what is made small")


def add_arithmetic(group):
    """Options that all results are a function of: seed and dtype."""
    group.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights, bit for bit")
    group.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of all arithmetic")


def add_backend(group):
    """Options that say what computes."""
    group.add_argument("--backend", choices=BACKENDS, default=DEFAULT, help="which kernels compute")
    group.add_argument(
        "--threads", type=positive, metavar="N", help="number of threads (default: all cores); no result depends on it"
    )


def positive(text):
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def not_negative(text):
    """A whole number of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def amount(text):
    """A finite number above 0."""
    return _number(text, "above 0", lambda number: 0 < number < math.inf)


def factor(text):
    """A finite number of at least 0."""
    return _number(text, "of at least 0", lambda number: 0 <= number < math.inf)


def fraction(text):
    """A number of at least 0 and below 1."""
    return _number(text, "of at least 0 and below 1", lambda number: 0 <= number < 1)


def _number(text, expected, fits):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not fits(number):
        raise argparse.ArgumentTypeError(f"expected a number {expected}, got {text!r}")
    return number
