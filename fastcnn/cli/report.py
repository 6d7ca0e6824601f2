"""`fastcnn report`."""

from fastcnn.cli.options import add_backend, add_command


def add(commands):
    """Add the command."""
    text = (
        "Make report.html anew from the folder of a run, also of one that is under way or was stopped: curves and what "
        "they say, activations, gradients and updates of the layers, first-layer filters, mistakes."
    )
    command = add_command(commands, "report", _run, text)
    command.add_argument("folder", metavar="RUN", help="folder that fastcnn train left")
    command.add_argument(
        "--data", metavar="PATH", help="where the images are now (default: where the run had them, if they are there)"
    )
    add_backend(command)


def _run(arguments):
    from fastcnn.train.report import command

    return command(arguments)
