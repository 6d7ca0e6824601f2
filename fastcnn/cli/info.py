"""`fastcnn info`."""

from fastcnn.cli.options import add_command


def add(commands):
    """Add the command."""
    command = add_command(commands, "info", _run, "Print versions, CPU, threads, cache folder and GPU.")
    command.add_argument("--json", action="store_true", help="as JSON")


def _run(arguments):
    from fastcnn.info import command

    return command(arguments)
