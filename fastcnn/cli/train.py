"""`fastcnn train`."""

from fastcnn.cli.options import add_backend, add_command, positive

SCHEDULES = ("constant", "linear", "cosine", "step", "inverse-sqrt", "cyclical", "one-cycle")


def add(commands):
    """Add the command."""
    text = "Train a small CNN on images; without --data on the Fashion-MNIST subset that comes with the package."
    command = add_command(commands, "train", _run, text)
    data = command.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder with MNIST or Fashion-MNIST files (IDX, plain or .gz), CIFAR-10 or CIFAR-100 binary files, or "
        "images in one folder per class; or an .npz file",
    )
    data.add_argument(
        "--image-size", type=positive, nargs=2, metavar=("H", "W"), help="resize images of an image folder"
    )
    data.add_argument(
        "--validation", type=float, default=0.0, metavar="FRACTION",
        help="part of the training images to hold out and follow instead of the test images",
    )  # fmt: skip
    learning = command.add_argument_group("learning")
    learning.add_argument("--epochs", type=positive, default=8, metavar="N", help="passes over the training images")
    learning.add_argument("--lr", type=float, default=0.01, help="initial learning rate")
    learning.add_argument(
        "--find-lr", action="store_true", help="instead of training, try rising learning rates and propose one"
    )
    learning.add_argument("--schedule", choices=SCHEDULES, default="cosine", help="of the learning rate")
    learning.add_argument(
        "--warm-up", type=float, default=0.0, metavar="EPOCHS", help="let the rate rise from 0 before the schedule"
    )
    learning.add_argument("--momentum", type=float, default=0.9, help="of stochastic gradient descent")
    learning.add_argument("--weight-decay", type=float, default=1e-3, metavar="L2", help="pull of the weights to zero")
    learning.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images per step")
    learning.add_argument("--drop", type=float, default=0.3, metavar="P", help="probability of dropping a feature")
    learning.add_argument("--width", type=positive, default=24, metavar="N", help="filters of the first convolution")
    learning.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights, bit for bit")
    learning.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of all arithmetic")
    running = command.add_argument_group("running")
    add_backend(running)
    running.add_argument("--out", metavar="FOLDER", help="run folder (default: runs/ and date, time and data set)")
    running.add_argument("--no-progress", action="store_true", help="print a line per epoch instead of a bar")


def _run(arguments):
    from fastcnn.train.command import train

    return train(arguments)
