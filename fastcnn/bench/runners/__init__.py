"""How each library runs a piece of work: one file per library, one function per work.

Such a function takes the case's arrays, its parameters and the contestant's name, and returns a function without
arguments: one call is what is timed, and what it returns is compared between libraries.
"""

import importlib
import importlib.util

from fastcnn.train.extras import need

# {contestant: its file here}. A library may compete in several ways, ours with itself.
CONTESTANTS = {
    "fastcnn": "ours",
    "step alone": "ours",
    "reference": "reference",
    "torch": "torch",
    "torch channels_last": "torch",
    "torch.compile": "torch",
    "torch bf16": "torch",
    "onnxruntime": "onnxruntime",
    "jax": "jax",
    "cupy": "cupy",
}
OURS = ("fastcnn", "reference")
# {backend: who competes there}.
COMPETING = {
    "cpu": tuple(name for name in CONTESTANTS if name != "cupy"),
    "cuda": ("fastcnn", "torch", "torch channels_last", "cupy"),
}
# {what `--peers` names, also its file here: what must be installed for it}.
PEERS = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx"), "jax": ("jax",), "cupy": ("cupy",)}


class Works(dict):
    """{(work, contestant): function}, filled by a decorator."""

    def by(self, *contestants):
        """Register a function `_work`, under the name of the work, for these contestants."""

        def register(function):
            for contestant in contestants:
                self[function.__name__.removeprefix("_"), contestant] = function
            return function

        return register


def load(file):
    """The module of one library."""
    return importlib.import_module(f"fastcnn.bench.runners.{file}")


def works(file):
    """The `Works` of one library."""
    return load(file).WORKS


def peers(text, backend="cpu"):
    """The names of the peers that `text` asks for: "none", "auto" for those installed, or a list with commas.

    `backend` is where they are to compete: "cpu" or "cuda".

    Raises
    ------
    ValueError
        For a name that is no peer.
    ImportError
        If one that is named is not installed.
    """
    if text == "none":
        return []
    competing = {CONTESTANTS[name] for name in COMPETING[backend]}
    known = [name for name in PEERS if name in competing]
    if text == "auto":
        return [name for name in known if all(map(importlib.util.find_spec, PEERS[name]))]
    names = text.split(",")
    for name in names:
        if name not in known:
            raise ValueError(f"peers: expected auto, none, or some of {','.join(known)}; got {name!r}")
    for module in (module for name in names for module in PEERS[name] if not importlib.util.find_spec(module)):
        need(module, "peers")
    return names


def contestants(work, peers, backend="cpu"):
    """Who can do this work there: ours, and those of the peers (names of `PEERS`)."""
    files = {"ours", "reference", *peers}
    files = {name: CONTESTANTS[name] for name in COMPETING[backend] if CONTESTANTS[name] in files}
    return [name for name, file in files.items() if (work, name) in works(file)]
