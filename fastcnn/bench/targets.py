"""What fastcnn promises, and whether the results keep it: one `Target` per promise, geometric means over its cases.

TARGETS has those of a CPU and of a GPU, by backend.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

EAGER = ("torch", "torch channels_last")
_WINOGRAD_NETS = {"vgg16", "resnet18", "resnet18_cifar", "resnet20"}
_OTHER_KINDS = {"1x1s1", "1x1s2", "3x3s2", "5x5s1", "7x7s2"}


class Target(NamedTuple):
    """A promise.

    Parameters
    ----------
    text : what it is about
    against : the contestants of which the fastest counts, case by case; or "ceiling", "seconds"
    least : smallest acceptable geometric mean of the ratios (largest, of seconds)
    aim : what is hoped for
    fits : function (row) -> bool, which cases it is about
    worst : smallest acceptable ratio of a single case
    """

    text: str
    against: tuple
    least: float
    aim: float | None
    fits: Callable
    worst: float | None = None


class Verdict(NamedTuple):
    """How a target came out: mean, the smallest and whose it is, on how many cases; None where nothing was measured."""

    mean: float | None
    smallest: float | None = None
    case: str = ""
    cases: int = 0
    met: bool = False


def _conv(work, kinds, networks=None):
    def fits(row):
        tags = set(row["tags"])
        chosen = not networks or tags & networks
        return row["work"] == work and tags & kinds and "training batch" in tags and bool(chosen)

    return fits


def _work(work, *tags):
    return lambda row: row["work"] == work and set(tags) <= set(row["tags"])


def _family(name):
    return lambda row: row["family"] == name


def _works(*works):
    return lambda row: row["work"] in works


_COMPILED = (*EAGER, "torch.compile")
_ANY = (*_COMPILED, "onnxruntime")
_WINOGRAD = "3x3 stride 1 convolution"
_OTHERS = "1x1, 3x3 stride 2, 5x5, 7x7 convolution"
_CPU = (
    Target(f"{_WINOGRAD}, forward", EAGER, 1.6, 2.5, _conv("conv_forward", {"3x3s1"}, _WINOGRAD_NETS), 1.0),
    Target(f"{_WINOGRAD}, three passes", EAGER, 1.6, 2.5, _conv("conv_training", {"3x3s1"}, _WINOGRAD_NETS), 1.0),
    Target(f"{_OTHERS}, forward", EAGER, 1.0, 1.3, _conv("conv_forward", _OTHER_KINDS), 0.8),
    Target(f"{_OTHERS}, input gradient", EAGER, 1.0, 1.3, _conv("conv_backward_input", _OTHER_KINDS), 0.8),
    Target(f"{_OTHERS}, filter gradient", EAGER, 1.0, 1.3, _conv("conv_backward_filter", _OTHER_KINDS), 0.8),
    Target("batchnorm + ReLU, forward and backward", ("torch",), 3, None, _works("batchnorm_relu_training")),
    Target("max-pool, forward and backward", ("torch",), 3, None, _works("max_pool_training")),
    Target("dropout, forward and backward", ("torch",), 10, None, _works("dropout_training")),
    Target("cross-entropy with gradient", ("torch",), 2, None, _works("cross_entropy")),
    Target("optimizer steps, 10 M parameters", ("torch",), 1.0, None, _works("optimizer_step"), 1.0),
    Target("optimizer steps, share of copy bandwidth", "ceiling", 0.9, None, _works("optimizer_step")),
    Target("micro-kernel, share of the FMA rate", "ceiling", 0.9, None, _works("multiply_panels")),
    *(
        Target(f"training step, {net}", _COMPILED, 1.3, 2.0, _work("training_step", net))
        for net in ("resnet20", "vgg11", "resnet18")
    ),
    *(
        Target(f"training step, {net}, against bfloat16", ("torch bf16",), 1.0, None, _work("training_step", net))
        for net in ("resnet20", "vgg11", "resnet18")
    ),
    *(
        Target(f"inference of 128 images, {net}", _ANY, least, 2.0, _work("inference", net, "n128"))
        for net, least in (("resnet20", 0.9), ("vgg11", 1.3), ("resnet18", 1.3))
    ),
    Target(
        "batches of the input pipeline, to the steps of ResNet-20", ("step alone",), 5, None, _works("input_pipeline")
    ),
    Target("ResNet-20 on augmented batches, to ready ones", ("step alone",), 0.95, None, _works("training_with_input")),
    Target("peak memory of a training step", ("torch",), 1.0, 2.0, _works("step_memory"), 1.0),
    Target("cold `fastcnn train`", "seconds", 60, None, _works("cold_train")),
    Target("first convolution of a process, kernels on disk", "seconds", 0.6, 0.3, _works("first_conv")),
    Target("convolution against the NumPy reference", ("reference",), 20, None, _family("conv"), 20),
    Target("pooling against the NumPy reference", ("reference",), 20, None, _family("pool"), 20),
)


def _gpu_conv(algo):
    """Convolutions of training batches by this algorithm; None: by that which is chosen."""
    return lambda row: (row["family"], row["params"].get("algo")) == ("conv", algo) and "training batch" in row["tags"]


_PASSES = _works("activation_training", "add_relu_training")
_NORMS = _works("batchnorm_relu_training", "groupnorm_training")
_CUDA = (
    Target("elementwise kernels, share of copy bandwidth", "ceiling", 0.85, None, _PASSES),
    Target("norms, share of copy bandwidth", "ceiling", 0.85, None, _NORMS),
    Target("dropout, share of copy bandwidth", "ceiling", 0.85, None, _work("dropout_training")),
    Target("optimizer steps, share of copy bandwidth", "ceiling", 0.85, None, _works("optimizer_step")),
    Target("batchnorm + ReLU, forward and backward", EAGER, 1.5, None, _works("batchnorm_relu_training")),
    Target("convolution in float32", EAGER, 0.6, None, _gpu_conv(None)),
    Target("convolution in TF32", EAGER, 0.5, None, _gpu_conv("tf32")),
)
TARGETS = {"cpu": _CPU, "cuda": _CUDA}


def judge(target, rows, share):
    """The `Verdict` on a target by these rows; `share(row)` gives a case's share of its ceiling."""
    found = {row["name"]: _value(target, row, share) for row in rows if target.fits(row)}
    found = {name: value for name, value in found.items() if value}
    if not found:
        return Verdict(None)
    mean = math.exp(sum(map(math.log, found.values())) / len(found))
    worst = max if target.against == "seconds" else min
    case = worst(found, key=found.get)
    if target.against == "seconds":
        met = found[case] <= target.least
    else:
        met = mean >= target.least and (target.worst is None or found[case] >= target.worst)
    return Verdict(mean, found[case], case, len(found), met)


def best_ratio(row, against):
    """(how many times as long as ours the fastest of these contestants took, its name), or (None, None)."""
    ratios = {
        name: result["ratio"]["median"]
        for name, result in row["results"].items()
        if name in against and "ratio" in result
    }
    return min(((ratio, name) for name, ratio in ratios.items()), default=(None, None))


def _value(target, row, share):
    ours = row["results"].get("fastcnn", {})
    if target.against == "seconds":
        return ours.get("seconds")
    if target.against == "ceiling":
        return share(row) if "seconds" in ours else None
    return best_ratio(row, target.against)[0]
