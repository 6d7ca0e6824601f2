"""What is measured: one `Case` per benchmark, listed by the file of its family."""

import dataclasses
import fnmatch
import importlib

import numpy as np

from fastcnn import shapes

FAMILIES = ("microkernel", "conv", "pool", "norm", "activation", "dropout", "loss", "optim", "linear", "step",
            "inference", "memory", "first_use", "data", "ops")  # fmt: skip

# Images in a training batch for the layers of each network: what its training step has, or what fits at 224 pixels.
TRAINING_BATCH = {
    "lenet": 128, "resnet20": 128, "vgg11_cifar": 128, "resnet18_cifar": 64, "resnet18": 8, "resnet50": 4, "vgg16": 4,
}  # fmt: skip

# What a GPU is measured on, in this order: {family: options of its `cases`}. Batches are larger than a CPU's where
# those would be over before the GPU is busy. Batch norm's traffic is that of two passes: no cache holds the images.
ON_GPU = {
    "activation": {"larger": 8},
    "norm": {"larger": 8, "passes": 2},
    "dropout": {"larger": 8},
    "optim": {},
    "loss": {"larger": 8},
    "pool": {"larger": 8},
    "linear": {},
    "conv": {
        "larger": 4,
        "algos": ("auto", "tf32"),
        "works": ("conv_forward", "conv_backward_input", "conv_backward_filter"),
    },
    "step": {},
    "inference": {},
    "ops": {},
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One benchmark.

    Parameters
    ----------
    name : str, unique
    family : str, the file under `families/` that lists it and makes its inputs
    work : str, the function of each runner that prepares it
    params : dict of numbers, texts and tuples: what the work is told
    flops : nominal floating-point operations of a call, of the direct algorithm
    nbytes : least bytes that a call reads and writes
    images : number of images in a call, where a rate of images says something; or 0
    tags : texts by which the targets find their cases
    quick : whether `--quick` runs it
    kind : "time"; "memory" and "process" are measured in processes of their own
    comparable : whether all libraries must give the same results
    """

    name: str
    family: str
    work: str
    params: dict
    flops: float = 0
    nbytes: float = 0
    images: int = 0
    tags: tuple = ()
    quick: bool = False
    kind: str = "time"
    comparable: bool = True

    def inputs(self, seed=0):
        """The arrays of the case by name, float32; the same in every process."""
        return family(self.family).inputs(self, np.random.default_rng(seed))


def family(name):
    """The module of one family."""
    return importlib.import_module(f"fastcnn.bench.families.{name}")


def select(families=None, patterns=None, quick=False, backend="cpu"):
    """The cases of some families whose name or work fits one of the patterns (as of files: * and ?), in order.

    `backend`, "cpu" or "cuda", is where they are to be measured.

    Raises
    ------
    ValueError
        For a family that does not exist, or when nothing fits; the message says what there is.
    """
    known = ON_GPU if backend == "cuda" else dict.fromkeys(FAMILIES, {})
    for name in families or ():
        if name not in known:
            raise ValueError(f"family: expected one of {', '.join(known)}, got {name!r}")
    every = [case for name in families or known for case in family(name).cases(**known[name])]
    cases = [case for case in every if case.quick or not quick]
    if patterns:
        cases = [case for case in cases if any(_fits(case, pattern) for pattern in patterns)]
    if not cases:
        works = sorted({case.work for case in every})
        raise ValueError(f"op: no case fits {', '.join(patterns or ['--quick'])}; there are {', '.join(works)}")
    return cases


def _fits(case, pattern):
    return any(fnmatch.fnmatchcase(name, pattern) for name in (case.name, case.work, case.params.get("op", "")))


def layer_shapes():
    """The distinct convolution layers of all networks, each with the batch it is trained with.

    Yields (shape, batch, names): names are "network.layer" of all layers of this shape with this batch.
    """
    found = {}
    for network, batch in TRAINING_BATCH.items():
        for shape in shapes.load(network):
            found.setdefault((shape._replace(layer=""), batch), []).append(f"{network}.{shape.layer}")
    for (shape, batch), names in found.items():
        yield shape, batch, tuple(names)


def normal(rng, *shape):
    """Standard normal float32 numbers."""
    return rng.standard_normal(shape, dtype=np.float32)
