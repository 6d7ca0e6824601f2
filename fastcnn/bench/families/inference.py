"""Class scores of whole nets for one image and for a batch."""

from fastcnn.bench import nets
from fastcnn.bench.cases import Case
from fastcnn.bench.families import step

inputs = step.inputs


def cases():
    """The nets at CIFAR size, in test mode."""
    return [
        Case(
            name=f"inference {net} n{batch}",
            family="inference",
            work="inference",
            params=dict(net=net, batch=batch),
            flops=2 * batch * nets.cost(net),
            images=batch,
            tags=(net, f"n{batch}"),
            quick=net == "resnet20",
        )
        for net in nets.NETS
        for batch in (1, 128)
    ]
