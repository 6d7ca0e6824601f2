"""The NumPy references of fastcnn: what a plain NumPy net does. The works are those of `ours`, on the other floor."""

import numpy as np

from fastcnn.bench.runners.ours import WORKS  # noqa: F401  its own


def start(threads):
    """Switch to the references; their threads, those of NumPy's matrix products, are set by the environment."""
    import fastcnn

    fastcnn.set_backend("reference")
    return {"numpy": np.__version__}
