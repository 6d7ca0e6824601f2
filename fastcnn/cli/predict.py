"""`fastcnn predict`."""

from fastcnn.cli.options import add_backend, add_command, positive


def add(commands):
    """Add the command."""
    text = "Print the most likely classes of image files, by a run of `fastcnn train` or by several."
    command = add_command(commands, "predict", _run, text)
    command.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="the folder of a run, or a file of weights in it, or several whose predictions are averaged; and image "
        "files, or folders of such",
    )  # fmt: skip
    command.add_argument("--top", type=positive, default=3, metavar="K", help="how many classes to print")
    add_tta(command)
    command.add_argument("--json", action="store_true", help="as JSON, errors included")
    add_backend(command)


def add_tta(group):
    """The option that says how an image is seen at test time."""
    group.add_argument(
        "--tta", choices=("ten-crop", "multi-scale"),
        help="average over ten crops of each image, resized with its aspect ratio to 8/7 of the crops' size; or over "
        "those at three scales, 1, 8/7 and 10/7 (without: the whole image, resized as in training); nets that were not "
        "trained with crops get worse by it",
    )  # fmt: skip


def _run(arguments):
    from fastcnn.train.prediction import predict

    return predict(arguments)
