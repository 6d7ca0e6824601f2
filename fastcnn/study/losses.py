"""Studies of losses."""

import numpy as np

from fastcnn import data, layers, nn, optim
from fastcnn.study.frame import Finding, study
from fastcnn.study.pictures import COLOURS
from fastcnn.study.training import error, images, steps

LOSSES = {"hinge loss": layers.svm_loss, "cross-entropy": layers.softmax_loss}
CLASSES = 10


@study(
    "hinge-margin",
    "The hinge loss stops learning once its margin holds; cross-entropy never does.",
    "Crammer, Singer, On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines (2001); Soudry et "
    "al., The Implicit Bias of Gradient Descent on Separable Data (2018)",
)
def hinge_margin(seed, size):
    """A linear model trained until it makes no errors, and on, with each loss."""
    shown = images(seed, size(400, 100))
    epochs = size(600, 40)
    margins = np.linspace(-3, 5, 161)
    pulls = [_pull(loss, margins) for loss in LOSSES.values()]
    learning, norms, errors = [], [], []
    for loss in LOSSES.values():
        net = nn.mlp((1, 28, 28), CLASSES, hidden=(), seed=seed)
        flat = nn.FlatParameters(net)
        optimizer = optim.SGD(flat, 0.002, 0.9)
        batches = data.Batches(shown.x, shown.y, 50, seed=seed)
        learning.append([]), norms.append([])
        for step, _ in enumerate(steps(net, optimizer, batches, epochs, loss), 1):
            if step % len(batches) == 0:
                dscores = loss(net(shown.x), shown.y)[1]
                learning[-1].append(float(np.mean(dscores.any(axis=1))))
                norms[-1].append(float(np.linalg.norm(flat.data)))
        errors.append(error(net, shown.x, shown.y))
    stopped = epochs - int(np.argmax(np.array(learning[0][::-1]) > 0)) + 1
    grown = [norm[-1] / norm[epochs // 2 - 1] - 1 for norm in norms]
    numbers = {"learning": learning, "norms": norms, "errors": errors, "stopped": stopped, "epochs": epochs}
    numbers |= {
        "half": epochs // 2,
        "grown": grown,
        "last": [shares[-1] for shares in learning],
        "images": len(shown.x),
    }

    def draw(figure):
        axes = figure.subplots(1, 3)
        for pull, shares, norm, name, colour, dash in zip(pulls, learning, norms, LOSSES, COLOURS, ("-", "--")):
            style = {"color": colour, "linestyle": dash, "label": name}
            axes[0].plot(margins, pull, **style)
            axes[1].plot(range(1, epochs + 1), shares, **style)
            axes[2].plot(range(1, epochs + 1), norm, **style)
        axes[0].set(xlabel="margin of the right class's score", ylabel="size of its derivative of the loss")
        axes[1].set(xlabel="epoch", ylabel="share of images with a gradient", ylim=(0, 1.05))
        axes[2].set(xlabel="epoch", ylabel="length of the weights", ylim=(0, None))
        axes[0].set_title("One example of two classes")
        axes[1].set_title(f"A linear model learns {len(shown.x)} images")
        axes[2].set_title("Its weights")
        axes[2].legend()

    return Finding(
        errors == [0, 0] and learning[0][-1] == 0 == grown[0] and learning[1][-1] == 1 and grown[1] > 0,
        "learning {images} images by heart, a linear model with the hinge loss gets a gradient from {last[0]:.0%} of "
        "them in the last of {epochs} epochs, from none at all since epoch {stopped}, and its weights grow by "
        "{grown[0]:.1%} in the second half; with cross-entropy {last[1]:.0%} still give one, and the weights grow by "
        "{grown[1]:.1%}.",
        numbers,
        draw,
    )


def _pull(loss, margins):
    """The size of the derivative by the right score, of two, for one example at each margin."""
    right = np.zeros(1, np.intp)
    return [-float(loss(np.array([[margin, 0.0]]), right)[1][0, 0]) for margin in margins]
