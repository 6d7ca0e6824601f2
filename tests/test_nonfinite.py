"""Trainings whose numbers cease to be finite: the message names the first layer where that shows."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from train_support import images

from fastcnn import data, layers, nn, optim
from fastcnn.train import Trainer
from fastcnn.train.nonfinite import first_nonfinite, nonfinite_parameter


def net(dtype=np.float64):
    return nn.small_cnn((1, 8, 9), 3, 2, 0.4, seed=1, dtype=dtype).train()


def batch(dtype=np.float64):
    x, y = images(7, 0)
    return x[:, None].astype(dtype) / 100, y


def found(net, x, y, loss=layers.softmax_loss):
    """What is found, and that the net is as it was."""
    before = {name: np.copy(array) for name, array in net.state_dict().items()}
    counts, gradients = net.counts(), [parameter.grad.copy() for _, parameter in net.named_parameters()]
    text = first_nonfinite(net, net.counts(), x, y, loss)
    for name, array in net.state_dict().items():
        assert_array_equal(array, before[name])
    for (_, parameter), gradient in zip(net.named_parameters(), gradients, strict=True):
        assert_array_equal(parameter.grad, gradient)
    assert net.counts() == counts and net.training and net.gradients
    return text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name, layer", [("0.weight", "0 (Conv2d)"), ("4.bias", "4 (BatchNorm2d)"), ("8.bias", "8 (Linear)")]
)
def test_parameters(name, layer, bad):
    ours, (x, y) = net(), batch()
    dict(ours.named_parameters())[name].data.reshape(-1)[-1] = bad
    kind = name.partition(".")[2]
    assert found(ours, x, y) == f"{kind} of layer {layer} is not finite, after a step of finite gradients"
    assert nonfinite_parameter(ours) == found(ours, x, y)
    dict(ours.named_parameters())["3.weight"].grad[:] = np.nan  # of the step before
    dict(ours.named_parameters())["0.weight"].grad[:] = np.nan
    assert found(ours, x, y).endswith(
        "after a step in which the first gradient that was not finite was that of layer 3 (Conv2d)"
    )


@pytest.mark.parametrize(
    "first, named",
    [(0, "0 (Conv2d)"), (1, "2 (ReLU), behind layer 1 (Conv2d), of which none is kept"), (4, "4 (Linear)")],
)
def test_outputs(first, named):
    """Of several layers whose outputs overflow the first, though the weights are finite."""
    x, y = batch(np.float32)
    rng = np.random.default_rng()
    convolutions = [nn.Conv2d(channels, 2, 3, rng=rng, dtype=np.float32) for channels in (1, 2)]
    ours = nn.Sequential(*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(40, 3, rng=rng, dtype=np.float32))
    for layer in ours.layers[first:]:
        if layer.learns:
            layer.weight.data[:] = 3e38
    assert found(ours, 10 * x, y) == f"the first output that is not finite is that of layer {named}"
    assert nonfinite_parameter(ours) is None


def test_outputs_within_blocks():
    ours = nn.resnet20(width=2).train()
    x = np.random.default_rng().standard_normal((4, 3, 16, 16)).astype(np.float32)
    for name in ("2.main.2", "5.shortcut.0"):
        weight = dict(ours.named_parameters())[f"{name}.weight"].data
        weight[:] = 3e38
        assert f"the first output that is not finite is that of layer {name} (Conv2d)" in found(ours, x, np.arange(4))
        weight[:] = 1


def test_statistics():
    """In test mode they are to blame; in training the batch made them."""
    ours, (x, y) = net(), batch()
    ours.layers[1].running_var[1] = np.inf
    assert "is not finite" not in found(ours, x, y)
    ours.eval(gradients=True)
    text = first_nonfinite(ours, ours.counts(), x, y, layers.softmax_loss)
    assert text == "running_var of layer 1 (BatchNorm2d) is not finite"


def test_images_labels_and_losses():
    ours, (x, y) = net(), batch()
    soft = np.eye(3)[y]
    assert found(ours, x, soft) == "with the batch run once more all is finite"
    soft[2, 1] = np.nan
    text = found(ours, x, soft)
    assert "all layers are finite, the loss itself is not" in text and "labels that are not finite" in text
    x[3, 0, 1, 1] = np.nan
    assert found(ours, x, y) == "the images that the first layer is given are not finite"
    single, (x, y) = net(np.float32), batch(np.float32)
    single.layers[-1].bias.data[:] = [3e38, -3e38, 3e38]
    text = found(single, x, y, layers.svm_loss)
    assert text == "all layers are finite, the loss itself is not, with scores of up to 3e+38"


def test_gradients():
    """All layers and the loss are finite, one gradient overflows: that of the last layer where it does."""
    ours, (x, y) = net(np.float32), batch(np.float32)

    def steep(scores, labels):
        loss, dscores = layers.softmax_loss(scores, labels)
        return loss, dscores * np.float32(1e38)

    ours.layers[-1].weight.data[:] *= 100
    assert found(ours, x, y, steep).startswith("the first gradient that was not finite was that of layer ")


def trainer(lr=0.01, dtype=np.float32, epochs=2, **options):
    x, y = images(70, 0)
    x = x[:, None]
    ours = net(dtype)
    optimizer = optim.SGD(nn.FlatParameters(ours), lr, 0.9)
    batches = data.Batches(x, y, 16, seed=2)
    return Trainer(ours, optimizer, batches, data.Standardize.fit(x), lambda t: 1.0, epochs, dtype, **options)


def test_the_mask_is_that_of_the_step(monkeypatch):
    """The layers run again as in the step that went wrong, whichever it was."""
    ours, counts = trainer(), []
    monkeypatch.setattr("fastcnn.train.loop.first_nonfinite", lambda net, before, *batch: counts.append(before) or "x")
    step = optim.SGD.step

    def spoil(self):
        step(self)
        if self.steps == 8:
            self.parameters.data[:] = np.nan

    monkeypatch.setattr(optim.SGD, "step", spoil)
    with pytest.raises(
        FloatingPointError, match=r"in epoch 2, step 4: training has diverged \(x\); a lower .* than 0.01"
    ):
        ours.fit()
    assert counts == [{"6.step": 8}] and ours.net.counts() == {"6.step": 9}


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """The rate alone makes them so, at the first step; the loss of that was finite."""
    ours = trainer(lr=1e39, checkpoint=tmp_path / "checkpoint.safetensors", checkpoint_minutes=0)
    message = (
        r"the weights are not finite in epoch 1 after step 1: training has diverged \(weight of layer 0 \(Conv2d\)"
    )
    with pytest.raises(FloatingPointError, match=message), np.errstate(all="ignore"):
        ours.fit()
    assert not list(tmp_path.iterdir())


def test_labels_out_of_range():
    ours = trainer()
    ours.batches.y[5] = 3
    with pytest.raises(ValueError, match=r"y: expected labels in \[0, 3\), got 3"):
        ours.fit()
