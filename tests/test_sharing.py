"""nn.distance_penalty: value and gradients."""

import numpy as np
import pytest
from layers_support import spread
from numpy.testing import assert_allclose

from fastcnn import nn


def pair():
    """Two nets of one encoder's shape, with heads of different sizes."""
    nets = []
    for seed, outputs in ((0, 2), (1, 3)):
        rng = np.random.default_rng(seed)
        encoder = nn.Sequential(nn.Linear(4, 5, rng=rng, dtype=np.float64), nn.ReLU())
        nets.append(nn.Sequential(encoder, nn.Linear(5, outputs, rng=rng, dtype=np.float64)))
    return nets


def test_value_and_gradients():
    first, second = pair()
    for net in (first, second):
        for i, (_, parameter) in enumerate(net.named_parameters()):
            parameter.grad[...] = spread(*parameter.data.shape, seed=i)
    before = {id(p): p.grad.copy() for net in (first, second) for _, p in net.named_parameters()}
    shared = first.layers[0].layers[0], second.layers[0].layers[0]
    found = nn.distance_penalty(first, second, 0.3, match="0.*")
    distance = sum(np.sum((getattr(shared[0], n).data - getattr(shared[1], n).data) ** 2) for n in ("weight", "bias"))
    assert isinstance(found, float)
    assert_allclose(found, 0.15 * distance, rtol=1e-12)
    changes = {id(p): p.grad - before[id(p)] for net in (first, second) for _, p in net.named_parameters()}
    for layer in shared:
        for _, parameter in layer.named_parameters():
            gradient, array, i = changes[id(parameter)], parameter.data, (0,) * parameter.data.ndim
            value, values = array[i], []
            for array[i] in (value + 1e-6, value - 1e-6):
                values.append(nn.distance_penalty(first, second, 0.3, match="0.*"))
            array[i] = value
            assert_allclose(gradient[i], (values[0] - values[1]) / 2e-6, rtol=1e-6, atol=1e-9)
    for net in (first, second):  # the heads were not meant
        for _, parameter in net.layers[1].named_parameters():
            assert not changes[id(parameter)].any()


def test_frozen_parameters_stay_and_pull():
    first, second = pair()
    first.freeze()
    assert nn.distance_penalty(first, second, 1, lambda name, shape: name.startswith("0")) > 0
    assert not any(parameter.grad.any() for _, parameter in first.named_parameters())
    assert second.layers[0].layers[0].weight.grad.any()


@pytest.mark.parametrize(
    "change, match, strength, message",
    [
        (None, "*", 1, r"second.1.weight: expected shape \(5, 2\), got \(5, 3\)"),
        (None, "encoder.*", 1, "match: expected parameters that both nets have, got none at all"),
        (lambda net: net.layers.pop(), "*", 1, r"match: expected .*, got \['1.bias', '1.weight'\]"),
        (None, "0.*", -1, "strength: expected a number"),
    ],
)
def test_refused(change, match, strength, message):
    first, second = pair()
    if change:
        change(second)
    with pytest.raises(ValueError, match=message):
        nn.distance_penalty(first, second, strength, match)
    assert not any(parameter.grad.any() for _, parameter in first.named_parameters())
