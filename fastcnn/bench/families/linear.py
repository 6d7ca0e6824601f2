"""Affine layers: forward, and the three products of a training step."""

from fastcnn.bench.cases import Case, normal

_LAYERS = {"classes": (128, 512, 10), "square": (1024, 1024, 1024), "wide": (128, 4096, 4096)}
_PRODUCTS = {"affine_forward": 1, "affine_training": 3}


def cases():
    """(images, features, outputs) from a classifier's last layer to VGG-16's hidden one."""
    return [
        Case(
            name=f"{work} {name}",
            family="linear",
            work=work,
            params=dict(n=n, d=d, m=m),
            flops=2 * products * n * d * m,
            nbytes=4 * products * (n * d + d * m + n * m),
            quick=name == "square",
        )
        for work, products in _PRODUCTS.items()
        for name, (n, d, m) in _LAYERS.items()
    ]


def inputs(case, rng):
    """x, w, b and the gradient of the output."""
    n, d, m = (case.params[name] for name in "ndm")
    return {"x": normal(rng, n, d), "w": normal(rng, d, m) / d**0.5, "b": normal(rng, m), "dout": normal(rng, n, m)}
