"""Studies of batch normalisation."""

import numpy as np

from fastcnn import nn
from fastcnn.study.frame import Finding, study
from fastcnn.study.pictures import COLOURS, MARKERS
from fastcnn.study.training import error, fit, generator, images


@study(
    "batchnorm-rates",
    "Batch normalisation allows larger learning rates.",
    "Ioffe, Szegedy, Batch Normalization (2015), section 4.2; Bjorck et al., Understanding Batch Normalization (2018)",
)
def batchnorm_rates(seed, size):
    """Nets of five hidden layers, with batch norm and without, trained at each rate."""
    rates, good = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), 0.3
    shown = images(seed, size(2000, 200))
    errors = {}
    for name, batch_norm in (("without", False), ("with batch norm", True)):
        errors[name] = []
        for rate in rates:
            net = nn.mlp((1, 28, 28), 10, hidden=(64,) * 5, batch_norm=batch_norm, seed=seed)
            with np.errstate(all="ignore"):  # some diverge
                fit(net, shown.x, shown.y, size(5, 2), rate, seed=seed)
                errors[name].append(error(net, shown.x, shown.y))
    largest = {
        name: max((rate for rate, wrong in zip(rates, found) if wrong < good), default=0.0)
        for name, found in errors.items()
    }
    numbers = {"rates": list(rates), "errors": errors, "largest": list(largest.values()), "good": good}
    numbers |= {"best": [min(found) for found in errors.values()]}

    def draw(figure):
        axis = figure.subplots()
        for (name, found), marker, colour in zip(errors.items(), MARKERS, COLOURS):
            axis.semilogx(rates, found, marker=marker, color=colour, label=name)
        axis.axhline(good, color="0.4", linestyle=":", linewidth=1.2)
        axis.set(xlabel="learning rate", ylabel="errors on the training images", ylim=(0, 1.05))
        axis.set_title(f"Five hidden layers after the same training: below {good:.0%} (dotted) it has worked")
        axis.legend()

    return Finding(
        largest["with batch norm"] >= 3 * largest["without"] > 0,
        "the largest learning rate that still trains to fewer than {good:.0%} errors is {largest[0]:g} without batch "
        "norm and {largest[1]:g} with it; at their best rates {best[0]:.1%} and {best[1]:.1%} of the training images "
        "are wrong.",
        numbers,
        draw,
    )


@study(
    "undo",
    "Gamma and beta can undo a normalisation: set to a batch's deviation and mean, they give the batch back.",
    "Ioffe, Szegedy, Batch Normalization (2015), section 3",
)
def undo(seed, size):
    """A batch, the same normalised, and again with gamma and beta set to its deviation and mean."""
    x = generator(seed, 0).gamma(2.0, 3.0, (size(2000, 50), 4)) * [0.1, 1, 3, 10] - [0, 5, 0, 20]
    norm = nn.BatchNorm2d(4, dtype=np.float64).train()
    normalised = norm(x).copy()
    norm.weight.data[...], norm.bias.data[...] = np.sqrt(x.var(axis=0) + norm.eps), x.mean(axis=0)
    restored = norm(x)
    numbers = {
        "error": float(np.linalg.norm(restored - x) / np.linalg.norm(x)),
        "mean": float(abs(normalised.mean(axis=0)).max()),
        "std": [float(normalised.std(axis=0).min()), float(normalised.std(axis=0).max())],
    }

    def draw(figure):
        axes = figure.subplots(1, 3)
        titles = "input", "normalised", "gamma = deviation, beta = mean"
        for axis, values, title in zip(axes, (x, normalised, restored), titles):
            edges = np.linspace(*np.quantile(values, (0.002, 0.998)), 60)
            for i, colour in enumerate(COLOURS[:4]):
                axis.hist(values[:, i], edges, histtype="step", color=colour, linewidth=1.6, label=f"channel {i + 1}")
            axis.set(title=title, xlabel="value", yscale="log")
        axes[0].set_ylabel("how many")
        axes[0].legend()

    return Finding(
        numbers["error"] < 1e-12 and numbers["mean"] < 1e-9,
        "normalised, the four channels have means within {mean:.0e} of 0 and deviations from {std[0]:.4f} to "
        "{std[1]:.4f}; with gamma and beta set, the output is the input again, but for a relative error of "
        "{error:.0e}.",
        numbers,
        draw,
    )
