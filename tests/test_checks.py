"""The checks before a training: what passes, what does not, and that the net stays as it was."""

import functools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from train_support import save

from fastcnn import layers, nn, optim
from fastcnn.cli import main
from fastcnn.train import check_first_loss, check_overfit
from fastcnn.train.monitor import read_records

CLASSES, SHAPE = 4, (1, 8, 8)
FAST = functools.partial(optim.Adam, lr=1e-2)


def batch(n=12, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, *SHAPE)).astype(dtype), np.arange(n) % CLASSES


def example_net(drop=0.0, dtype=np.float32):
    return nn.small_cnn(SHAPE, CLASSES, 4, drop, dtype=dtype)


def state(net):
    """All that a training step would change."""
    arrays = {name: array.copy() for name, array in net.state_dict().items()}
    return arrays | {f"{name} gradient": p.grad.copy() for name, p in net.named_parameters()}


@pytest.mark.parametrize("check", [check_first_loss, check_overfit])
def test_the_net_stays_as_it_is(check):
    net = example_net(0.5)
    before, dropout = state(net), net.layers[6]
    x, y = batch()
    net.eval()
    expected = net(x)
    check(net, x, y)
    assert_array_equal(net(x), expected)
    assert not net.training and not dropout.training and dropout.step == 0
    for name, array in state(net).items():
        assert_array_equal(array, before[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_first_loss(dtype):
    (x, y), net = batch(dtype=dtype), example_net(dtype=dtype)
    found = check_first_loss(net, x, y)
    loss, _ = layers.softmax_loss(net.train()(x), y)
    assert found.ok and found.expected == math.log(CLASSES)
    assert_allclose(found.loss, float(loss))
    assert f"{found.loss:.3g}" in str(found) and "ln 4 = 1.39" in str(found) and found.sentence == str(found)


@pytest.mark.parametrize(
    "change, advice",
    [
        (lambda weight: weight * 100, "smaller weights"),
        (lambda weight: weight * np.nan, "NaN"),
    ],
)
def test_first_loss_that_is_wrong(change, advice):
    net = example_net()
    net.layers[-1].weight.data[:] = change(net.layers[-1].weight.data)
    found = check_first_loss(net, *batch())
    assert not found.ok and advice in str(found)


def test_first_loss_of_a_net_that_was_trained():
    (x, y), net = batch(), example_net()
    optimizer = optim.Adam(nn.FlatParameters(net))
    for _ in range(60):
        net.backward(layers.softmax_loss(net.train()(x), y)[1])
        optimizer.step()
    found = check_first_loss(net, x, y)
    assert not found.ok and "trained before" in str(found)


def test_zeros_give_exactly_ln_classes():
    net = example_net()
    net.layers[-1].weight.data[:] = 0
    found = check_first_loss(net, *batch())
    assert found.ok
    assert_allclose(found.loss, found.expected, rtol=1e-6)


def test_overfit():
    found = check_overfit(example_net(0.5), *batch(), FAST)
    assert found.ok and found.accuracy == 1 and len(found.losses) < 300
    assert found.losses[-1] < 0.01 <= min(found.losses[:-1])
    assert "learns by heart" in str(found) and f"{len(found.losses) - 1} updates" in str(found)


def test_overfit_takes_the_steps_of_the_optimizer():
    """The losses are those of a loop by hand."""
    (x, y), net = batch(), example_net()
    make = functools.partial(optim.SGD, lr=0.02, momentum=0.9)
    found = check_overfit(net, x, y, make, steps=5, target=1e-9)
    optimizer, losses = make(nn.FlatParameters(net.train())), []
    for _ in range(6):
        loss, dscores = layers.softmax_loss(net(x), y)
        losses.append(float(loss))
        net.backward(dscores)
        optimizer.step()
    assert found.losses == losses and not found.ok
    assert "does not learn" in str(found) and "after 5 updates" in str(found)


def test_overfit_that_takes_longer():
    found = check_overfit(example_net(), *batch(), FAST, steps=60, target=1e-9)
    assert not found.ok and "not come below 1e-09" in str(found) and found.accuracy == 1


def test_what_cannot_be_learned():
    (x, _), y = batch(), np.array([0, 1] * 6)
    x[:] = x[:1]
    found = check_overfit(example_net(), x, y, FAST, steps=60)
    assert not found.ok and found.accuracy == 0.5 and "equal images have different labels" in str(found)
    frozen = check_overfit(example_net().freeze(), *batch(), steps=3)
    assert not frozen.ok and frozen.losses[0] == frozen.losses[-1]


def test_overfit_that_diverges():
    make = functools.partial(optim.SGD, lr=1e30)
    with np.errstate(all="ignore"):
        found = check_overfit(example_net(), *batch(), make)
    assert not found.ok and "diverges" in str(found) and len(found.losses) < 10


@pytest.mark.parametrize("options, message", [({"steps": 0}, "steps: expected"), ({"target": 0}, "target: expected")])
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_overfit(example_net(), *batch(), **options)


@pytest.mark.parametrize("check", [check_first_loss, check_overfit])
def test_losses_by_name(check):
    with pytest.raises(ValueError, match="loss: expected"):
        check(example_net(), *batch(), loss="squared")


def test_hinge():
    (x, y), net = batch(), example_net()
    found = check_first_loss(net, x, y, "hinge")
    assert found.ok and found.expected == CLASSES - 1
    assert_allclose(found.loss, float(layers.svm_loss(net.train()(x), y)[0]))
    learned = check_overfit(net, x, y, FAST, loss="hinge")
    assert learned.ok and learned.losses[0] == found.loss


# ---- the command


NETS = ("--width", "4"), ("--net", "mlp", "--net-option", "hidden=[20]", "--preprocess", "ScaleToRange")


@pytest.mark.parametrize("options", [*NETS, (*NETS[0], "--loss", "hinge")])
def test_command(tmp_path, capsys, options):
    assert main(["check", "--data", str(save(tmp_path / "toy.npz")), "--lr", "0.01", *options]) == 0
    described, first, learned = capsys.readouterr().out.splitlines()
    assert "70 training and 30 test images" in described and "up to" in first and "20 images" in learned


def test_command_that_fails(tmp_path, capsys):
    path = str(save(tmp_path / "toy.npz"))
    assert main(["check", "--data", path, "--width", "2", "--steps", "1", "--images", "7"]) == 1
    assert "does not learn even this by heart: 7 images" in capsys.readouterr().out


def test_command_checks_what_training_begins_with(tmp_path, capsys):
    """The first loss is that of the first batch of a training with the same options, which has dropout."""
    path, run = str(save(tmp_path / "toy.npz")), tmp_path / "run"
    options = ["--data", path, "--width", "3", "--batch-size", "16", "--seed", "5"]
    main(["check", *options])
    said = capsys.readouterr().out
    assert main(["train", *options, "--epochs", "1", "--no-progress", "--out", str(run)]) == 0
    (first, *_) = read_records(run)
    assert f"The first loss is {first['loss']:.3g};" in said


@pytest.mark.parametrize("options", [("--lr", "0"), ("--images", "0"), ("--net", "alexnet")])
def test_refused_by_the_parser(options):
    with pytest.raises(SystemExit) as exit:
        main(["check", *options])
    assert exit.value.code == 2
