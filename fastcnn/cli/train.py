"""`fastcnn train`."""

from fastcnn.cli.options import (
    add_arithmetic,
    add_backend,
    add_command,
    add_images,
    add_loss,
    add_net,
    amount,
    fraction,
    not_negative,
    positive,
)

SCHEDULES = ("constant", "linear", "cosine", "step", "inverse-sqrt", "cyclical", "one-cycle")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
AUGMENT = (
    "random changes of the training images: a list of flip[=PROBABILITY], crop[=PAD], translate[=FRACTION], "
    "rotate[=DEGREES], scale[=LOWEST:HIGHEST], color[=BRIGHTNESS:CONTRAST:SATURATION:HUE], noise[=DEVIATION], "
    "cutout[=SIZE], mixup[=ALPHA], as in flip,crop=4,cutout=8,mixup=0.2"
)


def add(commands):
    """Add the command."""
    text = (
        "Train a net on images; without options a small CNN on the Fashion-MNIST subset that comes with the package. "
        "Whatever ends it, --resume goes on."
    )
    command = add_command(commands, "train", _run, text)
    add_data(command.add_argument_group("data"))
    add_net(command.add_argument_group("net"))
    add_learning(command.add_argument_group("learning"))
    running = command.add_argument_group("running")
    add_running(running)
    running.add_argument(
        "--resume", metavar="FOLDER",
        help="go on with the run there, bit for bit as if it had not ended; its options are kept, of which --epochs "
        "may be raised if the schedule is constant",
    )  # fmt: skip


def add_data(group, preprocess="Standardize"):
    """Options of what is trained with."""
    add_images(group, preprocess)
    group.add_argument(
        "--validation", type=fraction, default=0.0, metavar="FRACTION",
        help="part of the training images to hold out and follow instead of the test images",
    )  # fmt: skip
    group.add_argument(
        "--bootstrap", action="store_true",
        help="train with as many images, drawn by the seed from these with replacement: for the members of an ensemble",
    )  # fmt: skip
    group.add_argument("--augment", metavar="LIST", help=AUGMENT)
    group.add_argument(
        "--prefetch", type=not_negative, metavar="N",
        help="make so many batches ahead, on a thread of their own (default: 4 with --augment, else 0)",
    )  # fmt: skip


def add_learning(group):
    """Options of how."""
    group.add_argument("--epochs", type=positive, default=8, metavar="N", help="passes over the training images")
    group.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images per step")
    add_loss(group)
    group.add_argument(
        "--label-smoothing", type=float, default=0.0, metavar="S", help="share of a label that all classes get alike"
    )
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="nesterov", help="rule that updates the weights")
    group.add_argument(
        "--lr", type=float, help="initial learning rate (default: 0.01; 0.001 of rmsprop, adam and adamw)"
    )
    group.add_argument(
        "--find-lr", action="store_true", help="instead of training, try rising learning rates and propose one"
    )
    group.add_argument("--schedule", choices=SCHEDULES, default="cosine", help="of the learning rate")
    group.add_argument(
        "--warm-up", type=float, default=0.0, metavar="EPOCHS", help="let the rate rise from 0 before the schedule"
    )
    group.add_argument("--momentum", type=float, help="of momentum and nesterov (default: 0.9)")
    group.add_argument("--weight-decay", type=float, default=1e-3, metavar="L2", help="pull of the weights to zero")
    group.add_argument("--l1", type=float, default=0.0, help="the same for every weight, whatever its size")
    group.add_argument(
        "--no-decay-vectors", action="store_true", help="pull neither biases nor the parameters of normalisations"
    )
    group.add_argument("--clip-norm", type=float, metavar="NORM", help="scale gradients of a larger norm down to it")
    group.add_argument(
        "--clip-value", type=float, metavar="VALUE", help="bring each element of the gradients into [-VALUE, VALUE]"
    )
    group.add_argument(
        "--patience", type=positive, metavar="EPOCHS",
        help="stop when so many epochs brought nothing better on the --validation part; the best weights are kept",
    )  # fmt: skip
    group.add_argument("--best-by", choices=("loss", "accuracy"), help="what --patience goes by (default: loss)")
    add_arithmetic(group)


def add_running(group):
    """Options of where, and of what is kept and shown."""
    add_backend(group)
    group.add_argument("--out", metavar="FOLDER", help="run folder (default: runs/ and date, time and data set)")
    group.add_argument(
        "--config", metavar="FILE",
        help="options from a .toml, .yaml or .json file, by their names without --; those given here come first",
    )  # fmt: skip
    group.add_argument(
        "--checkpoint-minutes", type=amount, default=5.0, metavar="M", help="between checkpoints within an epoch"
    )
    group.add_argument(
        "--keep-checkpoints",
        type=not_negative,
        default=0,
        metavar="N",
        help="keep the weights of the last N epochs",
    )
    group.add_argument(
        "--no-monitor", action="store_true",
        help="leave out what report.html says of the layers: statistics taken once an epoch, in monitor.jsonl",
    )  # fmt: skip
    group.add_argument("--tensorboard", action="store_true", help="write event files for TensorBoard, too")
    group.add_argument("--no-progress", action="store_true", help="print a line per epoch instead of bars")


def _run(arguments):
    from fastcnn.cli import parse
    from fastcnn.train.command import resume, train

    if arguments.resume is None:
        return train(arguments)
    return resume(arguments.resume, arguments.given, vars(parse(["train"])))
