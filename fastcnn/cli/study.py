"""`fastcnn study`."""

from fastcnn.cli.options import add_command, positive


def add(commands):
    """Add the command."""
    text = (
        "Put claims of the field to the test, each by a small experiment that leaves a picture, its numbers, and a "
        "sentence that says what was measured and whether the claim was seen. Without a name it lists them."
    )
    command = add_command(commands, "study", _run, text)
    command.add_argument("names", nargs="*", metavar="NAME", help="which; all runs all of them")
    command.add_argument("--seed", type=int, default=0, help="the same seed gives the same numbers")
    command.add_argument("--out", default="runs/studies", metavar="FOLDER", help="for pictures, numbers and index.html")
    command.add_argument(
        "--threads", type=positive, metavar="N", help="number of threads (default: all cores); no result depends on it"
    )


def _run(arguments):
    from fastcnn.study.command import command

    return command(arguments)
