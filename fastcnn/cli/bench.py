"""`fastcnn bench`."""

from fastcnn.cli.options import add_command, amount, positive


def add(commands):
    """Add the command."""
    text = "Measure every kernel beside its NumPy reference, other libraries, and the limits of this machine."
    command = add_command(commands, "bench", _run, text)
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
        "--threads", type=positive, metavar="N", help="number of threads of every library (default: all cores)"
    )
    how.add_argument("--rounds", type=positive, metavar="N", help="how often the libraries take turns in each case")
    how.add_argument("--seconds", type=amount, metavar="S", help="for each library and case, all rounds together")
    how.add_argument(
        "--passive", action="store_true", help="no thread may wait by spinning: for a machine that is not idle"
    )
    how.add_argument("--minutes", type=amount, metavar="M", help="begin no case when so many minutes are over")
    running = command.add_argument_group("running")
    running.add_argument(
        "--output",
        metavar="FOLDER",
        help="for results; those of other cases there are kept (default: runs/bench; of a GPU: "
        "benchmarks/results/cuda- and its name)",
    )
    running.add_argument("--resume", action="store_true", help="leave out cases that the folder has results of")
    running.add_argument("--no-progress", action="store_true", help="show no bar")


def _run(arguments):
    from fastcnn.bench.command import bench

    return bench(arguments)
