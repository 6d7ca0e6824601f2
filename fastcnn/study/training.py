"""What the experiments share: images, nets, and the training of the one on the other."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from fastcnn import data, layers, nn, optim
from fastcnn.common.philox import derive_key


def generator(seed, *use):
    """A generator of random numbers for one use of a seed."""
    return np.random.Generator(np.random.Philox(key=derive_key(seed, *use)))


@dataclass(frozen=True)
class Images:
    """Fashion-MNIST images, standardised, (N, 1, H, W) float32, and their labels (N,)."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    raw: np.ndarray  # x as it came, uint8, for augmentation
    preprocess: data.Standardize


def images(seed, train, test=1, shrink=1):
    """So many random ones of the shipped training and test images; `shrink`: the mean of so many pixels, both ways."""
    dataset = data.load_fashion_mnist()
    rng = generator(seed, 100)
    chosen = rng.permutation(len(dataset.x_train))[:train]
    held_out = rng.permutation(len(dataset.x_test))[:test]
    preprocess = data.Standardize.fit(dataset.x_train)

    def prepared(x):
        n, channels, height, width = x.shape
        cells = preprocess.apply(x).reshape(n, channels, height // shrink, shrink, width // shrink, shrink)
        return cells.mean(axis=(3, 5))

    raw = dataset.x_train[chosen]
    x, x_test = prepared(raw), prepared(dataset.x_test[held_out])
    return Images(x, dataset.y_train[chosen], x_test, dataset.y_test[held_out], raw, preprocess)


def dense(widths, activation, initialise, rng):
    """Affine layers of those many inputs and neurons, an activation after each but the last.

    `initialise` is a function of a generator and a shape, such as those of `nn.initialisers`; biases are zero.
    """
    stack = []
    for shape in itertools.pairwise(widths):
        linear = nn.Linear(*shape, rng=rng)
        linear.weight.data[...] = initialise(rng, shape)
        stack += [linear, activation()]
    return nn.Sequential(*stack[:-1])


def affine_layers(net):
    """Those layers of a net, in forward order."""
    return [module for module in net.modules() if isinstance(module, nn.Linear)]


def outputs(net, x):
    """(layer, its output) of each layer of an `nn.Sequential`, one after the other."""
    for layer in net.layers:
        x = layer(x)
        yield layer, x


def steps(net, optimizer, batches, epochs, loss=layers.softmax_loss):
    """Train; give the loss of each step, before its update. After one that is not finite there are no more."""
    for epoch in range(epochs):
        for x, y in batches.epoch(epoch):
            net.train()
            value, dscores = loss(net(x), y)
            if not math.isfinite(value):
                yield value
                return
            net.backward(dscores, need_dx=False)
            optimizer.step()
            yield value


def fit(net, x, y, epochs, lr, momentum=0.9, batch_size=64, seed=0, **options):
    """Train with stochastic gradient descent; the losses of all steps. `options` are those of `data.Batches`."""
    optimizer = optim.SGD(nn.FlatParameters(net), lr, momentum)
    batches = data.Batches(x, y, batch_size, seed=seed, **options)
    return list(steps(net, optimizer, batches, epochs))


def scores(net, x, batch_size=500):
    """The scores of a net in test mode, (N, classes)."""
    net.eval()
    return np.concatenate([net(x[first : first + batch_size]) for first in range(0, len(x), batch_size)])


def error(net, x, y):
    """The share of wrong answers of a net in test mode; those that are no numbers are wrong."""
    answers = scores(net, x)
    return float(np.mean((answers.argmax(axis=1) != y) | ~np.isfinite(answers).all(axis=1)))


def smooth(losses, window=20):
    """Means of so many losses in a row; fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], losses]))
    last = np.arange(1, len(sums))
    first = np.maximum(0, last - window)
    return (sums[last] - sums[first]) / (last - first)
