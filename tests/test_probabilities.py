"""fastcnn.train's class probabilities, and Monte-Carlo dropout."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import data, nn
from fastcnn.train import monte_carlo
from fastcnn.train.probabilities import softmax

RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 4))


def make_net(drop=0.4, dtype=np.float64):
    """Batch norm with statistics of its own, dropout, an affine layer."""
    net = nn.Sequential(
        nn.BatchNorm2d(4, dtype=dtype),
        nn.Dropout(drop, key=3),
        nn.Linear(4, 3, rng=np.random.default_rng(5), dtype=dtype),
    )
    norm = net.layers[0]
    norm.running_mean[...], norm.running_var[...] = [0.5, -1, 2, 0], [2, 0.5, 1, 3]
    return net


def every_mask(net, x, drop):
    """Mean and standard deviation of the probabilities over all masks, each with its weight."""
    norm, _, linear = net.layers
    features = (x - norm.running_mean) / np.sqrt(norm.running_var + norm.eps)
    weights, found = [], []
    for mask in itertools.product((0, 1), repeat=4):
        scores = features * mask / (1 - drop) @ linear.weight.data + linear.bias.data
        exponentials = np.exp(scores)
        found.append(exponentials / exponentials.sum(axis=1, keepdims=True))
        weights.append((1 - drop) ** sum(mask) * drop ** (4 - sum(mask)))
    mean = np.average(found, axis=0, weights=weights)
    return mean, np.sqrt(np.average((found - mean) ** 2, axis=0, weights=weights))


@pytest.mark.parametrize("batch_size", [3, 256])
def test_it_is_the_average_over_all_masks(batch_size):
    net = make_net()
    found, expected = monte_carlo(net, X, 3000, dtype=np.float64, batch_size=batch_size), every_mask(net, X, 0.4)
    assert_allclose(found.mean, expected[0], atol=0.02)
    assert_allclose(found.std, expected[1], atol=0.02)
    assert_allclose(found.mean.sum(axis=1), 1)
    assert abs(found.mean - softmax(net.eval()(X))).max() > 0.03  # which is the net of the mean mask


def test_the_net_stays_as_it_is():
    """Also between a forward and a backward pass of training."""
    nets = make_net().train(), make_net().train()
    for net in nets:
        net(X)
    before = {name: array.copy() for name, array in nets[1].state_dict().items()}
    global_state = np.random.get_state()[1].copy()
    monte_carlo(nets[1], X[:2], 3)
    assert all(module.training and module.gradients for module in nets[1].modules())
    assert nets[1].layers[1].step == 1 and nets[1].layers[1].key == 3
    for name, array in nets[1].state_dict().items():
        assert_array_equal(array, before[name])
    assert_array_equal(np.random.get_state()[1], global_state)
    dout = RNG.standard_normal((7, 3))
    assert_array_equal(nets[1].backward(dout), nets[0].backward(dout))


def test_the_seed_alone_says_which_masks():
    net, trained = make_net(), make_net().train()
    trained(X)
    for layer, other in zip(net.layers, trained.layers, strict=True):
        for name, array in layer.state_dict().items():
            other.state_dict()[name][...] = array
    first, again, other = (monte_carlo(*a, 5, seed=s) for a, s in (((net, X), 1), ((trained, X), 1), ((net, X), 2)))
    assert_array_equal(first, again)
    assert abs(first.mean - other.mean).max() > 0.01
    assert not monte_carlo(net, X, 1).std.any() and monte_carlo(net, X, 5).std.any()


def test_layers_of_the_same_key_drop_different_elements():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    x = np.full((1, 4000), 1.0)
    kept = monte_carlo(net, x, 1, dtype=np.float64).mean > 1 / 8000
    assert 0.2 < kept.mean() < 0.3  # not a half


def test_images_are_preprocessed():
    dataset = data.load_fashion_mnist()
    preprocess = data.Standardize.fit(dataset.x_train[:100])
    net = nn.small_cnn((1, 28, 28), 10, width=2)
    found = monte_carlo(net, dataset.x_test[:5], 4, preprocess, batch_size=2)
    ready = monte_carlo(net, preprocess.apply(dataset.x_test[:5]), 4, batch_size=2)
    assert found.mean.shape == found.std.shape == (5, 10)
    assert_array_equal(found, ready)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(net=nn.Sequential(nn.Linear(4, 3))), "net: expected layers of nn.Dropout that drop something"),
        (dict(net=make_net(drop=0)), "found none"),
        (dict(x=X[:0]), "x: expected images, got none"),
        (dict(samples=0), "samples: expected an int of at least 1"),
        (dict(batch_size=0), "batch_size: expected an int of at least 1"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        monte_carlo(**{"net": make_net(), "x": X, **arguments})


def test_softmax_of_extreme_scores():
    scores = np.array([[1e30, 0, -1e30], [5, 5, 5], [0, np.log(3), -np.inf]], np.float32)
    assert_allclose(softmax(scores), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.25, 0.75, 0]], rtol=1e-7)
    assert softmax(scores).dtype == np.float64
