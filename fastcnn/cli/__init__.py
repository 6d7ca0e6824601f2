"""The command line: `fastcnn COMMAND`. Here arguments are parsed, a file for each command; the work is done elsewhere.

A command's file has `add(commands)`. It imports what the command needs when that runs: `--help` stays quick.
"""

import argparse
import os
import sys

from fastcnn import __version__
from fastcnn.cli import bench, check, configfile, evaluate, finetune, info, predict, report, study, train, validate
from fastcnn.cuda.errors import CudaLaunchError, CudaUnavailableError

COMMANDS = (
    check,
    train,
    finetune,
    predict,
    evaluate,
    report,
    validate,
    bench,
    study,
    info,
)


def main(argv=None):
    """Run a command; returns the exit status.

    0 done, 1 a check failed or a GPU could not be used, 2 wrong use or input, 130 interrupted.
    """
    # OpenMP's threads wait for work by spinning, unless told otherwise before they start. That gains 5 % on an idle
    # machine, and costs a factor of up to ten on one where something else wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    argv = sys.argv[1:] if argv is None else list(argv)
    command = argv[0] if argv else ""
    try:
        arguments = parse(argv)
        return arguments.run(arguments)
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError) as error:
        print(f"fastcnn {command}: {error}", file=sys.stderr)
        return 2
    except (CudaUnavailableError, CudaLaunchError) as error:
        print(f"fastcnn {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"fastcnn {command}: interrupted", file=sys.stderr)
        return 130


def parse(argv):
    """The options of a command line, with those of the file that --config names.

    `given` among them is a dict of those that are no defaults. Raises ValueError for a file with wrong options.
    """
    argv = configfile.expanded(argv, parser)
    arguments, bare = parser().parse_args(argv), parser()
    for action in configfile.options_of(bare, argv).values():
        action.default = argparse.SUPPRESS
    given = vars(bare.parse_args(argv))
    arguments.given = {name: value for name, value in given.items() if name not in ("run", "command")}
    return arguments


def parser():
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="fastcnn", description="NumPy convolutional nets with compiled kernels.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"fastcnn {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
