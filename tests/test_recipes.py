"""The committed recipes: `fastcnn train` takes them, and what is told of them is what was recorded."""

import json

import numpy as np
import pytest
from conftest import TESTS
from train_support import metrics_of

from fastcnn import cli

FOLDER = TESTS.parent / "recipes"
RECIPES = sorted(FOLDER.glob("*.toml"))
SHAPES = {"cifar10": (3, 32, 32), "fashion": (1, 28, 28), "mnist": (1, 28, 28)}  # by how a recipe's name begins


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request):
    return request.param


def test_there_are_recipes():
    assert [path.stem for path in RECIPES] == ["cifar10-resnet20", "fashion-mnist-resnet20", "mnist-lenet"]


def test_a_recipe_trains(recipe, tmp_path):
    rng = np.random.default_rng(0)
    shape = SHAPES[recipe.stem.partition("-")[0]]
    x, y = rng.integers(256, size=(20, *shape), dtype=np.uint8), np.arange(20) % 10
    np.savez(tmp_path / "toy.npz", x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    given = ["--data", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "run"), "--epochs", "1", "--no-progress"]
    assert cli.main(["train", "--config", str(recipe), *given]) == 0
    assert len(metrics_of(tmp_path / "run")) == 1


def test_the_record_of_a_recipe_is_of_its_options(recipe):
    options = cli.parse(["train", "--config", str(recipe)])
    record = [json.loads(line) for line in recipe.with_suffix(".jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in record] == list(range(1, options.epochs + 1))
    assert max(line["lr"] for line in record) <= options.lr
    last = f"{record[-1]['eval_accuracy']:.2%}".replace("%", " %")
    assert last in (FOLDER / "README.md").read_text()
