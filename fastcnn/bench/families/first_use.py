"""How long the first use takes: with no kernel compiled, and in a new process that finds them on disk."""

from fastcnn.bench.cases import Case


def cases():
    """Each call is a process of its own."""
    return [
        Case("first_conv", "first_use", "first_conv", {}, quick=True, kind="process"),
        Case("cold_train", "first_use", "cold_train", {}, kind="process"),
    ]
