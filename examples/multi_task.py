"""Two label sets at once: what is on an image (ten classes), and which kind of thing that is (top, shoe or other).

Three ways, on a few of the Fashion-MNIST images that come with fastcnn:

- apart: a net for each task, which know nothing of each other;
- hard sharing: one encoder and a head for each task, an `nn.Graph` whose gradients meet in the encoder;
- soft sharing: a net for each task, whose encoders are pulled towards each other by `nn.distance_penalty`.

    python examples/multi_task.py --images 500 --epochs 8
"""

import argparse

import numpy as np

from fastcnn import data, layers, nn, optim

KINDS = np.array([0, 2, 0, 0, 0, 1, 0, 1, 2, 1])  # of each class: 0 a top, 1 a shoe, 2 anything else
TASKS = {"class": 10, "kind": 3}


def encoder(seed):
    rng = np.random.default_rng(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 64, relu=True, rng=rng), nn.ReLU(),
    )  # fmt: skip


def head(task, seed):
    return nn.Linear(64, TASKS[task], rng=np.random.default_rng([seed, TASKS[task]]))


class Apart:
    """A net for each task; with `strength`, they share softly."""

    def __init__(self, seed, strength=0.0):
        self.strength = strength
        self.nets = {task: nn.Sequential(encoder(seed), head(task, seed)) for task in TASKS}
        self.optimizers = [optim.Adam(nn.FlatParameters(net), lr=1e-3) for net in self.nets.values()]

    def scores(self, x):
        return {task: net(x) for task, net in self.nets.items()}

    def step(self, x, y):
        for task, scores in self.scores(x).items():
            _, dscores = layers.softmax_loss(scores, y[task])
            self.nets[task].backward(dscores, need_dx=False)
        if self.strength:
            nn.distance_penalty(*self.nets.values(), self.strength, match="0.*")  # the encoders
        for optimizer in self.optimizers:
            optimizer.step()

    def eval(self):
        for net in self.nets.values():
            net.eval()

    @property
    def parameters(self):
        return sum(parameter.data.size for net in self.nets.values() for _, parameter in net.named_parameters())


class Shared:
    """One encoder, and a head for each task."""

    def __init__(self, seed):
        x = nn.Input()
        features = encoder(seed)(x, name="encoder")
        self.net = nn.Graph(x, {task: head(task, seed)(features, name=task) for task in TASKS})
        self.optimizer = optim.Adam(nn.FlatParameters(self.net), lr=1e-3)

    def scores(self, x):
        return self.net(x)

    def step(self, x, y):
        self.net.backward(
            {task: layers.softmax_loss(scores, y[task])[1] for task, scores in self.net(x).items()}, need_dx=False
        )
        self.optimizer.step()

    def eval(self):
        self.net.eval()

    @property
    def parameters(self):
        return sum(parameter.data.size for _, parameter in self.net.named_parameters())


def labels(y):
    return {"class": y, "kind": KINDS[y]}


def accuracies(model, x, y, batch=500):
    """The share of right answers for each task."""
    right, wanted = dict.fromkeys(TASKS, 0), labels(y)
    for first in range(0, len(x), batch):
        for task, scores in model.scores(x[first : first + batch]).items():
            right[task] += int(np.sum(scores.argmax(axis=1) == wanted[task][first : first + batch]))
    return {task: count / len(x) for task, count in right.items()}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500, help="labelled images to learn from (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3, help="how often, from other weights and images (%(default)s)")
    parser.add_argument("--strength", type=float, default=1e-2, help="of the pull of soft sharing (%(default)s)")
    options = parser.parse_args(arguments)
    dataset = data.load_fashion_mnist()
    preprocess = data.Standardize.fit(dataset.x_train)
    x_test = preprocess.apply(dataset.x_test, np.float32)
    ways = {
        "apart": Apart,
        "hard sharing": Shared,
        "soft sharing": lambda seed: Apart(seed, options.strength),
    }
    print(f"{'':14}{'parameters':>12}" + "".join(f"{task:>10}" for task in TASKS))
    found = {}
    for name, make in ways.items():
        rows = []
        for seed in range(options.seeds):
            rng, model = np.random.default_rng(seed), make(seed)
            chosen = rng.permutation(len(dataset.x_train))[: options.images]
            x, y = preprocess.apply(dataset.x_train[chosen], np.float32), dataset.y_train[chosen]
            for _ in range(options.epochs):
                order = rng.permutation(len(x))
                for first in range(0, len(x), 50):
                    batch = order[first : first + 50]
                    model.step(x[batch], labels(y[batch]))
            model.eval()
            rows.append(accuracies(model, x_test, dataset.y_test))
        found[name] = {task: np.mean([row[task] for row in rows]) for task in TASKS}
        print(f"{name:14}{model.parameters:12,}" + "".join(f"{share:10.1%}" for share in found[name].values()))
    return found


if __name__ == "__main__":
    main()
