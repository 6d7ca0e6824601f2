"""`fastcnn train`: a net on real images, with progress bars, checkpoints and a run folder."""

import argparse
import datetime
import os
import pathlib
import sys
from dataclasses import dataclass

import numpy as np

import fastcnn
from fastcnn import data, nn
from fastcnn.layers import checks
from fastcnn.train import files, recipe
from fastcnn.train.beginning import beginning
from fastcnn.train.callback import Callback
from fastcnn.train.checkpoint import digest
from fastcnn.train.extras import need
from fastcnn.train.interrupts import Interrupted
from fastcnn.train.loop import Trainer, evaluate, options_of
from fastcnn.train.monitor import Monitor
from fastcnn.train.progress import Bars, Lines
from fastcnn.train.range_test import range_test
from fastcnn.train.report import write_report
from fastcnn.train.run import RunFolder, read_config
from fastcnn.train.tensorboard import TensorBoard

PREFETCH = 4  # batches made ahead where images are augmented
_NOT_OF_THE_RUN = {"run", "command", "given", "no_progress", "resume", "config"}  # options that config.json leaves out
_CHANGEABLE = {  # when a run goes on: what its results do not depend on, and what is looked at by itself
    "data", "epochs", "threads", "no_progress", "checkpoint_minutes", "resume", "prefetch", "tensorboard", "no_monitor",
    "keep_checkpoints",
}  # fmt: skip
_NEEDS = {  # option: what it needs, and whether that is there
    "patience": (
        "--validation FRACTION, as test images decide nothing",
        lambda options: options["validation"],
    ),
    "best_by": ("--patience EPOCHS", lambda options: options["patience"]),
    "gradually": ("--unfreeze-after EPOCHS", lambda options: options["unfreeze_after"]),
    "head_hidden": ("--head mlp", lambda options: options["head"] == "mlp"),
    "head_drop": ("--head mlp", lambda options: options["head"] == "mlp"),
}


def train(arguments):
    """Train as the command line asks; returns the exit status."""
    session = _prepare(arguments)
    run = RunFolder(arguments.out or _folder(session.dataset), session.config())
    with files.held(run.path):
        return session.carry_out(run)


def resume(folder, given, defaults):
    """Go on with the run in a folder; returns the exit status.

    Parameters
    ----------
    folder : path
    given : dict, the options of the command line; only some may differ from those of the run
    defaults : dict, all options by default

    Raises
    ------
    ValueError
        If options or data are not those of the run, or there is nothing to go on with.
    BlockingIOError
        If another process is at work on the run: nothing in the folder is touched then.
    """
    read_config(folder)  # a folder without a run is refused as such
    with files.held(folder):
        return _go_on(folder, given, defaults)


def _go_on(folder, given, defaults):
    config = read_config(folder)
    options = defaults | config["options"]
    for name, value in config["options"].items():
        kind = {float: int | float}.get(type(defaults.get(name)), type(defaults.get(name)))
        if kind is not type(None) and not isinstance(value, kind | None):
            raise ValueError(f"{folder}: config.json has {value!r} for the option {name!r}")
    if options["find_lr"]:
        raise ValueError(f"{folder}: a range test is not resumed; begin it anew")
    for name, value in given.items():
        if name not in _CHANGEABLE and value != options[name]:
            option = f"--{name.replace('_', '-')}"
            has = f"the run in {folder} has {options[name]!r}, not {value!r}"
            raise ValueError(f"{option}: {has}; leave {option} out, or begin a new run")
    arguments = argparse.Namespace(**(options | {"data": config["dataset"]["path"]} | given))
    if arguments.epochs < options["epochs"]:
        raise ValueError(f"--epochs: the run in {folder} has {options['epochs']}, and cannot have fewer")
    session = _prepare(arguments, pathlib.Path(folder))
    now = session.config()
    if now["dataset"]["digest"] != config["dataset"]["digest"]:
        name = arguments.data or session.dataset.name
        raise ValueError(f"{name}: the data are not what they were when the run in {folder} began")
    session.trainer.checkpoint = RunFolder.checkpoint_of(folder)
    session.trainer.resume()
    if config["fastcnn"] != fastcnn.__version__:
        print(f"the run began with fastcnn {config['fastcnn']}: results may differ in the last digit", file=sys.stderr)
    return session.carry_out(RunFolder(folder, now, resume=True))


@dataclass
class _Session:
    """All that a run needs, made of its options."""

    arguments: argparse.Namespace
    dataset: data.Dataset  # as loaded
    evaluation: tuple
    evaluated_on: str
    network: dict
    description: list  # of what the training begins with
    trainer: Trainer

    def config(self):
        """The contents of config.json."""
        dataset, optimizer = self.dataset, self.trainer.optimizer
        path, shape = self.arguments.data, dataset.x_train.shape[1:]
        return {
            "fastcnn": fastcnn.__version__,
            "numpy": np.__version__,
            "net": self.network,
            "parameters": optimizer.parameters.data.size,
            "optimizer": {"name": type(optimizer).__name__, **options_of(optimizer)},
            "preprocess": {"name": type(self.trainer.preprocess).__name__},
            "dataset": {
                "name": dataset.name,
                "path": None if path is None else os.path.abspath(path),
                "classes": list(dataset.class_names),
                "image_shape": shape,
                "training_images": len(self.trainer.batches.x),
                "test_images": len(dataset.x_test),
                "digest": digest(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test),
            },
            "options": {k: v for k, v in vars(self.arguments).items() if k not in _NOT_OF_THE_RUN},
        }

    def carry_out(self, run):
        """Train and tell about it; returns the exit status."""
        trainer, arguments = self.trainer, self.arguments
        self._announce(run)
        if arguments.find_lr:
            return _find_lr(trainer, run, arguments.backend)
        trainer.checkpoint = RunFolder.checkpoint_of(run.path)
        trainer.callbacks = self._callbacks(run)
        with fastcnn.backend(arguments.backend):
            try:
                trainer.fit(self.evaluation)
            except KeyboardInterrupt as interrupt:
                return self._interrupted(run, interrupt)
            except FloatingPointError as error:
                run.save_error(str(error))
                self._draw(run)
                raise
            run.save_weights(trainer.net, trainer.preprocess)
            self._draw(run)
            self._report(run)
        return 0

    def _draw(self, run):
        """The curves and the page about the run, as far as it went."""
        if run.metrics:
            run.draw_curves(self.evaluated_on)
        write_report(run.path, self.dataset)

    def _announce(self, run):
        trainer = self.trainer
        print(f"{self.dataset!r}")
        options = "".join(f", {name} {value}" for name, value in self.network["options"].items())
        head = recipe.head_in_words(self.network)
        print(f"{self.network['name']}{options}{head}: {trainer.optimizer.parameters.data.size:,} parameters")
        for line in self.description:
            print(line)
        print(f"{len(trainer.batches.x):,} images in {len(trainer.batches)} steps an epoch, {trainer.epochs} epochs")
        print(f"run folder {run.path}")
        if trainer.finished:
            print(f"the run is finished, after {trainer.epoch} epochs")
        elif trainer.epoch or trainer.step:
            print(f"going on in epoch {trainer.epoch + 1}, after step {trainer.step}")
        if not trainer.finished:
            _note_compilation(self.arguments.backend)

    def _callbacks(self, run):
        arguments = self.arguments
        callbacks = [_Records(run, arguments.keep_checkpoints)]
        if not arguments.no_monitor:
            callbacks.append(Monitor(run.path))
        if arguments.tensorboard:
            callbacks.append(TensorBoard(run.path))
        if arguments.no_progress or not sys.stderr.isatty():
            return [*callbacks, Lines(self.evaluated_on, _print)]
        tqdm = need("tqdm").tqdm
        return [*callbacks, Bars(tqdm), Lines(self.evaluated_on, lambda line: tqdm.write(line, file=sys.stdout))]

    def _interrupted(self, run, interrupt):
        trainer, go_on = self.trainer, f"go on with: fastcnn train --resume {run.path}"
        if not isinstance(interrupt, Interrupted):
            print(f"\nstopped at once, since the last checkpoint all is lost; {go_on}", file=sys.stderr)
            return 130
        if trainer.best_epoch is None:
            run.save_weights(trainer.net, trainer.preprocess)
        print(f"\ninterrupted in epoch {trainer.epoch + 1}, after step {trainer.step}; {go_on}", file=sys.stderr)
        self._draw(run)
        return interrupt.status

    def _report(self, run):
        trainer, dataset, evaluated_on = self.trainer, self.dataset, self.evaluated_on
        best = trainer.metrics[-1]
        if trainer.best_epoch is not None:
            best = trainer.metrics[trainer.best_epoch - 1]
            early = " (stopped early)" if trainer.epoch < trainer.epochs else ""
            print(f"best {evaluated_on} {trainer.best_by} after epoch {best.epoch} of {trainer.epoch}{early}")
        accuracy = best.eval_accuracy
        if evaluated_on != "test" and len(dataset.x_test):
            test = dataset.x_test, dataset.y_test
            _, accuracy = evaluate(trainer.net, *test, trainer.preprocess, trainer.dtype, loss=trainer.loss)
            evaluated_on = "test"
        names = ", ".join(sorted(file.name for file in run.path.iterdir()))
        print(f"{evaluated_on} accuracy {accuracy:.2%}; {run.path}: {names}")


class _Records(Callback):
    """Keeps what an epoch gave in the run folder; the weights there are those to use."""

    def __init__(self, run, weights_of_epochs):
        self.run, self.weights_of_epochs = run, weights_of_epochs

    def on_start(self, trainer):
        self.run.keep(trainer.metrics)  # later ones come again

    def after_epoch(self, trainer, metrics):
        self.run.add(metrics)
        if trainer.best_epoch in (None, trainer.epoch):
            self.run.save_weights(trainer.net, trainer.preprocess)
        if self.weights_of_epochs:
            self.run.save_epoch(trainer.epoch, trainer.net, trainer.preprocess, self.weights_of_epochs)


def _prepare(arguments, folder=None):
    """The `_Session` of these options, which are completed; what cannot be is refused before anything is written.

    `folder`: of the run that goes on.
    """
    if not arguments.no_progress:
        need("tqdm")
    if arguments.tensorboard:
        need("tensorboardX", "tensorboard")
    if arguments.threads:
        fastcnn.set_num_threads(arguments.threads)
    if folder is None:
        _refuse_without_meaning(vars(arguments))
    start = beginning(arguments, folder)
    loaded = start.dataset()
    dataset, evaluated_on, evaluation = loaded, "test", (loaded.x_test, loaded.y_test)
    if arguments.validation:
        dataset, *evaluation = loaded.split_validation(arguments.validation, arguments.seed)
        evaluated_on = "validation"
    if arguments.bootstrap:
        dataset = dataset.bootstrap(arguments.seed)
    if not len(evaluation[0]):
        raise ValueError(f"{dataset.name}: there are no test images; give --validation a fraction to hold out")
    dtype = np.dtype(arguments.dtype).type
    network, net, preprocess = start.net(dataset)
    learned_stages = start.learned_stages(net)
    if learned_stages is not None:
        nn.freeze_all_but_top(net, learned_stages(0))
    rate = recipe.RATES[checks.choice("--optimizer", arguments.optimizer, tuple(recipe.RATES))]
    arguments.lr = rate if arguments.lr is None else arguments.lr
    optimizer = recipe.optimizer(
        arguments.optimizer, nn.FlatParameters(net), arguments.lr, arguments.momentum, not arguments.no_decay_vectors,
        start.groups(net), weight_decay=arguments.weight_decay, l1=arguments.l1, clip_norm=arguments.clip_norm,
        clip_value=arguments.clip_value,
    )  # fmt: skip
    trainer = Trainer(
        net, optimizer, _batches(arguments, dataset, preprocess, dtype), preprocess,
        recipe.schedule(arguments.schedule, arguments.epochs, arguments.warm_up), arguments.epochs, dtype,
        loss=arguments.loss, label_smoothing=arguments.label_smoothing, patience=arguments.patience,
        best_by=arguments.best_by or "loss", checkpoint_minutes=arguments.checkpoint_minutes,
        learned_stages=learned_stages,
    )  # fmt: skip
    return _Session(arguments, loaded, tuple(evaluation), evaluated_on, network, start.describe(net), trainer)


def _refuse_without_meaning(options):
    """Refuse options that mean nothing without another."""
    for name, (needed, there) in _NEEDS.items():
        value = options.get(name)
        if value is not None and value is not False and not there(options):
            raise ValueError(f"--{name.replace('_', '-')}: needs {needed}")


def _batches(arguments, dataset, preprocess, dtype):
    augment = None
    if arguments.augment:
        transforms = recipe.transforms(arguments.augment, len(dataset.class_names))
        if arguments.loss == "hinge" and any(isinstance(transform, data.Mixup) for transform in transforms):
            raise ValueError("--loss hinge: has no soft labels, which mixup makes")
        augment = data.Compose(transforms, preprocess, dtype=dtype)
    prefetch = arguments.prefetch if arguments.prefetch is not None else PREFETCH if augment else 0
    return data.Batches(
        dataset.x_train, dataset.y_train, arguments.batch_size, seed=arguments.seed, augment=augment, prefetch=prefetch
    )


def _folder(dataset):
    name = "".join(c if c.isalnum() else "-" for c in dataset.name.lower())
    return f"runs/{datetime.datetime.now():%Y%m%d-%H%M%S}-{name}"


def _note_compilation(backend):
    if backend == "cuda":
        print("the first steps compile the kernels for this GPU", flush=True)
    if backend != "cpu":
        return
    from fastcnn.cpu.cache import cache_folder

    folder = cache_folder()
    if folder is None or not any(folder.glob("cpu.conv.*_backward_filter-*")):
        print("first use: compiling the kernels takes some 20 s, once", flush=True)


def _print(line):
    print(line, flush=True)


def _find_lr(trainer, run, backend):
    """The range test instead of training."""
    with fastcnn.backend(backend):
        found = range_test(
            trainer.net, trainer.optimizer, trainer.batches, trainer.preprocess,
            dtype=trainer.dtype, loss=trainer.loss_function,
        )  # fmt: skip
    run.save_range_test(found)
    print(f"{len(found.rates)} steps, learning rates from {found.rates[0]:.2g} to {found.rates[-1]:.2g}")
    print("training diverges at the last" if found.diverged else "training diverges at none")
    print(f"the loss begins to fall at {found.low:.2g}; well below where it rises again: --lr {found.high:.2g}")
    print(f"{run.path}: config.json, rates.json, rates.png")
    return 0
