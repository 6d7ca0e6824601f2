"""`fastcnn validate`."""

from fastcnn.cli.options import add_backend, add_command


def add(commands):
    """Add the command."""
    text = "Compare every kernel with its float64 reference, and every derivative with numerical differences."
    command = add_command(commands, "validate", _run, text)
    command.add_argument("--op", action="append", metavar="NAME", help="only this op; may be repeated (default: all)")
    command.add_argument("--dtype", choices=("float32", "float64"), help="only this dtype (default: both)")
    size = command.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="level", action="store_const", const="quick", help="a few small cases")
    size.add_argument(
        "--thorough", dest="level", action="store_const", const="thorough", help="also the layers of real networks"
    )
    command.add_argument("--json", metavar="FILE", help="also write the results to a file")
    command.add_argument("--seed", type=int, default=0, help="of the random inputs")
    add_backend(command)


def _run(arguments):
    from fastcnn.validate import command

    return command(arguments)
