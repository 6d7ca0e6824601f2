"""Studies of deep nets."""

from fastcnn import nn
from fastcnn.study.frame import Finding, study
from fastcnn.study.pictures import COLOURS, MARKERS
from fastcnn.study.training import error, fit, generator, images

WIDTH = 8


@study(
    "residual",
    "Deeper plain nets get worse, on training data, too; residual nets do not.",
    "He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition (2015), section 4.2",
)
def residual(seed, size):
    """Nets of the same layers with shortcuts and without, at three depths, after the same training."""
    depths = (6, 18, 34)
    shown = images(seed, size(1500, 100), size(1500, 100), shrink=2)
    train, test = {}, {}
    for name, shortcuts in (("plain", False), ("residual", True)):
        train[name], test[name] = [], []
        for depth in depths:
            net = _net(depth, shortcuts, generator(seed, 0))
            fit(net, shown.x, shown.y, size(8, 1), 0.05, seed=seed)
            train[name].append(error(net, shown.x, shown.y))
            test[name].append(error(net, shown.x_test, shown.y_test))
    numbers = {"depths": list(depths), "train": train, "test": test}

    def draw(figure):
        axes = figure.subplots(1, 2, sharey=True)
        for axis, errors, of in zip(axes, (train, test), ("training", "test")):
            for (name, found), marker, colour in zip(errors.items(), MARKERS, COLOURS):
                axis.plot(depths, found, marker=marker, color=colour, label=f"{name} nets")
            axis.set(xlabel="layers with weights", ylabel=f"errors on {of} images", xticks=depths)
            axis.set_title(f"After the same training: {of} images")
        axes[0].set_ylim(
            0, 1.1 * max(wrong for errors in (train, test) for found in errors.values() for wrong in found)
        )
        axes[0].legend()

    worse = [errors["plain"][-1] > 1.5 * errors["plain"][0] for errors in (train, test)]
    kept = [errors["residual"][-1] < errors["residual"][0] + 0.03 for errors in (train, test)]
    return Finding(
        all(worse) and all(kept),
        "from {depths[0]} to {depths[2]} layers the errors of plain nets go from {train[plain][0]:.1%} to "
        "{train[plain][2]:.1%} on training images and from {test[plain][0]:.1%} to {test[plain][2]:.1%} on test "
        "images; those of residual nets from {train[residual][0]:.1%} to {train[residual][2]:.1%} and from "
        "{test[residual][0]:.1%} to {test[residual][2]:.1%}.",
        numbers,
        draw,
    )


def _net(depth, shortcuts, rng):
    """A convolution, pairs of them (residual blocks, if asked for), and an affine layer; batch norm and ReLU after "
    "each."""
    stack = [*_conv(1, rng), nn.MaxPool2d(2)]
    for _ in range((depth - 2) // 2):
        pair = _conv(WIDTH, rng), _conv(WIDTH, rng, relu=not shortcuts)
        main = nn.Sequential(*pair[0], *pair[1])
        stack.append(nn.Residual(main) if shortcuts else main)
    return nn.Sequential(*stack, nn.GlobalAvgPool2d(), nn.Linear(WIDTH, 10, rng=rng))


def _conv(channels, rng, relu=True):
    return nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(WIDTH, relu=relu)
