"""Studies of what makes nets do better on images that they were not trained on."""

import itertools

import numpy as np

from fastcnn import data, nn
from fastcnn.study.frame import Finding, study
from fastcnn.study.pictures import BLUE, ORANGE
from fastcnn.study.training import error, fit, images
from fastcnn.train import Ensemble


@study(
    "ensemble",
    "The error of an ensemble falls with its size.",
    "Hansen, Salamon, Neural Network Ensembles (1990)",
)
def ensemble(seed, size):
    """The errors of every subset of nets that differ in their seeds."""
    members, shown = size(8, 3), images(seed, size(2000, 200), size(2000, 200))
    nets = [nn.small_cnn((1, 28, 28), 10, width=8, seed=seed + i) for i in range(members)]
    for i, net in enumerate(nets):
        fit(net, shown.x, shown.y, size(6), 0.01, seed=seed + i)
    each = list(Ensemble(nets).each(shown.x_test))
    counts, means, lowest, highest = range(1, members + 1), [], [], []
    for count in counts:
        errors = [
            float(np.mean(sum(subset).argmax(axis=1) != shown.y_test)) for subset in itertools.combinations(each, count)
        ]
        means.append(float(np.mean(errors))), lowest.append(min(errors)), highest.append(max(errors))
    numbers = {"errors": means, "lowest": lowest, "highest": highest, "members": members}
    numbers |= {"one": means[0], "best": lowest[0], "all": means[-1]}

    def draw(figure):
        axis = figure.subplots()
        axis.fill_between(counts, lowest, highest, color=BLUE, alpha=0.2, label="from the best to the worst")
        axis.plot(counts, means, "o-", color=BLUE, label="mean of all ensembles of this size")
        axis.set(xlabel="nets in the ensemble", ylabel="errors on test images", xticks=counts)
        axis.set_title("Class probabilities of nets that differ in their seeds, averaged")
        axis.legend()

    return Finding(
        means[-1] < means[0] and all(b <= a + 0.002 for a, b in itertools.pairwise(means)),
        "one net makes {one:.2%} errors on test images in the mean, the best of them {best:.2%}; all {members} "
        "together make {all:.2%}.",
        numbers,
        draw,
    )


@study(
    "gap",
    "Dropout and augmentation close the gap between the accuracy on training images and on others.",
    "Srivastava et al., Dropout: A Simple Way to Prevent Neural Networks from Overfitting (2014)",
)
def gap(seed, size):
    """A small CNN trained on few images in four ways."""
    shown = images(seed, size(500, 100), size(2000, 100))
    changes = data.Compose([data.RandomFlip(), data.PadAndCrop(2)], shown.preprocess)
    ways = {"neither": (0.0, None), "dropout": (0.5, None), "augmentation": (0.0, changes), "both": (0.5, changes)}
    train, test = [], []
    for drop, augment in ways.values():
        net = nn.small_cnn((1, 28, 28), 10, width=8, drop=drop, seed=seed)
        x = shown.x if augment is None else shown.raw
        fit(net, x, shown.y, size(30, 1), 0.01, seed=seed, augment=augment)
        train.append(1 - error(net, shown.x, shown.y)), test.append(1 - error(net, shown.x_test, shown.y_test))
    gaps = [a - b for a, b in zip(train, test)]
    numbers = {"ways": list(ways), "train": train, "test": test, "gaps": gaps, "images": len(shown.x)}

    def draw(figure):
        axis, places = figure.subplots(), np.arange(len(ways))
        for shift, accuracies, of, colour in ((-0.2, train, "training", BLUE), (0.2, test, "test", ORANGE)):
            bars = axis.bar(places + shift, accuracies, 0.38, color=colour, label=f"{of} images")
            axis.bar_label(bars, fmt=lambda value: f"{value:.1%}", padding=2)
        axis.set_xticks(places, [f"{way}\ngap {100 * found:.1f} points" for way, found in zip(ways, gaps)])
        axis.set(ylabel="accuracy", ylim=(0.5, 1.12), title=f"A small CNN trained on {len(shown.x)} images")
        axis.grid(False, axis="x")
        axis.legend(ncols=2, loc="upper right")

    return Finding(
        max(gaps[1:]) < gaps[0] and gaps[3] < gaps[0] / 2,
        "the accuracy on {images} training images is {gaps[0]:.1%} above that on test images with neither, "
        "{gaps[1]:.1%} with dropout, {gaps[2]:.1%} with augmentation and {gaps[3]:.1%} with both; on test images it "
        "is {test[0]:.1%}, {test[1]:.1%}, {test[2]:.1%} and {test[3]:.1%}.",
        numbers,
        draw,
    )
