"""`fastcnn evaluate`."""

from fastcnn.cli.options import add_backend, add_command, positive
from fastcnn.cli.predict import add_tta


def add(commands):
    """Add the command."""
    text = (
        "Print cross-entropy (whatever the loss of the training was) and accuracy of runs on their test images, and of "
        "the average of what they predict."
    )
    command = add_command(commands, "evaluate", _run, text)
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="the folder of a run of `fastcnn train`, or a file of weights in it"
    )
    command.add_argument(
        "--data", metavar="PATH", help="other data with the same classes (default: the data of the first run)"
    )
    command.add_argument(
        "--checkpoints", type=positive, metavar="N",
        help="instead of the runs' weights those of the last N epochs that they kept (fastcnn train "
        "--keep-checkpoints), with the average of their predictions and that of the weights themselves",
    )  # fmt: skip
    add_tta(command)
    command.add_argument("--json", action="store_true", help="as JSON")
    add_backend(command)


def _run(arguments):
    from fastcnn.train.evaluation import evaluate_runs

    return evaluate_runs(arguments)
