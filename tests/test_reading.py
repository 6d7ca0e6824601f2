"""The reading of curves, on synthetic ones: each rule where it holds, where it does not, and the numbers it states."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastcnn import layers
from fastcnn.train import EpochMetrics
from fastcnn.train.reading import expected_loss, read, read_first_loss, read_layers, usual_first_loss


def curves(train_loss, train_accuracy, eval_loss=None, eval_accuracy=None, lr=0.1):
    """The metrics of a run with these curves."""
    epochs = len(train_loss)
    rates = np.broadcast_to(lr, epochs)
    held_out = ([None] * epochs if values is None else values for values in (eval_loss, eval_accuracy))
    rows = zip(rates, train_loss, train_accuracy, *held_out, strict=True)
    return [EpochMetrics(i + 1, 10, *row, 1.0, 100.0) for i, row in enumerate(rows)]


def rules(*args, **options):
    return {statement.rule: statement for statement in read(*args, **options)}


def saturating(start, end, epochs, rate=0.5):
    """From start towards end, ever slower."""
    return end + (start - end) * np.exp(-rate * np.arange(epochs))


def test_nothing_stands_out():
    metrics = curves(*(saturating(*ends, 5, 3) for ends in ((1.5, 0.05), (0.5, 0.985), (1.4, 0.1), (0.55, 0.955))))
    found = rules(metrics, 10, 2.4)
    assert set(found) == {"first loss", "settled"} and {s.kind for s in found.values()} == {"good"}
    assert "validation accuracy is 95.5%, at best 95.5% after epoch 5" in found["settled"].text


def test_rising():
    rise = np.linspace(0.5, 0.8, 9)
    metrics = curves(np.linspace(2, 1, 9), rise, np.linspace(2, 1, 9), rise + 0.01)
    found = rules(metrics, evaluated_on="test")
    text = found["rising"].text
    assert found["rising"].kind == "advice" and "Train longer." in text
    assert "test accuracy is still rising: from 69.8% to 81.0% over the last 4 epochs" in text
    assert "plateau" not in found


def test_rising_without_evaluation():
    found = rules(curves(np.linspace(2, 1, 9), np.linspace(0.5, 0.8, 9)))
    assert set(found) == {"rising"} and "training accuracy is still rising: from 68.8% to 80.0%" in found["rising"].text


def test_rising_at_the_end_of_a_schedule():
    rise = np.linspace(0.5, 0.8, 9)
    text = rules(curves(np.linspace(2, 1, 9), rise, lr=np.linspace(0.1, 0.002, 9)))["rising"].text
    assert "a schedule laid out for more epochs: the learning rate has come down to 0.002" in text


def test_noise_is_no_rise():
    zigzag = np.where(np.arange(30) % 2, 0.82, 0.78)
    assert "rising" not in rules(curves(saturating(2, 0.5, 30), zigzag))
    assert "rising" in rules(curves(saturating(2, 0.5, 30), zigzag + np.linspace(0, 0.3, 30)))


def test_falling_is_no_rise():
    assert "rising" not in rules(curves(saturating(2, 0.5, 9), np.linspace(0.8, 0.6, 9)))


def test_overfitting():
    epochs = 12
    eval_loss = np.r_[np.linspace(1.5, 0.5, 5), np.linspace(0.55, 0.9, epochs - 5)]
    eval_accuracy = np.r_[np.linspace(0.4, 0.8, 5), [0.8] * (epochs - 5)]
    found = rules(curves(np.linspace(1.6, 0.1, epochs), np.linspace(0.4, 0.99, epochs), eval_loss, eval_accuracy), 10)
    statement = found["overfitting"]
    assert statement.kind == "warning" and "Regularise" in statement.text and "add data" in statement.text
    assert "since epoch 5 the training loss fell from 1.05 to 0.1" in statement.text
    assert "validation loss rose from 0.5 to 0.9" in statement.text and "validation 80.0%" in statement.text
    assert not {"gap", "underfitting", "settled"} & set(found)


def test_a_single_worse_epoch_is_no_overfitting():
    loss = saturating(1.5, 0.3, 12)
    worse = loss.copy()
    worse[-1] *= 1.5
    assert "overfitting" not in rules(curves(loss, saturating(0.4, 0.9, 12), worse, saturating(0.4, 0.87, 12)))


def test_both_losses_up_is_no_overfitting():
    up = np.linspace(1.0, 1.2, 6)
    assert "overfitting" not in rules(curves(up, [0.6] * 6, up, [0.6] * 6))


def test_gap():
    loss = saturating(1.5, 0.3, 12, 2)
    found = rules(curves(loss, saturating(0.5, 0.95, 12, 2), loss, saturating(0.5, 0.85, 12, 2)))
    assert "A gap of 10.0 percentage points: training 95.0%, validation 85.0%" in found["gap"].text
    assert not {"overfitting", "underfitting"} & set(found)


@pytest.mark.parametrize("accuracy, holds", [(0.7, True), (0.97, True), (0.985, False)])
def test_underfitting(accuracy, holds):
    loss, train = np.linspace(1.5, 0.8, 12), saturating(0.5, accuracy, 12, 2)
    found = rules(curves(loss, train, loss, train - 0.01))
    assert ("underfitting" in found) == holds
    if holds:
        text = found["underfitting"].text
        assert "Train longer or use a larger model" in text and f"training {accuracy:.1%}" in text
        assert f"validation {accuracy - 0.01:.1%}" in text


def test_underfitting_needs_evaluation():
    assert "underfitting" not in rules(curves(saturating(1.5, 0.8, 12), saturating(0.5, 0.7, 12)))


def test_plateau():
    loss, accuracy = saturating(1.5, 0.8, 12, 2), saturating(0.5, 0.7, 12, 2)
    text = rules(curves(loss, accuracy, loss, accuracy))["underfitting"].text
    assert "Use a larger model; longer training adds little" in text
    text = rules(curves(loss, accuracy))["plateau"].text
    assert "over the last 4 epochs the training accuracy stayed between 70.0% and 70.0%, and" in text
    assert "Lower the learning rate, 0.1, or stop" in text
    decayed = rules(curves(loss, accuracy, lr=np.linspace(0.1, 0.001, 12)))["plateau"].text
    assert "has come down to 0.001" in decayed and "Lower the learning rate" not in decayed
    falling = np.r_[loss[:8], [0.8, 0.7, 0.6, 0.5]]
    assert "plateau" not in rules(curves(falling, accuracy))


@pytest.mark.parametrize("lost", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["train", "eval"])
def test_no_number(lost, which):
    losses = {"train": [1.0, 0.9, 0.8, 0.7], "eval": [1.0, 0.9, 0.8, 0.7]}
    losses[which] = [1.0, 0.9, lost, lost]
    found = rules(curves(losses["train"], [0.5] * 4, losses["eval"], [0.5] * 4), 10)
    name = {"train": "training", "eval": "validation"}[which]
    assert set(found) == {"diverged"} and found["diverged"].kind == "warning"
    assert f"the {name} loss is no number from epoch 3 on" in found["diverged"].text


def test_diverging():
    found = rules(curves([1.5, 0.8, 0.7, 1.4], [0.5, 0.7, 0.7, 0.4]), 10)
    assert set(found) == {"diverged"} and "rose from 0.7 after epoch 3 to 1.4" in found["diverged"].text


def test_not_learning():
    found = rules(curves([2.6, 2.6, 2.6], [0.1] * 3), 10)
    assert set(found) == {"diverged"} and "is 2.6, and that of guessing 2.3" in found["diverged"].text
    assert "diverged" in rules(curves([1e9, 3.0, 2.3], [0.1] * 3), 10), "as bad as guessing, after all"
    assert "diverged" not in rules(curves([2.29], [0.1]), 10), "an average over the first epoch"
    assert "diverged" not in rules(curves([2.6, 2.6, 2.6], [0.1] * 3), 100)


def test_too_short():
    assert set(rules([])) == set()
    assert "1 epoch cannot show" in rules(curves([1.0], [0.5]))["too short"].text
    assert "2 epochs cannot show" in rules(curves([1.0, 0.9], [0.5, 0.6]))["too short"].text
    assert "too short" not in rules(curves([1.0, 0.9, 0.8], [0.5, 0.6, 0.7]))


def test_incomplete():
    assert "0 of 5 epochs" in rules([], planned=5)["incomplete"].text
    assert "3 of 5 epochs" in rules(curves([1.0, 0.9, 0.8], [0.5, 0.6, 0.7]), planned=5)["incomplete"].text
    assert "incomplete" not in rules(curves([1.0, 0.9, 0.8], [0.5, 0.6, 0.7]), planned=3)


@pytest.mark.parametrize("kind", ["softmax", "hinge"])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_first_loss(classes, kind):
    expected, (low, high) = expected_loss(classes, kind), usual_first_loss(classes, kind)
    for loss in (expected, 0.01 * low + 0.99 * high, 0.99 * low + 0.01 * high):
        statement = read_first_loss(loss, classes, kind)
        assert statement.kind == "good" and f"{loss:.3g}" in statement.text
        equal = f"ln {classes}" if kind == "softmax" else f"{classes} - 1"
        assert f"{equal} = {expected:.3g}" in statement.text
    for loss, advice in (
        (1.1 * high, "smaller weights"),
        (0.9 * low, "trained before"),
        (math.nan, "NaN"),
        (math.inf, "NaN"),
    ):
        statement = read_first_loss(loss, classes, kind)
        assert statement.kind == "warning" and advice in statement.text


@pytest.mark.parametrize("kind, loss", [("softmax", layers.softmax_loss), ("hinge", layers.svm_loss)])
def test_expected_loss(kind, loss):
    """That of equal scores; scores of a standard deviation up to 2 that know nothing of the labels are in the range."""
    rng, classes = np.random.default_rng(0), 10
    y = rng.integers(0, classes, 5000)
    assert_allclose(loss(np.full((5000, classes), 0.3), y)[0], expected_loss(classes, kind))
    low, high = usual_first_loss(classes, kind)
    for std in (0.0, 0.5, 1.0, 2.0):
        assert low < loss(std * rng.standard_normal((5000, classes)), y)[0] < 1.02 * high
    assert loss(3 * rng.standard_normal((5000, classes)), y)[0] > high


def test_hinge():
    metrics = curves([9.5, 9.5, 9.5], [0.1] * 3)
    assert set(rules(metrics, 10, 9.1, kind="hinge")) == {"first loss", "diverged"}
    assert "diverged" not in rules(curves([8.0, 7.0, 6.0], [0.1, 0.2, 0.3]), 10, kind="hinge")


def record(lr=0.1, **changes):
    """One of a monitor, with one layer and two weights."""
    layer = {"name": "0", "dead": None, "saturated": None, "nonfinite": 0} | changes.pop("layer", {})
    ratios = changes.pop("ratios", (1e-3, 2e-3))
    weights = [{"name": f"{i}.weight", "update_ratio": ratio, "nonfinite": 0} for i, ratio in enumerate(ratios)]
    return {"epoch": 1, "lr": lr, "layers": [layer], "weights": weights} | changes


def layer_rules(*records):
    return {statement.rule: statement for statement in read_layers(list(records))}


@pytest.mark.parametrize(
    "ratios, kind, words",
    [
        ((1e-3, 2e-3, 5e-3), "good", "by 0.002 of their norm in the median layer (0.weight 0.001 to 2.weight 0.005)"),
        ((1e-2, 5e-2, 2e-2), "advice", "lower the learning rate"),
        ((1e-5, 5e-5, 2e-5), "advice", "the learning rate may be higher"),
        ((None, 1e-3), "good", "by 0.001"),
    ],
)
def test_updates(ratios, kind, words):
    statement = layer_rules(record(ratios=ratios))["updates"]
    assert statement.kind == kind and words in statement.text


def test_updates_are_read_before_the_rate_came_down():
    early, late = record(ratios=(5e-2,), epoch=3), record(lr=1e-5, ratios=(1e-6,), epoch=9)
    assert "In epoch 3, at a learning rate of 0.1" in layer_rules(record(), early, late)["updates"].text


@pytest.mark.parametrize("share, kind", [(0.1, None), (0.3, "advice"), (0.8, "warning")])
@pytest.mark.parametrize("rule", ["dead", "saturated"])
def test_dead_and_saturated(rule, share, kind):
    found = layer_rules(record(layer={rule: share}))
    assert (found[rule].kind if rule in found else None) == kind
    if kind:
        assert f"{share:.0%} of layer 0" in found[rule].text


def test_not_finite():
    text = layer_rules(record(layer={"nonfinite": 1234}))["not finite"].text
    assert "outputs of 0 (1,234)" in text
    lost = record(ratios=(None,))
    lost["weights"][0]["nonfinite"] = 7
    assert (
        set(layer_rules(lost)) == {"not finite"} and "gradient of 0.weight (7)" in layer_rules(lost)["not finite"].text
    )


def test_many_layers_are_not_all_listed():
    many = record()
    many["layers"] = [{"name": str(i), "dead": 0.3 + i / 100, "saturated": None, "nonfinite": 0} for i in range(12)]
    assert "41% of layer 11, 40% of layer 10" in layer_rules(many)["dead"].text
    assert "37% of layer 7 and 7 more" in layer_rules(many)["dead"].text


def test_no_records():
    assert read_layers([]) == []
