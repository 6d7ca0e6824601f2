"""How each library runs a piece of work: one file per library, one function per work.

Such a function takes the case's arrays, its parameters and the contestant's name, and returns a function without
arguments: one call is what is timed, and what it returns is compared between libraries.
"""

import importlib

# {contestant: its file here}. A library may compete in several ways.
CONTESTANTS = {
    "fastcnn": "ours",
    "reference": "reference",
    "torch": "torch",
    "torch channels_last": "torch",
    "torch.compile": "torch",
    "torch bf16": "torch",
    "onnxruntime": "onnxruntime",
    "jax": "jax",
}
OURS = ("fastcnn", "reference")
PEERS = {"torch": "torch", "onnxruntime": "onnxruntime", "jax": "jax"}  # {what --peers names: its file}


class Works(dict):
    """{(work, contestant): function}, filled by a decorator."""

    def by(self, *contestants):
        """Register a function, under its own name, for these contestants."""

        def register(function):
            for contestant in contestants:
                self[function.__name__, contestant] = function
            return function

        return register


def works(file):
    """The `Works` of one file."""
    return importlib.import_module(f"fastcnn.bench.runners.{file}").WORKS


def contestants(work, peers):
    """Who can do this work: ours, and those of the peers (names of `PEERS`)."""
    files = {"ours", "reference", *(PEERS[peer] for peer in peers)}
    return [name for name, file in CONTESTANTS.items() if file in files and (work, name) in works(file)]
