"""Studies of initial weights."""

import functools

import numpy as np

from fastcnn import nn
from fastcnn.nn.initialisers import constant, kaiming, normal, xavier
from fastcnn.study.frame import Finding, study
from fastcnn.study.pictures import BLUE, COLOURS, GREEN, MARKERS, ORANGE
from fastcnn.study.training import affine_layers, dense, error, fit, generator, images, outputs, smooth


@study(
    "tanh-init",
    "In a tanh net of 10 layers of 500 units activations die with weights of 0.01 N(0,1), saturate with N(0,1), and "
    "live with Xavier's.",
    "Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks (2010)",
)
def tanh_init(seed, size):
    """The activations of each layer for normal input, before any training."""
    x = generator(seed, 0).standard_normal((size(1000), 500)).astype(np.float32)
    ways = {"0.01 N(0,1)": functools.partial(normal, std=0.01), "N(0,1)": functools.partial(normal, std=1)}
    ways |= {"Xavier": xavier}
    edges = np.linspace(-1, 1, 42)
    spreads, saturated, histograms = [], [], []
    for initialise in ways.values():
        net = dense([500] * 12, nn.Tanh, initialise, generator(seed, 1))
        activations = [out for layer, out in outputs(net, x) if isinstance(layer, nn.Tanh)]
        spreads.append([float(out.std()) for out in activations])
        saturated.append([float(np.mean(abs(out) > 0.95)) for out in activations])
        histograms.append([np.histogram(out, edges)[0] for out in activations])
    numbers = {"spread": spreads, "saturated": saturated}
    numbers |= {"small": spreads[0][-1], "large": saturated[1][-1], "xavier": spreads[2][-1]}
    numbers["xavier_saturated"] = saturated[2][-1]

    def draw(figure):
        found = (
            f"standard deviation of the last: {numbers['small']:.0e}",
            f"of the last layer {numbers['large']:.0%} are beyond ±0.95",
            f"standard deviation of the last: {numbers['xavier']:.2f}",
        )
        axes = figure.subplots(1, 3, sharey=True)
        for axis, way, layers_, below, colour in zip(axes, ways, histograms, found, (BLUE, ORANGE, GREEN)):
            for i, counts in enumerate(layers_, 1):
                widths = 0.45 * counts / counts.max()
                axis.stairs(i + widths, edges, baseline=i - widths, orientation="horizontal", fill=True, color=colour)
            axis.set(title=f"{way}\n{below}", xlabel="layer", xticks=range(1, 11))
        axes[0].set_ylabel("activation (width: how many units)")

    return Finding(
        numbers["small"] < 1e-3 and numbers["large"] > 0.5 and numbers["xavier"] > 0.1 > numbers["xavier_saturated"],
        "at layer 10 the standard deviation of activations is {small:.1e} with 0.01 N(0,1), with N(0,1) {large:.0%} of "
        "them are beyond ±0.95, with Xavier the deviation is {xavier:.2f} and {xavier_saturated:.1%} are beyond ±0.95.",
        numbers,
        draw,
    )


@study(
    "zero-init",
    "Weights that begin at zero, or all alike, never break symmetry: all neurons of a layer stay one and the same.",
    "Goodfellow, Bengio, Courville, Deep Learning (2016), section 8.4",
)
def zero_init(seed, size):
    """One hidden layer of 24 neurons, trained; how many of them differ, and what they have learned."""
    shown = images(seed, size(2000, 200))
    ways = {"zeros": lambda rng, shape: constant(shape), "all 0.01": lambda rng, shape: constant(shape, 0.01)}
    ways |= {"0.01 N(0,1)": normal}
    different, errors, filters = [], [], []
    for initialise in ways.values():
        net = nn.Sequential(nn.Flatten(), dense([784, 24, 10], nn.ReLU, initialise, generator(seed, 0)))
        fit(net, shown.x, shown.y, size(10, 2), 0.05, seed=seed)
        weight = affine_layers(net)[0].weight.data
        different.append(len(np.unique(weight, axis=1).T))
        errors.append(error(net, shown.x, shown.y))
        filters.append(weight.T.reshape(4, 6, 28, 28).transpose(0, 2, 1, 3).reshape(4 * 28, 6 * 28).copy())
    numbers = {"different": different, "errors": errors}
    numbers |= dict(zip(("zero_error", "alike_error", "random_error"), errors))
    numbers |= dict(zip(("zero_different", "alike_different", "random_different"), different))

    def draw(figure):
        axes = figure.subplots(1, 3)
        for axis, way, mosaic, count, wrong in zip(axes, ways, filters, different, errors):
            limit = max(abs(mosaic).max(), 1e-9)
            picture = axis.imshow(mosaic, cmap="RdBu", vmin=-limit, vmax=limit)
            figure.colorbar(picture, ax=axis, label="weight", orientation="horizontal", shrink=0.9)
            plural = "different neurons" if count > 1 else "neuron, 24 times"
            axis.set_title(f"weights begin as {way}\n{count} {plural}, {wrong:.0%} errors")
            axis.set(xticks=[], yticks=[])
            axis.grid(False)
        figure.supylabel("weights of 24 hidden neurons after training", fontsize=11)

    return Finding(
        different[0] == different[1] == 1 and different[2] == 24,
        "after training, the 24 hidden neurons are {zero_different} different one from zeros ({zero_error:.0%} errors "
        "on the training images), {alike_different} from weights that are all 0.01 ({alike_error:.0%} errors), and "
        "{random_different} from 0.01 N(0,1) ({random_error:.0%} errors).",
        numbers,
        draw,
    )


@study(
    "relu-init",
    "Behind ReLU, which sets half of the activations to zero, weights need the variance 2/n instead of 1/n.",
    "He et al., Delving Deep into Rectifiers (2015), section 2.2",
)
def relu_init(seed, size):
    """Thirty hidden layers of 100 units: the activations of each, and training."""
    shown = images(seed, size(4000, 256))
    widths = [784, *[100] * 30, 10]
    spreads, losses, errors = [], [], []
    for initialise in (xavier, kaiming):
        net = dense(widths, nn.ReLU, initialise, generator(seed, 0))
        flat = shown.x.reshape(len(shown.x), -1)
        spreads.append([float(out.std()) for layer, out in outputs(net, flat[:500]) if isinstance(layer, nn.ReLU)])
        losses.append(fit(net, flat, shown.y, size(6, 2), 0.01, seed=seed))
        errors.append(error(net, flat, shown.y))
    numbers = {"spreads": spreads, "losses": losses, "xavier_spread": spreads[0][-1] / spreads[0][0]}
    numbers |= {"he_spread": spreads[1][-1] / spreads[1][0], "xavier_error": errors[0], "he_error": errors[1]}

    def draw(figure):
        left, right = figure.subplots(1, 2)
        for name, spread, loss, marker, colour in zip(("1/n (Xavier)", "2/n (He)"), spreads, losses, MARKERS, COLOURS):
            left.semilogy(range(1, 31), spread, marker=marker, color=colour, label=f"variance {name}")
            right.plot(smooth(loss), color=colour, label=f"variance {name}")
        left.set(xlabel="layer", ylabel="standard deviation of activations", title="Before training")
        right.set(xlabel="step", ylabel="loss, mean of 20 steps", ylim=(0, None))
        right.set_title(f"Training: {errors[0]:.0%} errors with 1/n, {errors[1]:.0%} with 2/n")
        left.legend(), right.legend()

    return Finding(
        numbers["xavier_spread"] < 0.01 and 0.1 < numbers["he_spread"] < 10 and errors[1] < 0.5 < errors[0],
        "over 30 layers of ReLU the standard deviation of activations changes by a factor of {xavier_spread:.1e} with "
        "variance 1/n and {he_spread:.2g} with 2/n; after the same training the errors on the training images are "
        "{xavier_error:.0%} and {he_error:.0%}.",
        numbers,
        draw,
    )
