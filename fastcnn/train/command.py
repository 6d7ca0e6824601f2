"""`fastcnn train`: the small CNN on real images, with a progress bar and a run folder."""

import datetime
import os
import sys

import numpy as np

import fastcnn
from fastcnn import data, nn, optim
from fastcnn.train.callback import Callback
from fastcnn.train.extras import need
from fastcnn.train.loop import Trainer, evaluate
from fastcnn.train.range_test import range_test
from fastcnn.train.run import RunFolder


def train(arguments):
    """Train as the command line asks; returns the exit status."""
    tqdm = None if arguments.no_progress else need("tqdm").tqdm
    if arguments.threads:
        fastcnn.set_num_threads(arguments.threads)
    dataset = _dataset(arguments)
    evaluated_on, evaluation = "test", (dataset.x_test, dataset.y_test)
    if arguments.validation:
        dataset, *evaluation = dataset.split_validation(arguments.validation, arguments.seed)
        evaluated_on = "validation"
    if not len(evaluation[0]):
        raise ValueError(f"{dataset.name}: there are no test images; give --validation a fraction to hold out")
    dtype = np.dtype(arguments.dtype).type
    preprocess = data.Standardize.fit(dataset.x_train)
    classes = len(dataset.class_names)
    described = {"name": "small_cnn", "options": {"width": arguments.width, "drop": arguments.drop}}
    shape = dataset.x_train.shape[1:]
    net = nn.build(described["name"], shape, classes, arguments.seed, dtype, **described["options"])
    if arguments.backend == "cuda":
        fastcnn.to_device(net)
    parameters = nn.FlatParameters(net)
    optimizer = optim.SGD(
        parameters, arguments.lr, arguments.momentum, nesterov=True, weight_decay=arguments.weight_decay
    )
    batches = data.Batches(dataset.x_train, dataset.y_train, arguments.batch_size, seed=arguments.seed)
    schedule = _schedule(arguments)
    run = RunFolder(arguments.out or _folder(dataset), _config(arguments, dataset, described, optimizer, preprocess))
    callbacks = [_Bar(tqdm)] if tqdm else []
    callbacks.append(_Records(run, evaluated_on))
    trainer = Trainer(net, optimizer, batches, preprocess, schedule, arguments.epochs, dtype, callbacks)
    print(f"{dataset!r}")
    print(f"{parameters.data.size:,} parameters, {arguments.epochs} epochs of {len(batches)} steps")
    print(f"run folder {run.path}")
    _note_compilation(arguments.backend)
    if arguments.find_lr:
        return _find_lr(trainer, run, arguments.backend)
    interrupted = False
    with fastcnn.backend(arguments.backend):
        try:
            trainer.fit(evaluation)
        except KeyboardInterrupt:
            interrupted = True
            print(f"\ninterrupted in epoch {trainer.epoch + 1}; saving what was learned", file=sys.stderr)
            run.save_weights(net, preprocess)
        if run.metrics:
            run.draw_curves(evaluated_on)
        if not interrupted:
            _report(net, dataset, evaluated_on, run, preprocess, dtype)
    return 130 if interrupted else 0


class _Records(Callback):
    """Keeps and prints what an epoch gave."""

    def __init__(self, run, evaluated_on):
        self.run, self.evaluated_on = run, evaluated_on

    def after_epoch(self, trainer, metrics):
        self.run.add(metrics)
        self.run.save_weights(trainer.net, trainer.preprocess)  # after every epoch: a crash loses one at most
        print(_line(metrics, trainer.epochs, self.evaluated_on), flush=True)


class _Bar(Callback):
    """A progress bar over the images of each epoch."""

    def __init__(self, tqdm):
        self.tqdm, self.bar = tqdm, None

    def after_step(self, trainer, step, loss):
        if self.bar is None:
            described = f"epoch {trainer.epoch + 1}/{trainer.epochs}"
            count = len(trainer.batches.x)
            self.bar = self.tqdm(total=count, desc=described, unit=" images", leave=False, dynamic_ncols=True)
        loss, accuracy, images = trainer.averages
        if images:
            self.bar.set_postfix_str(f"loss {loss:.3f}, accuracy {accuracy:.1%}", refresh=False)
        self.bar.update(images - self.bar.n)

    def after_epoch(self, trainer, metrics):
        self.on_stop(trainer)

    def on_stop(self, trainer):
        if self.bar is not None:
            self.bar.close()
        self.bar = None


def _dataset(arguments):
    if arguments.data is None:
        return data.load_fashion_mnist()
    size = tuple(arguments.image_size) if arguments.image_size else None
    return data.load(arguments.data, size=size)


def _schedule(arguments):
    """The schedule, over what the warm-up leaves of training."""
    schedule, share = optim.SCHEDULES[arguments.schedule], arguments.warm_up / arguments.epochs
    if not 0 <= share < 1:
        raise ValueError(f"--warm-up: expected fewer than the {arguments.epochs} epochs, got {arguments.warm_up:g}")
    return optim.schedules.WarmUp(share, optim.schedules.Scaled(schedule, 1 / (1 - share))) if share else schedule


def _folder(dataset):
    name = "".join(c if c.isalnum() else "-" for c in dataset.name.lower())
    return f"runs/{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}"


def _config(arguments, dataset, net, optimizer, preprocess):
    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "command", "no_progress")}
    path = None if arguments.data is None else os.path.abspath(arguments.data)
    shape = dataset.x_train.shape[1:]
    described = {"name": dataset.name, "path": path, "classes": list(dataset.class_names), "image_shape": shape}
    settings = {name: getattr(optimizer, name) for name in ("lr", "momentum", "nesterov", "weight_decay")}
    return {
        "fastcnn": fastcnn.__version__,
        "numpy": np.__version__,
        "net": net,
        "parameters": optimizer.parameters.data.size,
        "optimizer": {"name": type(optimizer).__name__, **settings},
        "preprocess": {"name": type(preprocess).__name__},
        "dataset": {**described, "training_images": len(dataset.x_train), "test_images": len(dataset.x_test)},
        "options": options,
    }


def _note_compilation(backend):
    if backend == "cuda":
        print("the first steps compile the kernels for this GPU", flush=True)
    if backend != "cpu":
        return
    from fastcnn.cpu.cache import cache_folder

    folder = cache_folder()
    if folder is None or not any(folder.glob("cpu.conv.*_backward_filter-*")):
        print("first use: compiling the kernels takes some 20 s, once", flush=True)


def _find_lr(trainer, run, backend):
    """The range test instead of training."""
    with fastcnn.backend(backend):
        found = range_test(trainer.net, trainer.optimizer, trainer.batches, trainer.preprocess, dtype=trainer.dtype)
    run.save_range_test(found)
    print(f"{len(found.rates)} steps, learning rates from {found.rates[0]:.2g} to {found.rates[-1]:.2g}")
    print("training diverges at the last" if found.diverged else "training diverges at none")
    print(f"the loss begins to fall at {found.low:.2g}; well below where it rises again: --lr {found.high:.2g}")
    print(f"{run.path}: config.json, rates.json, rates.png")
    return 0


def _line(metrics, epochs, evaluated_on):
    return (
        f"epoch {metrics.epoch:>{len(str(epochs))}}/{epochs}   loss {metrics.train_loss:.4f}   "
        f"accuracy {metrics.train_accuracy:6.2%}   {evaluated_on} loss {metrics.eval_loss:.4f}   "
        f"{evaluated_on} accuracy {metrics.eval_accuracy:6.2%}   {metrics.images_per_second:,.0f} images/s"
    )


def _report(net, dataset, evaluated_on, run, preprocess, dtype):
    accuracy = run.metrics[-1].eval_accuracy
    if evaluated_on != "test" and len(dataset.x_test):
        _, accuracy = evaluate(net, dataset.x_test, dataset.y_test, preprocess, dtype)
        evaluated_on = "test"
    files = ", ".join(sorted(file.name for file in run.path.iterdir()))
    print(f"{evaluated_on} accuracy {accuracy:.2%}; {run.path}: {files}")
