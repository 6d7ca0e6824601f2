"""The command line: `fastcnn train`, `fastcnn validate`, `fastcnn bench`, `fastcnn info`."""

import argparse
import os
import sys

from fastcnn import __version__
from fastcnn.cuda.errors import CudaLaunchError, CudaUnavailableError
from fastcnn.layers.backend import BACKENDS, DEFAULT

_SCHEDULES = ("constant", "linear", "cosine", "step", "inverse-sqrt", "cyclical", "one-cycle")


def main(argv=None):
    """Run a command; returns the exit status.

    0 done, 1 a check failed or a GPU could not be used, 2 wrong use or input, 130 interrupted.
    """
    # OpenMP's threads wait for work by spinning, unless told otherwise before they start. That gains 5 % on an idle
    # machine, and costs a factor of up to ten on one where something else wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        print(f"fastcnn {arguments.command}: {error}", file=sys.stderr)
        return 2
    except (CudaUnavailableError, CudaLaunchError) as error:
        print(f"fastcnn {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fastcnn {arguments.command}: interrupted", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser(prog="fastcnn", description="NumPy convolutional nets with compiled kernels.")
    parser.add_argument("--version", action="version", version=f"fastcnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_train, _add_validate, _add_bench, _add_info):
        add(commands)
    return parser


def _command(commands, name, run, text):
    command = commands.add_parser(name, help=text, description=text, formatter_class=_HelpFormatter)
    command.set_defaults(run=run)
    return command


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows those defaults that say something."""

    def _get_help_string(self, action):
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def _add_backend(group):
    group.add_argument("--backend", choices=BACKENDS, default=DEFAULT, help="which kernels compute")
    group.add_argument(
        "--threads", type=_positive, metavar="N", help="number of threads (default: all cores); no result depends on it"
    )


def _add_train(commands):
    text = "Train a small CNN on images; without --data on the Fashion-MNIST subset that comes with the package."
    command = _command(commands, "train", _train, text)
    data = command.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="PATH",
        help="folder with MNIST or Fashion-MNIST files (IDX, plain or .gz), CIFAR-10 or CIFAR-100 binary files, or "
        "images in one folder per class; or an .npz file",
    )
    data.add_argument(
        "--image-size", type=_positive, nargs=2, metavar=("H", "W"), help="resize images of an image folder"
    )
    data.add_argument(
        "--validation", type=float, default=0.0, metavar="FRACTION",
        help="part of the training images to hold out and follow instead of the test images",
    )  # fmt: skip
    learning = command.add_argument_group("learning")
    learning.add_argument("--epochs", type=_positive, default=8, metavar="N", help="passes over the training images")
    learning.add_argument("--lr", type=float, default=0.01, help="initial learning rate")
    learning.add_argument(
        "--find-lr", action="store_true", help="instead of training, try rising learning rates and propose one"
    )
    learning.add_argument("--schedule", choices=_SCHEDULES, default="cosine", help="of the learning rate")
    learning.add_argument(
        "--warm-up", type=float, default=0.0, metavar="EPOCHS", help="let the rate rise from 0 before the schedule"
    )
    learning.add_argument("--momentum", type=float, default=0.9, help="of stochastic gradient descent")
    learning.add_argument("--weight-decay", type=float, default=1e-3, metavar="L2", help="pull of the weights to zero")
    learning.add_argument("--batch-size", type=_positive, default=64, metavar="N", help="images per step")
    learning.add_argument("--drop", type=float, default=0.3, metavar="P", help="probability of dropping a feature")
    learning.add_argument("--width", type=_positive, default=24, metavar="N", help="filters of the first convolution")
    learning.add_argument("--seed", type=int, default=0, help="the same seed gives the same weights, bit for bit")
    learning.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of all arithmetic")
    running = command.add_argument_group("running")
    _add_backend(running)
    running.add_argument("--out", metavar="FOLDER", help="run folder (default: runs/ and date, time and data set)")
    running.add_argument("--no-progress", action="store_true", help="print a line per epoch instead of a bar")


def _add_validate(commands):
    text = "Compare every kernel with its float64 reference, and every derivative with numerical differences."
    command = _command(commands, "validate", _validate, text)
    command.add_argument("--op", action="append", metavar="NAME", help="only this op; may be repeated (default: all)")
    command.add_argument("--dtype", choices=("float32", "float64"), help="only this dtype (default: both)")
    size = command.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="level", action="store_const", const="quick", help="a few small cases")
    size.add_argument(
        "--thorough", dest="level", action="store_const", const="thorough", help="also the layers of real networks"
    )
    command.add_argument("--json", metavar="FILE", help="also write the results to a file")
    command.add_argument("--seed", type=int, default=0, help="of the random inputs")
    _add_backend(command)


def _add_bench(commands):
    text = "Measure every kernel beside its NumPy reference, other libraries, and the limits of this machine."
    command = _command(commands, "bench", _bench, text)
    what = command.add_argument_group("what to measure")
    what.add_argument("--quick", action="store_true", help="a few cases, for a short time each")
    what.add_argument("--family", action="append", metavar="NAME", help="only this family; may be repeated")
    what.add_argument(
        "--op", action="append", metavar="NAME", help="only cases or ops of this name, * for any; may be repeated"
    )
    what.add_argument(
        "--peers", default="auto", metavar="LIST",
        help="other libraries, as torch,onnxruntime,jax (on a GPU torch,cupy); or none; auto takes those installed",
    )  # fmt: skip
    how = command.add_argument_group("how")
    how.add_argument("--backend", choices=("cpu", "cuda"), default="cpu", help="which kernels to measure")
    how.add_argument(
        "--threads", type=_positive, metavar="N", help="number of threads of every library (default: all cores)"
    )
    how.add_argument("--rounds", type=_positive, metavar="N", help="how often the libraries take turns in each case")
    how.add_argument("--seconds", type=_amount, metavar="S", help="for each library and case, all rounds together")
    how.add_argument(
        "--passive", action="store_true", help="no thread may wait by spinning: for a machine that is not idle"
    )
    how.add_argument("--minutes", type=_amount, metavar="M", help="begin no case when so many minutes are over")
    running = command.add_argument_group("running")
    running.add_argument(
        "--output",
        metavar="FOLDER",
        help="for results; those of other cases there are kept (default: runs/bench; of a GPU: "
        "benchmarks/results/cuda- and its name)",
    )
    running.add_argument("--resume", action="store_true", help="leave out cases that the folder has results of")
    running.add_argument("--no-progress", action="store_true", help="show no bar")


def _add_info(commands):
    command = _command(commands, "info", _info, "Print versions, CPU, threads, cache folder and GPU.")
    command.add_argument("--json", action="store_true", help="as JSON")


def _positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def _amount(text):
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


# Each command imports what it needs: `--help` stays quick.


def _train(arguments):
    from fastcnn.train.command import train

    return train(arguments)


def _validate(arguments):
    from fastcnn.validate import command

    return command(arguments)


def _bench(arguments):
    from fastcnn.bench.command import bench

    return bench(arguments)


def _info(arguments):
    from fastcnn.info import command

    return command(arguments)


if __name__ == "__main__":
    sys.exit(main())
