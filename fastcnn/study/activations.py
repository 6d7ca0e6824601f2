"""Studies of activations."""

import functools
import math

import numpy as np

from fastcnn import layers, nn
from fastcnn.nn.initialisers import kaiming, xavier
from fastcnn.study.frame import Finding, study
from fastcnn.study.pictures import COLOURS, MARKERS
from fastcnn.study.training import affine_layers, dense, error, fit, generator, images, outputs, smooth

ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


@study(
    "dying-relu",
    "At high learning rates ReLU units die: they are off for every image, get no gradient, and never come back.",
    "Maas, Hannun, Ng, Rectifier Nonlinearities Improve Neural Network Acoustic Models (2013)",
)
def dying_relu(seed, size):
    """Plain gradient descent at each rate, then as many epochs more at a small one; units that are off are counted."""
    rates, gentle = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), 0.01
    shown = images(seed, size(2000, 200))
    x = shown.x.reshape(len(shown.x), -1)
    off, later, errors = [], [], []
    for rate in rates:
        net = dense([784, 200, 10], nn.ReLU, kaiming, generator(seed, 0))
        train = functools.partial(fit, net, x, shown.y, size(6, 2), momentum=0.0, batch_size=256, seed=seed)
        train(rate)
        off.append(_units_off(net, x))
        errors.append(error(net, x, shown.y))
        train(gentle)
        later.append(_units_off(net, x))
    numbers = {"rates": list(rates), "off": off, "later": later, "errors": errors, "gentle": gentle}
    numbers |= {"low": rates[0], "high": rates[-1], "off_low": off[0], "off_high": off[-1], "off_later": later[-1]}
    numbers |= {"wrong_low": min(errors), "wrong_high": errors[-1]}

    def draw(figure):
        left, right = figure.subplots(1, 2)
        left.semilogx(rates, off, marker=MARKERS[0], color=COLOURS[0], label="after training")
        again = f"after as many epochs more, at {gentle:g}"
        left.semilogx(rates, later, marker=MARKERS[1], color=COLOURS[1], linestyle="--", label=again)
        right.semilogx(rates, errors, marker=MARKERS[0], color=COLOURS[0])
        left.set(xlabel="learning rate", ylabel="share of units off for every image", ylim=(-0.05, 1.05))
        right.set(xlabel="learning rate", ylabel="errors on the training images", ylim=(-0.05, 1.05))
        left.set_title("200 hidden ReLU units")
        right.set_title("What the net has learned")
        left.legend()

    return Finding(
        off[0] < 0.05 and off[-1] > 0.3 and later[-1] > 0.9 * off[-1],
        "after training, {off_low:.0%} of the ReLU units are off for every image at a learning rate of {low:g}, and "
        "{off_high:.0%} at {high:g}, where {off_later:.0%} are still off after as many epochs more at {gentle:g}; "
        "there the net makes {wrong_high:.0%} errors on its training images, {wrong_low:.0%} at the best rate.",
        numbers,
        draw,
    )


def _units_off(net, x):
    """The share of hidden units that no row of x turns on."""
    hidden = next(out for layer, out in outputs(net, x) if isinstance(layer, nn.ReLU))
    return float(np.mean(hidden.max(axis=0) == 0))


@study(
    "sigmoid-saturation",
    "Sigmoids saturate, and pass on at most a quarter of a gradient: it vanishes with depth.",
    "Glorot, Bengio, Understanding the difficulty of training deep feedforward neural networks (2010)",
)
def sigmoid_saturation(seed, size):
    """The gradient of each weight of nets with eight hidden layers, before any training."""
    depth, shown = 8, images(seed, size(500, 100))
    x = shown.x.reshape(len(shown.x), -1)
    gradients = {}
    for name, activation in ACTIVATIONS.items():
        initialise = kaiming if activation is nn.ReLU else xavier
        net = dense([784, *[100] * depth, 10], activation, initialise, generator(seed, 0))
        net.train()
        net.backward(layers.softmax_loss(net(x), shown.y)[1], need_dx=False)
        gradients[name] = [float(np.linalg.norm(layer.weight.grad)) for layer in affine_layers(net)]
    at = np.linspace(-8, 8, 161)
    slopes = {
        name: function(np.ones_like(at), cache)
        for name, cache, function in (
            ("sigmoid", layers.sigmoid_forward(at)[1], layers.sigmoid_backward),
            ("tanh", layers.tanh_forward(at)[1], layers.tanh_backward),
        )
    }
    ratios = {name: norms[0] / norms[-1] for name, norms in gradients.items()}
    numbers = {"gradients": gradients, "ratios": ratios, "depth": depth, "steepest": float(slopes["sigmoid"].max())}
    numbers |= {"far": float(slopes["sigmoid"][at == 5][0])}

    def draw(figure):
        left, right = figure.subplots(1, 2)
        for name, slope in slopes.items():
            left.plot(at, slope, color=COLOURS[list(ACTIVATIONS).index(name)], label=name)
        for name, marker, colour in zip(ACTIVATIONS, MARKERS, COLOURS):
            right.semilogy(range(1, depth + 2), gradients[name], marker=marker, color=colour, label=name)
        left.set(xlabel="input", ylabel="derivative", title="Far from 0 there is nothing to learn from")
        right.set(xlabel="layer", ylabel="norm of the weight's gradient", title="Before training")
        left.legend(), right.legend()

    return Finding(
        ratios["sigmoid"] < 1e-3 and ratios["ReLU"] > 0.05,
        "the derivative of the sigmoid is {steepest:.2f} at most and {far:.4f} at 5; over {depth} hidden layers the "
        "gradient of the first weight is {ratios[sigmoid]:.1e} of that of the last with sigmoids, {ratios[tanh]:.2g} "
        "with tanh and {ratios[ReLU]:.2g} with ReLU.",
        numbers,
        draw,
    )


@study(
    "relu-speed",
    "ReLU reaches a given training error several times sooner than tanh and sigmoid.",
    "Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks (2012), figure 1",
)
def relu_speed(seed, size):
    """The steps until the training loss is below a goal, for each activation at its best rate."""
    rates, goal, epochs = (0.003, 0.01, 0.03, 0.1), 0.3, size(20, 2)
    shown = images(seed, size(2000, 200))
    x = shown.x.reshape(len(shown.x), -1)
    curves, chosen, reached = {}, {}, {}
    for name, activation in ACTIVATIONS.items():
        initialise = kaiming if activation is nn.ReLU else xavier
        tried = {}
        for rate in rates:
            net = dense([784, 64, 64, 64, 10], activation, initialise, generator(seed, 0))
            tried[rate] = smooth(fit(net, x, shown.y, epochs, rate, seed=seed))
        first = {rate: _first_below(curve, goal) for rate, curve in tried.items()}
        chosen[name] = min(rates, key=lambda rate: (first[rate], np.nan_to_num(tried[rate][-1], nan=math.inf)))
        curves[name], reached[name] = tried[chosen[name]].tolist(), first[chosen[name]]
    steps = len(curves["ReLU"])
    numbers = {"curves": curves, "rates": chosen, "reached": reached, "goal": goal, "steps": steps}
    told = {name: f"after {n} steps" if n <= steps else f"not within {steps} steps" for name, n in reached.items()}
    numbers |= {"told": told, "times": {name: n / reached["ReLU"] for name, n in reached.items()}}

    def draw(figure):
        axis = figure.subplots()
        for name, curve, colour in zip(curves, curves.values(), COLOURS):
            label = f"{name}, rate {chosen[name]:g}: {told[name]}"
            axis.plot(range(1, len(curve) + 1), curve, color=colour, label=label)
        axis.axhline(goal, color="0.4", linestyle=":", linewidth=1.2)
        axis.set(xlabel="step", ylabel="training loss, mean of 20 steps", ylim=(0, None))
        axis.set_title(f"Until the training loss is below {goal:g} (dotted), each at the best of {len(rates)} rates")
        axis.legend()

    return Finding(
        min(numbers["times"]["tanh"], numbers["times"]["sigmoid"]) >= 2,
        "with three hidden layers a training loss of {goal:g} is reached with ReLU {told[ReLU]}, with tanh "
        "{told[tanh]}, with sigmoid {told[sigmoid]}, each at the best of several rates ({rates[ReLU]:g}, "
        "{rates[tanh]:g}, {rates[sigmoid]:g}) and with its own initial weights: {times[tanh]:.1f} and "
        "{times[sigmoid]:.1f} times the steps of ReLU.",
        numbers,
        draw,
    )


def _first_below(curve, goal):
    """The number of the first step at which a curve is below a goal; one more than there are, if it never is."""
    below = np.flatnonzero(curve < goal)
    return int(below[0]) + 1 if below.size else len(curve) + 1
