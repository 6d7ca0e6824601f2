"""Studies of the steps that an optimizer takes."""

import numpy as np

from fastcnn import layers, nn
from fastcnn.study.frame import Finding, study
from fastcnn.study.pictures import COLOURS, MARKERS, ORANGE, SKY
from fastcnn.study.training import fit, generator, images

STEEP, FAR = 50.0, 1e-4  # how much steeper the ravine is across than along; the share of the loss to get down to
STEPS = 150


@study(
    "momentum",
    "In a ravine plain gradient descent swings from wall to wall while it creeps along; momentum damps the swings and "
    "is there sooner.",
    "Polyak, Some methods of speeding up the convergence of iteration methods (1964)",
)
def momentum(seed, size):
    """Descent on a quadratic function of two variables, at the rates that are best for it."""
    curvature = np.array([1.0, STEEP])
    start = np.array([-10.0, 1.5]) * generator(seed, 0).uniform(0.9, 1.1, 2)
    root = np.sqrt(STEEP)
    plain = 2 / (1 + STEEP)  # Polyak: the rates that are best for all starts
    ways = {"plain, its best rate": (plain, 0.0), "momentum 0.5, the same rate": (plain, 0.5)}
    ways["momentum and rate at their best"] = (4 / (root + 1) ** 2, ((root - 1) / (root + 1)) ** 2)
    paths = [_descent(start, curvature, STEPS, *options) for options in ways.values()]
    losses = [path**2 @ curvature / 2 for path in paths]
    swings = [float(abs(np.diff(path[:, 1])).sum()) for path in paths]
    steps = [int(np.argmax(loss < FAR * loss[0])) or len(loss) for loss in losses]
    numbers = {"rates": [rate for rate, _ in ways.values()], "momenta": [rho for _, rho in ways.values()]}
    numbers |= {"swings": swings, "steps": steps, "steep": STEEP, "far": FAR, "width": abs(start[1])}

    def draw(figure):
        left, right = figure.subplots(1, 2)
        along, across = np.meshgrid(np.linspace(-11.5, 2, 200), np.linspace(-2, 2, 200))
        height = (along**2 + STEEP * across**2) / 2
        left.contour(along, across, height, np.geomspace(0.5, 150, 9), colors="0.75", linewidths=0.8)
        for i in (0, 2, 1):
            left.plot(*paths[i][:25].T, marker=MARKERS[i], color=COLOURS[i], linewidth=1.2, alpha=0.85)
        for i, name in enumerate(ways):
            label = f"{name}: {steps[i]} steps"
            right.semilogy(losses[i] / losses[i][0], color=COLOURS[i], label=label)
        right.axhline(FAR, color="0.4", linestyle=":", linewidth=1.2)
        left.set(xlabel="place along the ravine", ylabel="place across the ravine", ylim=(-2.4, 2.4))
        left.set_title("The first 24 steps, in the colours of the right; contours of the loss")
        right.set(xlabel="step", ylabel="loss, as a share of the first", ylim=(FAR**2, 80))
        right.set_title(f"Steps until the loss is {FAR:g} of the first (dotted)")
        right.legend(loc="upper right", fontsize=9)

    return Finding(
        swings[1] < swings[0] / 2 and max(steps[1:]) < steps[0],
        "in a ravine {steep:g} times steeper across than along, gradient descent at its best rate walks "
        "{swings[0]:.1f} from wall to wall, beginning {width:.2f} from the middle, and needs {steps[0]} steps to "
        "{far:g} of the loss; momentum 0.5 at the same rate walks {swings[1]:.1f} and needs {steps[1]}, the best "
        "momentum ({momenta[2]:.2f}) at its best rate {swings[2]:.1f} and {steps[2]}.",
        numbers,
        draw,
    )


def _descent(w, curvature, steps, rate, rho):
    """The places (steps + 1, 2) that descent on the loss sum(curvature w^2) / 2 comes to."""
    config, path = {"learning_rate": rate, "momentum": rho}, [w]
    for _ in range(steps):
        w, config = layers.sgd_momentum(w, curvature * w, config)
        path.append(w)
    return np.array(path)


@study(
    "batch-variance",
    "Larger batches reduce the variance of the updates: it is proportional to one over the batch size.",
    "Bottou, Curtis, Nocedal, Optimization Methods for Large-Scale Machine Learning (2018), section 4",
)
def batch_variance(seed, size):
    """Gradients of random mini-batches of each size against that of all images, for one net."""
    shown = images(seed, size(1024, 128))
    n = len(shown.x)
    sizes = [2**i for i in range(n.bit_length() - 1)]
    net = nn.mlp((1, 28, 28), 10, hidden=(32,), seed=seed)
    fit(net, shown.x, shown.y, 1, 0.01, seed=seed)
    flat = nn.FlatParameters(net)

    def gradient(chosen):
        net.train()
        net.backward(layers.softmax_loss(net(shown.x[chosen]), shown.y[chosen])[1], need_dx=False)
        return flat.grad.astype(np.float64)

    whole = gradient(np.arange(n))
    rng = generator(seed, 0)
    variance = {True: [], False: []}
    for replace, found in variance.items():
        for batch in sizes:
            draws = (gradient(rng.choice(n, batch, replace)) - whole for _ in range(size(100, 10)))
            found.append(float(np.mean([d @ d for d in draws]) / (whole @ whole)))
    slope, constant = np.polyfit(np.log(sizes), np.log(variance[True]), 1)
    numbers = {"sizes": sizes, "with_replacement": variance[True], "without_replacement": variance[False]}
    numbers |= {"slope": float(slope), "one": variance[True][0], "largest": sizes[-1], "many": variance[True][-1]}
    numbers |= {"without": variance[False][-1], "images": n}

    def draw(figure):
        axis = figure.subplots()
        for name, found, marker, colour in zip(("with", "without"), variance.values(), MARKERS, COLOURS):
            axis.loglog(sizes, found, marker, color=colour, label=f"images drawn {name} replacement")
        axis.loglog(sizes, np.exp(constant) * np.array(sizes) ** slope, color=SKY, label=f"slope {slope:.2f}", zorder=0)
        theory = variance[True][0] / np.array(sizes) * (n - np.array(sizes)) / (n - 1)
        axis.loglog(sizes, theory, "--", color=ORANGE, label="(n - b) / (n - 1) / b times that of one image", zorder=0)
        axis.set(xlabel="batch size b (images)", ylabel="variance / squared length of the mean gradient")
        axis.set_title(f"Gradients of mini-batches of {n} images")
        axis.set_xscale("log", base=2)
        axis.legend()

    return Finding(
        abs(slope + 1) < 0.1,
        "the variance of a mini-batch's gradient, by the squared length of the gradient of all {images} images, falls "
        "from {one:.3g} for one image to {many:.3g} for {largest} drawn with replacement, a slope of {slope:.2f} in a "
        "log-log plot; drawn without replacement, {largest} have {without:.3g}.",
        numbers,
        draw,
    )
