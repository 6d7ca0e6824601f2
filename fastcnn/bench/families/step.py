"""Whole training steps: forward, loss, backward, update by SGD with momentum."""

from fastcnn.bench import nets
from fastcnn.bench.cases import TRAINING_BATCH, Case, normal

BATCH = {"resnet20": TRAINING_BATCH["resnet20"], "vgg11": TRAINING_BATCH["vgg11_cifar"],
         "resnet18": TRAINING_BATCH["resnet18_cifar"]}  # fmt: skip


def cases(family="step", work="training_step", kind="time"):
    """The nets at CIFAR size."""
    return [
        Case(
            name=f"{work} {net} n{batch}",
            family=family,
            work=work,
            params=dict(net=net, batch=batch, lr=1e-4, momentum=0.9),
            flops=6 * batch * nets.cost(net),
            images=batch,
            tags=(net,),
            quick=net == "resnet20" and kind == "time",
            kind=kind,
        )
        for net, batch in BATCH.items()
    ]


def inputs(case, rng):
    """Images and labels."""
    n = case.params["batch"]
    return {"x": normal(rng, n, *nets.IMAGE), "y": rng.integers(0, nets.CLASSES, n)}
