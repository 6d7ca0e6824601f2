"""Small data sets and short runs for the tests of `fastcnn train`."""

import hashlib
import json

import numpy as np

FILES = {
    "checkpoint.safetensors", "config.json", "curves.png", "metrics.jsonl", "monitor.jsonl", "report.html",
    "weights.safetensors",
}  # fmt: skip
QUICK = ("--epochs", "2", "--width", "2", "--batch-size", "16", "--lr", "0.01", "--no-progress")


def images(n, seed, shape=(8, 9), classes=3):
    """n noisy images (n, H, W) with a bright row that tells the class, and their labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(0, 120, (n, *shape), np.uint8)
    for image, label in zip(x, y, strict=True):
        image[2 * label : 2 * label + 2] += 120
    return x, y


def save(path, n_train=70, n_test=30, **options):
    x_train, y_train = images(n_train, 0, **options)
    x_test, y_test = images(n_test, 1, **options)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def metrics_of(folder):
    """The metrics of all epochs; every line is JSON in the strict sense, which knows no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(metrics):
    return [{k: v for k, v in epoch.items() if k not in ("seconds", "images_per_second")} for epoch in metrics]


def weights_of(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "weights.safetensors")


def digest(folder):
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
