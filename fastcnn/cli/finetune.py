"""`fastcnn finetune`."""

import argparse
import os

from fastcnn.cli.options import NETWORKS, add_command, factor, fraction, not_negative, positive
from fastcnn.cli.train import add_data, add_learning, add_running

ADVICE = (
    "By how much data there is, and how alike it is to what the weights were trained on: little and alike: leave "
    "--freeze backbone, so that the head alone is learned; much and alike: --freeze none --lr 0.001, or first the head "
    "and then all, --unfreeze-after 2; little and different: other weights, or more data (--augment helps); much and "
    "different: --freeze none, or fastcnn train. Go on after an interruption with fastcnn train --resume FOLDER."
)


def add(commands):
    """Add the command."""
    text = "Train a net on other images, beginning with weights that there are: a run's, or a file's."
    command = add_command(commands, "finetune", _run, text)
    command.epilog = ADVICE
    command.add_argument(
        "weights", type=os.path.abspath, metavar="WEIGHTS",
        help="folder of a run, one of the weight files in it, or a .safetensors file of a VGG or ResNet net with "
        "torchvision's names",
    )  # fmt: skip
    _add_net(command.add_argument_group("net"))
    add_data(command.add_argument_group("data"), preprocess=None)
    add_learning(command.add_argument_group("learning"))
    add_running(command.add_argument_group("running"))


def _add_net(group):
    group.add_argument(
        "--head", choices=("linear", "mlp", "keep"),
        help="what gives the scores: a new affine layer, new hidden layers as well, or that of the weights (default: "
        "keep if the classes are the same, else linear)",
    )  # fmt: skip
    group.add_argument(
        "--head-hidden", type=_sizes, metavar="N,...", help="neurons of the hidden layers of mlp (default: 256)"
    )
    group.add_argument(
        "--head-drop", type=fraction, metavar="P", help="probability of dropping a neuron of these (default: 0.5)"
    )
    group.add_argument(
        "--freeze", type=_frozen, default="backbone", metavar="WHAT",
        help="what keeps its weights: backbone, all but the head; none; or a number, so many stages of the net, from "
        "the first",
    )  # fmt: skip
    group.add_argument("--unfreeze-after", type=positive, metavar="EPOCHS", help="learn all from then on")
    group.add_argument(
        "--gradually", action="store_true", help="then learn one stage more, from the last, every so many epochs"
    )
    group.add_argument(
        "--lr-factor", type=factor, default=0.5, metavar="F",
        help="each stage learns at F times the rate of the next, the head at --lr",
    )  # fmt: skip
    group.add_argument(
        "--net", choices=NETWORKS, metavar="NAME", help="the network, where the file does not tell which it is of"
    )
    group.add_argument(
        "--net-option", action="append", metavar="KEY=VALUE", help="an argument of its function; may be repeated"
    )


def _sizes(text):
    return [positive(part) for part in text.split(",")]


def _frozen(text):
    if text in ("backbone", "none"):
        return text
    try:
        return not_negative(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected backbone, none or a number of stages, got {text!r}") from None


def _run(arguments):
    from fastcnn.train.command import train

    return train(arguments)
