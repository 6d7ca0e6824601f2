"""Softmax cross-entropy: the loss and the gradient of the scores."""

from fastcnn.bench.cases import Case, normal

_SCORES = {"cifar": (128, 10), "imagenet": (128, 1000), "many": (4096, 1000)}


def cases(larger=1):
    """Ten and a thousand classes; so many times the images."""
    scores = {name: (larger * n, classes) for name, (n, classes) in _SCORES.items()}
    return [
        Case(
            name=f"cross_entropy {name}",
            family="loss",
            work="cross_entropy",
            params=dict(n=n, classes=classes),
            nbytes=4 * 2 * n * classes,
            quick=name == "imagenet",
        )
        for name, (n, classes) in scores.items()
    ]


def inputs(case, rng):
    """Scores and labels."""
    n, classes = case.params["n"], case.params["classes"]
    return {"x": normal(rng, n, classes), "y": rng.integers(0, classes, n)}
