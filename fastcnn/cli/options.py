"""What the parsers of several commands share."""

import argparse

from fastcnn.layers.backend import BACKENDS, DEFAULT


def add_command(commands, name, run, text):
    """A new command of this name, which `run` runs."""
    command = commands.add_parser(name, help=text, description=text, formatter_class=HelpFormatter)
    command.set_defaults(run=run)
    return command


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows those defaults that say something."""

    def _get_help_string(self, action):
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


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
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number
