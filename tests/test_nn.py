"""fastcnn.nn: the stateful layers against fastcnn.layers and numerical gradients, and what they keep between steps."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from layers_support import assert_gradient, floor_in_use, layouts, spread  # noqa: F401  each test runs on each floor
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import layers as L
from fastcnn import nn, optim
from fastcnn.common.philox import derive_key
from fastcnn.layers.backend import backend

DOUBLE = dict(dtype=np.float64)


def generator():
    return np.random.default_rng(3)


def batchnorm(channels=4, **options):
    """A batch norm whose parameters and statistics are not the initial ones."""
    layer = nn.BatchNorm2d(channels, **options)
    state = layer.state_dict()
    layer.load_state_dict({name: 1.5 + spread(channels, seed=i) / 2 for i, name in enumerate(state)})
    return layer


def scaled(layer):
    """A layer whose parameters are not the initial ones."""
    for i, (_, parameter) in enumerate(layer.named_parameters()):
        parameter.data[...] = 1.5 + spread(*parameter.data.shape, seed=i) / 2
    return layer


def small_net(dtype=np.float64, **options):
    return nn.small_cnn((2, 9, 7), 3, width=3, dtype=dtype, seed=5, **options)


def convolutions(filters, stride=1, relu=True):
    """Two convolutions of images of 4 channels, each with its batch norm."""
    return nn.Sequential(
        nn.Conv2d(4, filters, 3, stride, 1, bias=False, rng=generator(), **DOUBLE),
        batchnorm(filters, relu=True, **DOUBLE),
        nn.Conv2d(filters, filters, 3, 1, 1, bias=False, rng=np.random.default_rng(4), **DOUBLE),
        batchnorm(filters, relu=relu, **DOUBLE),
    )


IMAGES, ROWS = (3, 4, 7, 6), (5, 6)
# name: (function that makes the layer, shape of its input)
LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 5, 3, padding=1, rng=generator(), **DOUBLE), IMAGES),
    "conv without bias": (lambda: nn.Conv2d(4, 2, 3, bias=False, rng=generator(), **DOUBLE), IMAGES),
    "conv with all options": (
        lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, rng=generator(), **DOUBLE),
        IMAGES,
    ),
    "linear": (lambda: nn.Linear(6, 4, rng=generator(), **DOUBLE), ROWS),
    "linear without bias": (lambda: nn.Linear(6, 4, bias=False, relu=True, rng=generator(), **DOUBLE), ROWS),
    "batchnorm": (lambda: batchnorm(**DOUBLE), IMAGES),
    "batchnorm of rows": (lambda: batchnorm(6, **DOUBLE), ROWS),
    "batchnorm and relu": (lambda: batchnorm(relu=True, **DOUBLE), IMAGES),
    "batchnorm in eval mode": (lambda: batchnorm(**DOUBLE).eval(gradients=True), IMAGES),
    "batchnorm and relu in eval mode": (lambda: batchnorm(relu=True, **DOUBLE).eval(gradients=True), IMAGES),
    "layer norm": (lambda: scaled(nn.LayerNorm(6, **DOUBLE)), ROWS),
    "layer norm of images": (lambda: scaled(nn.LayerNorm(4, **DOUBLE)), IMAGES),
    "group norm": (lambda: scaled(nn.GroupNorm(2, 4, eps=1e-2, **DOUBLE)), IMAGES),
    "group norm of rows": (lambda: scaled(nn.GroupNorm(3, 6, **DOUBLE)), ROWS),
    "instance norm": (lambda: scaled(nn.InstanceNorm2d(4, **DOUBLE)), IMAGES),
    "relu": (nn.ReLU, IMAGES),
    "leaky relu": (lambda: nn.LeakyReLU(0.3), IMAGES),
    "prelu": (lambda: nn.PReLU(4, 0.3, **DOUBLE), IMAGES),
    "prelu of one slope": (lambda: nn.PReLU(**DOUBLE), ROWS),
    "elu": (lambda: nn.ELU(1.3), IMAGES),
    "gelu": (nn.GELU, IMAGES),
    "gelu in its tanh form": (lambda: nn.GELU("tanh"), IMAGES),
    "sigmoid": (nn.Sigmoid, IMAGES),
    "tanh": (nn.Tanh, IMAGES),
    "maxout": (lambda: nn.Maxout(2), IMAGES),
    "maxout of rows": (lambda: nn.Maxout(3), ROWS),
    "add": (lambda: AddToItself(), IMAGES),
    "identity": (nn.Identity, IMAGES),
    "max-pool": (lambda: nn.MaxPool2d(2), IMAGES),
    "max-pool with all options": (lambda: nn.MaxPool2d((3, 2), (2, 1), (1, 0)), IMAGES),
    "average pool": (lambda: nn.AvgPool2d(2), IMAGES),
    "average pool with all options": (lambda: nn.AvgPool2d((3, 2), (2, 1), (1, 0)), IMAGES),
    "global average pool": (nn.GlobalAvgPool2d, IMAGES),
    "residual": (lambda: nn.Residual(convolutions(4, relu=False)), IMAGES),
    "residual with a shortcut": (lambda: nn.Residual(convolutions(5, 2), convolutions(5, 2, relu=False)), IMAGES),
    "residual of an activation": (lambda: nn.Residual(nn.ReLU()), IMAGES),
    "dropout": (lambda: FixedDropout(0.4, key=7), IMAGES),
    "dropout in eval mode": (lambda: nn.Dropout(0.4, key=7).eval(gradients=True), IMAGES),
    "flatten": (nn.Flatten, IMAGES),
    "sequence": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(168, 9, relu=True, rng=generator(), **DOUBLE), nn.ReLU()),
        IMAGES,
    ),
    "resnet20": (lambda: nn.resnet20(3, width=2, **DOUBLE), (3, 3, 9, 8)),
    "resnet18": (lambda: nn.resnet18(3, width=2, **DOUBLE), (3, 3, 64, 63)),
    "small_cnn": (lambda: small_net(drop=0.0), (4, 2, 9, 7)),
    "small_cnn in eval mode": (lambda: small_net().eval(gradients=True), (4, 2, 9, 7)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


ANY_SHAPE = nn.activation.Elementwise, nn.Dropout, nn.Residual, nn.Add, nn.Identity  # what those take, or may


class AddToItself(nn.Add):
    """x + x + x, as a layer of one input."""

    def forward(self, x):
        return super().forward(x, x, x)

    def backward(self, dout, need_dx=True):
        gradients = super().backward(dout, need_dx)
        return sum(gradients) if need_dx else None


class FixedDropout(nn.Dropout):
    """Dropout with the same mask in every step."""

    def forward(self, x):
        self.step = 0
        return super().forward(x)


# ---- forward and backward


@every_layer
def test_gradients(name):
    make, shape = LAYERS[name]
    layer, x = make(), spread(*shape)
    out = layer(x)
    dout = spread(*out.shape, seed=1)
    assert out.shape == (shape[0], *layer.output_shape(shape[1:]))
    dx = layer.backward(dout).copy()
    gradients = [(parameter.data, parameter.grad.copy()) for _, parameter in layer.named_parameters()]
    most = 12 if len(gradients) < 20 else 2
    for array, gradient in [(x, dx), *gradients]:
        assert_gradient(lambda: layer(x), array, dout, gradient, most=most, rtol=2e-5, atol=2e-6)


@every_layer
def test_without_the_gradient_of_the_input(name):
    make, shape = LAYERS[name]
    layer, x = make(), spread(*shape)
    dout = spread(*layer(x).shape, seed=1)
    layer.backward(dout)
    with_dx = [parameter.grad.copy() for _, parameter in layer.named_parameters()]
    for _, parameter in layer.named_parameters():
        parameter.grad[...] = np.nan
    assert layer.backward(dout, need_dx=False) is None
    for (_, parameter), gradient in zip(layer.named_parameters(), with_dx, strict=True):
        assert_array_equal(parameter.grad, gradient)


@every_layer
def test_layouts(name):
    make, shape = LAYERS[name]
    x = spread(*shape)
    layer = make()
    expected = layer(x).copy()
    dout = spread(*expected.shape, seed=1)
    expected_dx = layer.backward(dout).copy()
    for x_laid_out, dout_laid_out in zip(layouts(x).values(), layouts(dout).values(), strict=True):
        layer = make()
        assert_allclose(layer(x_laid_out), expected, rtol=1e-12, atol=1e-12)
        assert_allclose(layer.backward(dout_laid_out), expected_dx, rtol=1e-12, atol=1e-12)
        assert_array_equal(x_laid_out, x)  # inputs are left alone


@every_layer
def test_empty_batch(name):
    make, shape = LAYERS[name]
    layer = make()
    statistics = {key: value.copy() for key, value in layer.state_dict().items()}
    out = layer(np.empty((0, *shape[1:])))
    assert out.shape == (0, *layer.output_shape(shape[1:]))
    assert layer.backward(np.empty(out.shape)).shape == (0, *shape[1:])
    assert all(not parameter.grad.any() for _, parameter in layer.named_parameters())
    for key, value in layer.state_dict().items():
        assert_array_equal(value, statistics[key])


@every_layer
def test_frozen_layers(name):
    """The gradient of the input is as ever, those of the parameters are not computed."""
    make, shape = LAYERS[name]
    layer, x = make(), spread(*shape)
    dout = spread(*layer(x).shape, seed=1)
    expected = layer.backward(dout).copy()
    assert layer.freeze() is layer and not layer.learns
    assert all(not parameter.grad.any() for _, parameter in layer.named_parameters())
    for _, parameter in layer.named_parameters():
        parameter.grad[...] = np.nan
    assert_array_equal(layer.backward(dout), expected)
    assert layer.backward(dout, need_dx=False) is None
    assert all(np.isnan(parameter.grad).all() for _, parameter in layer.named_parameters())
    parameters = list(layer.named_parameters())
    assert layer.unfreeze() is layer and layer.learns == bool(parameters)
    layer.backward(dout, need_dx=False)
    assert not any(np.isnan(parameter.grad).any() for _, parameter in parameters)


def test_backward_passes_end_where_nothing_below_is_learned():
    class Spy(nn.Linear):
        def backward(self, dout, need_dx=True):
            asked.append((self, need_dx))
            return super().backward(dout, need_dx)

    def backward(need_dx=False):
        asked.clear()
        net(rows)
        net.backward(np.ones(ROWS), need_dx)
        return [(layers.index(layer), need) for layer, need in asked]

    asked, rows = [], spread(*ROWS)
    layers = [Spy(6, 6, **DOUBLE) for _ in range(5)]
    inner = nn.Sequential(layers[1], nn.ReLU(), layers[2])
    net = nn.Sequential(layers[0], nn.Residual(inner, layers[3]), layers[4])
    everything = [(4, True), (2, True), (1, True), (3, True)]
    assert backward() == [*everything, (0, False)]
    assert backward(need_dx=True) == [*everything, (0, True)]
    layers[0].freeze()
    assert backward() == [(4, True), (2, True), (1, False), (3, False)]
    layers[1].freeze()
    assert backward() == [(4, True), (2, False), (3, False)]
    assert backward(need_dx=True) == [*everything, (0, True)]
    layers[2].freeze(), layers[3].freeze()
    assert backward() == [(4, False)]
    net.freeze()
    assert backward() == []
    inner.unfreeze()
    assert backward() == [(4, True), (2, True), (1, False)]
    assert [copy.deepcopy(layer).learns for layer in layers] == [layer.learns for layer in layers]
    frozen = pickle.loads(pickle.dumps(nn.Sequential(nn.Linear(2, 2).freeze(), nn.Linear(2, 2))))
    assert [layer.learns for layer in frozen.layers] == [False, True]


@pytest.mark.parametrize("groups", [(), (optim.Group("8.*", lr=0.5), optim.Group("8.bias", weight_decay=0.2))])
def test_optimizers_leave_frozen_layers_alone(groups):
    """Bit for bit, also with momentum and decay; from the step after `freeze` to that after `unfreeze`."""
    net, x, y = small_net(drop=0.0), spread(4, 2, 9, 7), np.array([0, 2, 1, 1])
    optimizer = optim.SGD(nn.FlatParameters(net), 0.1, momentum=0.9, weight_decay=0.1, clip_norm=0.5, groups=groups)

    def moved():
        before = {name: parameter.data.copy() for name, parameter in net.named_parameters()}
        _, dscores = L.softmax_loss(net(x), y)
        net.backward(dscores, need_dx=False)
        optimizer.step()
        return {name for name, parameter in net.named_parameters() if not np.array_equal(parameter.data, before[name])}

    everything = {name for name, _ in net.named_parameters()}
    assert moved() == everything
    for layer in net.layers[:3]:
        layer.freeze()
    assert moved() == moved() == {name for name in everything if name[0] > "2"}
    net.freeze()
    assert moved() == set()
    net.unfreeze()
    assert moved() == everything


def assert_same(layer, x, forward, backward, names=("weight", "bias")):
    """The layer does what forward(x, ...) -> out, cache and backward(dout, cache) -> gradients do."""
    out, cache = forward(x)
    assert_allclose(layer(x), out, rtol=1e-13, atol=1e-13)
    dout = spread(*out.shape, seed=1)
    gradients = backward(dout, cache)
    dx, *others = gradients if isinstance(gradients, tuple) else (gradients,)
    assert_allclose(layer.backward(dout), dx, rtol=1e-12, atol=1e-13)
    parameters = dict(layer.named_parameters())
    for name, gradient in zip(names, others, strict=False):
        if name in parameters:
            assert_allclose(parameters[name].grad, gradient, rtol=1e-12, atol=1e-12)


def test_layers_are_those_of_the_functional_api():
    x, rows = spread(*IMAGES), spread(*ROWS)
    layer = nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, rng=generator(), **DOUBLE)
    layer.bias.data[...] = spread(6, seed=2)
    options = dict(stride=(2, 1), pad=(1, 2), dilation=(1, 2), groups=2)
    assert_same(layer, x, lambda x: L.conv_forward(x, layer.weight.data, layer.bias.data, **options), L.conv_backward)
    linear = nn.Linear(6, 4, rng=generator(), **DOUBLE)
    linear.bias.data[...] = spread(4, seed=2)
    assert_same(linear, rows, lambda x: L.affine_forward(x, linear.weight.data, linear.bias.data), L.affine_backward)
    assert_same(nn.ReLU(), x, L.relu_forward, L.relu_backward)
    param = {"pool_height": 3, "pool_width": 2, "stride": (2, 1), "pad": (1, 0)}
    pool = nn.MaxPool2d((3, 2), (2, 1), (1, 0))
    assert_same(pool, x, lambda x: L.max_pool_forward(x, param), L.max_pool_backward)
    assert_same(nn.Flatten(), x, L.flatten_forward, L.flatten_backward)
    param = {"pool_height": 2, "pool_width": 2, "stride": 2}
    assert_same(nn.AvgPool2d(2), x, lambda x: L.avg_pool_forward(x, param), L.avg_pool_backward)
    assert_same(nn.GlobalAvgPool2d(), x, L.global_avg_pool_forward, L.global_avg_pool_backward)
    dropout = nn.Dropout(0.3, key=11)
    key = derive_key(11, 1)
    assert_same(dropout, x, lambda x: L.dropout_forward(x, p=0.7, mode="train", key=key), L.dropout_backward)


def test_activations_are_those_of_the_functional_api():
    x, rows = spread(*IMAGES), spread(*ROWS)
    slope = spread(4, seed=2)
    prelu = nn.PReLU(4, **DOUBLE)
    prelu.weight.data[...] = slope
    assert_same(prelu, x, lambda x: L.prelu_forward(x, slope), L.prelu_backward)
    assert_same(nn.PReLU(**DOUBLE), rows, lambda x: L.prelu_forward(x, np.array([0.25])), L.prelu_backward)
    assert_same(nn.LeakyReLU(), x, L.leaky_relu_forward, L.leaky_relu_backward)
    assert_same(nn.LeakyReLU(-0.2), x, lambda x: L.leaky_relu_forward(x, -0.2), L.leaky_relu_backward)
    assert_same(nn.ELU(), x, L.elu_forward, L.elu_backward)
    assert_same(nn.ELU(0.6), x, lambda x: L.elu_forward(x, 0.6), L.elu_backward)
    assert_same(nn.GELU(), x, L.gelu_forward, L.gelu_backward)
    assert_same(nn.GELU(approximate="tanh"), x, lambda x: L.gelu_forward(x, "tanh"), L.gelu_backward)
    assert_same(nn.Sigmoid(), x, L.sigmoid_forward, L.sigmoid_backward)
    assert_same(nn.Tanh(), x, L.tanh_forward, L.tanh_backward)
    assert_same(nn.Maxout(2), x, lambda x: L.maxout_forward(x, 2), L.maxout_backward)


@pytest.mark.parametrize(
    "make, shape, forward",
    [
        (lambda: nn.LayerNorm(6, 1e-3, **DOUBLE), ROWS, L.layernorm_forward),
        (lambda: nn.LayerNorm(4, 1e-3, **DOUBLE), IMAGES, L.spatial_layernorm_forward),
        (lambda: nn.GroupNorm(3, 6, 1e-3, **DOUBLE), ROWS, lambda *args, **eps: L.groupnorm_forward(*args, 3, **eps)),
        (
            lambda: nn.GroupNorm(2, 4, 1e-3, **DOUBLE),
            IMAGES,
            lambda *args, **eps: L.spatial_groupnorm_forward(*args, 2, **eps),
        ),
        (lambda: nn.InstanceNorm2d(4, 1e-3, **DOUBLE), IMAGES, L.spatial_instancenorm_forward),
    ],
)
def test_group_norms_are_those_of_the_functional_api(make, shape, forward):
    layer, x = scaled(make()), spread(*shape)
    gamma, beta = layer.weight.data, layer.bias.data
    for mode in ("train", "eval"):  # is all one to these
        layer.train() if mode == "train" else layer.eval(gradients=True)
        assert_same(layer, x, lambda x: forward(x, gamma, beta, eps=1e-3), L.groupnorm_backward)


def test_a_sum_has_a_gradient_for_each_term():
    a, b, c, dout = (spread(*IMAGES, seed=seed) for seed in range(4))
    add = nn.Add()
    for terms in ((a, b), (a, b, c), (a, a), (a, b, a)):
        before = [term.copy() for term in terms]
        for gradients in (True, False):
            assert_allclose(add.eval(gradients)(*terms), sum(before), rtol=1e-14, atol=1e-14)
            for term, value in zip(terms, before, strict=True):
                assert_array_equal(term, value)
        add.train()(*terms)
        gradients = add.backward(dout)
        assert len(gradients) == len(terms) and not any(gradient.flags.writeable for gradient in gradients)
        for gradient in gradients:
            assert_array_equal(gradient, dout)
        assert add.backward(dout, need_dx=False) is None
    add.eval()
    with add.memory.passing(a):  # between layers it writes over the first term, if that is not also another one
        first = add.memory.take(a.shape, a)
        first[...] = a
        total = add(first, first)
        assert_allclose(total, 2 * a, rtol=1e-14)
        assert add(total, b) is total
        assert_allclose(total, 2 * a + b, rtol=1e-14, atol=1e-14)
    for wrong, message in (
        ((), "inputs: expected at least two, got 0"),
        ((a,), "inputs: expected at least two, got 1"),
        ((a, b[:-1]), r"inputs\[1\]: expected shape"),
        ((a, b, c[..., :1]), r"inputs\[2\]: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            add(*wrong)


@pytest.mark.parametrize("momentum", [0.9, 0.0, 1.0])
def test_batchnorm_is_that_of_the_functional_api(momentum):
    layer = batchnorm(momentum=momentum, eps=1e-3, **DOUBLE)
    gamma, beta = layer.weight.data, layer.bias.data
    param = dict(eps=1e-3, momentum=momentum)
    param |= dict(running_mean=layer.running_mean.copy(), running_var=layer.running_var.copy())
    for step in range(3):
        x = spread(*IMAGES, seed=step) + step
        param["mode"] = "train"
        assert_same(
            layer, x, lambda x: L.spatial_batchnorm_forward(x, gamma, beta, param), L.spatial_batchnorm_backward
        )
        assert_allclose(layer.running_mean, param["running_mean"], rtol=1e-13)
        assert_allclose(layer.running_var, param["running_var"], rtol=1e-13)
    statistics = layer.running_mean.copy(), layer.running_var.copy()
    out, _ = L.spatial_batchnorm_forward(x, gamma, beta, {**param, "mode": "test"})
    assert_allclose(layer.eval()(x), out, rtol=1e-13, atol=1e-13)
    assert_array_equal((layer.running_mean, layer.running_var), statistics)


def test_the_backward_pass_is_that_of_the_mode_of_the_forward_pass():
    x, dout = spread(*IMAGES), spread(*IMAGES, seed=1)
    for layer in (batchnorm(**DOUBLE), FixedDropout(0.5)):
        for mode in (True, False):
            (layer.train() if mode else layer.eval(gradients=True))(x)
            expected = layer.backward(dout).copy()
            layer.train(not mode)
            assert_array_equal(layer.backward(dout), expected)


def test_small_cnn_is_its_layers_one_after_the_other():
    net, x = small_net(drop=0.4), spread(4, 2, 9, 7)
    state = net.state_dict()
    scores = net(x).copy()
    out, _ = L.conv_forward(x, state["0.weight"], None, stride=1, pad=1)
    out, _ = L.spatial_batchnorm_forward(out, state["1.weight"], state["1.bias"], {"mode": "train"})
    pooling = {"pool_height": 2, "pool_width": 2, "stride": 2}
    out, _ = L.max_pool_forward(L.relu_forward(out)[0], pooling)
    out, _ = L.conv_forward(out, state["3.weight"], None, stride=1, pad=1)
    out, _ = L.spatial_batchnorm_forward(out, state["4.weight"], state["4.bias"], {"mode": "train"})
    out, _ = L.max_pool_forward(L.relu_forward(out)[0], pooling)
    out, _ = L.dropout_forward(out, p=0.6, mode="train", key=derive_key(derive_key(5, 1), 1))
    out, _ = L.affine_forward(out, state["8.weight"], state["8.bias"])
    assert_allclose(scores, out, rtol=1e-12, atol=1e-12)
    with backend("reference"):
        assert_allclose(small_net(drop=0.4)(x), scores, rtol=1e-12, atol=1e-12)


def test_training_steps_are_those_of_the_reference():
    def train(net):
        x, y = spread(4, 2, 9, 7), np.array([0, 2, 1, 1])
        flat = nn.FlatParameters(net)
        for _ in range(3):
            _, dscores = L.softmax_loss(net(x), y)
            net.backward(dscores, need_dx=False)
            flat.data -= 0.1 * flat.grad
        return [*(array.copy() for array in net.state_dict().values()), net.eval()(x).copy()]

    here = train(small_net())
    with backend("reference"):
        there = train(small_net())
    for a, b in zip(here, there, strict=True):
        assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 32, 32), (1, 5, 7), (3, 13, 4), (2, 11, 30)])
def test_small_cnn_of_any_image_size(shape):
    net = nn.small_cnn(shape, 10, width=4)
    features = 8 * (shape[1] // 4) * (shape[2] // 4)
    assert net.state_dict()["8.weight"].shape == (features, 10) and net.output_shape(shape) == (10,)
    x = spread(3, *shape, dtype=np.float32)
    scores = net(x)
    assert scores.shape == (3, 10) and scores.dtype == np.float32
    assert net.backward(np.ones_like(scores)).shape == x.shape
    assert all(np.isfinite(parameter.grad).all() for _, parameter in net.named_parameters())


def test_small_cnn_is_a_function_of_its_seed():
    first, again, other = (
        small_net().state_dict(),
        small_net().state_dict(),
        nn.small_cnn((2, 9, 7), 3, 3).state_dict(),
    )
    assert_array_equal(first["0.weight"], again["0.weight"])
    assert_array_equal(first["8.weight"], again["8.weight"])
    assert not (first["0.weight"] == other["0.weight"]).any()
    single = small_net(dtype=np.float32).state_dict()
    assert_array_equal(single["0.weight"], first["0.weight"].astype(np.float32))


def test_vgg11_learns_and_its_snapshot_agrees(floor_in_use):  # noqa: F811
    if floor_in_use == "reference":
        pytest.skip("too slow")
    net, x, y = nn.vgg11(4), spread(8, 3, 32, 32, dtype=np.float32), np.arange(8) % 4
    flat, losses = nn.FlatParameters(net), []
    for _ in range(4):
        loss, dscores = L.softmax_loss(net(x), y)
        net.backward(dscores, need_dx=False)
        flat.data -= 0.02 * flat.grad
        losses.append(loss)
    assert losses[-1] < losses[0] / 2
    expected = net.eval()(x)
    assert np.linalg.norm(net.inference()(x) - expected) <= 2e-5 * np.linalg.norm(expected)


# ---- buffers


@every_layer
@pytest.mark.parametrize("gradients", [True, False])
def test_buffers_are_reused(name, gradients):
    make, shape = LAYERS[name]
    layer, x = make(), spread(*shape)
    if not gradients:
        layer.eval()

    def step(n):
        out = layer(x[:n])
        if gradients:
            layer.backward(np.ones(out.shape))

    for _ in range(3):  # the second step may still give up small memory for larger
        step(shape[0])
    before = memory(layer)
    for n in (shape[0], shape[0] - 1, 1, shape[0]):
        step(n)
    assert memory(layer) == before


def memory(layer):
    """Addresses of all memory that a layer and those below it have kept."""
    kept = [*layer.memory.free, *(chunk for m in layer.modules() for chunk in vars(m).get("_buffers", {}).values())]
    return sorted(chunk.ctypes.data for chunk in kept)


def test_what_a_caller_holds_is_never_written_over():
    net = nn.Sequential(*convolutions(6).layers, nn.ReLU(), nn.Residual(nn.ReLU()), nn.Flatten())
    for gradients in (True, False):
        net.eval(gradients=gradients)
        x, other = spread(*IMAGES), spread(*IMAGES, seed=1)
        held = [x]
        for layer in net.layers:  # one by one, though they share memory
            held.append(layer(held[-1]))
        copies = [array.copy() for array in held]
        expected, again = net(x).copy(), net(x)
        if not gradients:
            net(other)
            assert_array_equal(again, expected)
            for array, copy in zip(held, copies, strict=True):
                assert_array_equal(array, copy)
            continue
        dout = spread(*expected.shape, seed=2)
        held = [net.backward(dout), dout]
        copies = [array.copy() for array in held]
        net(x)
        held.append(net.backward(held[1]))
        assert_array_equal(held[2], held[0])
        for layer in reversed(net.layers):
            held.append(layer.backward(held[-1] if layer is not net.layers[-1] else dout))
        assert_array_equal(held[-1], held[0])
        for array, copy in zip(held, copies, strict=False):
            assert_array_equal(array, copy)


def test_memory_is_lent_again_once_an_array_and_its_views_are_gone():
    memory = nn.memory.Memory()
    first = memory.take((4, 5), np.empty(0, np.float32))
    place, view = first.ctypes.data, first[1:].reshape(-1)
    assert place % 64 == 0 and first.flags.c_contiguous and first.flags.writeable
    del first
    assert memory.take((4, 5), np.empty(0, np.float32)).ctypes.data != place
    del view
    small, large = memory.take((3,), np.empty(0)), memory.take((5, 4), np.empty(0, np.float32))
    assert small.ctypes.data != large.ctypes.data and len(memory.free) == 0
    del small, large
    assert len(memory.free) == 2
    huge = memory.take((1000,), np.empty(0))  # in the place of one of them
    assert len(memory.free) == 1
    memory.take((1000,), np.empty(0))
    memory.take((10,), np.empty(0))
    assert [chunk.size for chunk in memory.free] == [8000]
    assert memory.over(huge) is not huge
    with memory.passing(huge) as (outer,):
        assert memory.over(outer) is not outer  # the caller's
        inner = memory.take((1000,), np.empty(0))
        assert memory.over(inner) is inner and memory.over(nn.memory.shared(inner)) is not inner
        assert memory.over(inner[::2]).flags.c_contiguous
        with memory.passing(inner) as (same,):
            assert same is inner
        assert memory.over(inner) is inner
        assert nn.memory.Memory().over(inner) is not inner
    assert memory.take((0, 3), np.empty(0, np.float32)).shape == (0, 3)


def test_copies_of_a_net_have_memory_of_their_own():
    net, x = small_net(drop=0.0), spread(4, 2, 9, 7)
    scores = net(x)
    net.backward(np.ones_like(scores))
    twin = copy.deepcopy(net)
    assert not any(vars(module).get("_buffers") for module in twin.modules())
    assert_array_equal(twin(x), scores)
    twin(spread(4, 2, 9, 7, seed=1))
    assert_array_equal(net(x), scores)
    assert_array_equal(pickle.loads(pickle.dumps(twin)).eval()(x), twin.eval()(x))


def test_the_modes_of_a_forward_pass():
    net, x = small_net(), spread(4, 2, 9, 7)
    out = net.eval(gradients=True)(x).copy()
    assert net.backward(np.ones_like(out)).shape == x.shape
    assert_array_equal(net.eval()(x), out)
    with pytest.raises(RuntimeError, match=r"keeps what it needs: train\(\), or eval\(gradients=True\)$"):
        net.backward(np.ones_like(out))
    net.train()
    with pytest.raises(RuntimeError, match="needs a forward pass before it$"):
        net.backward(np.ones_like(out))


def test_a_step_allocates_next_to_nothing(floor_in_use):  # noqa: F811
    if floor_in_use == "reference":
        pytest.skip("the reference allocates what it returns")
    x, y = spread(64, 8, 32, 32, dtype=np.float32), np.arange(64) % 10
    net = nn.Sequential(
        nn.BatchNorm2d(8), nn.ReLU(), nn.Residual(nn.BatchNorm2d(8)), nn.Residual(nn.ReLU(), nn.Dropout(0.2)),
        nn.MaxPool2d(2), nn.BatchNorm2d(8, relu=True), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip

    def step():
        _, dscores = L.softmax_loss(net(x), y)
        net.backward(dscores, need_dx=False)

    def allocated(run):
        for _ in range(2):
            run()
        tracemalloc.start()
        try:
            run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert allocated(step) < x.nbytes / 3  # packed panels, of each thread that takes part; the loss
    assert len(net.memory.free) <= 3
    net.eval()
    assert allocated(lambda: net(x)) < x.nbytes / 4


def test_gradients_take_three_buffers():
    x, net = spread(2, 3, 32, 32, dtype=np.float32), nn.resnet20(10, width=4)
    for _ in range(3):
        net.backward(np.ones_like(net(x)), need_dx=False)
        assert [chunk.size for chunk in net.memory.free] == [2 * 4 * 32 * 32 * 4] * 3
    before = memory(net)
    net(x[:1])
    net.backward(np.ones((1, 10), np.float32))
    assert memory(net) == before
    net.eval()(x)
    assert len(net.memory.free) <= 4


def test_buffers_grow_and_results_of_a_smaller_batch_are_right():
    net, x = small_net(drop=0.0).eval(), spread(6, 2, 9, 7)
    expected = net(x).copy()
    for rows in (slice(0, 2), slice(0, 6), slice(3, 4), slice(1, 6)):
        assert_allclose(net(x[rows]), expected[rows], rtol=1e-12, atol=1e-12)


def test_a_change_of_dtype_needs_new_buffers():
    relu = nn.ReLU()
    for dtype in (np.float32, np.float64, np.float32):
        x = spread(*IMAGES, dtype=dtype)
        assert relu(x).dtype == relu.backward(x).dtype == dtype


# ---- snapshots for inference


def trained(net, shape):
    """The net after a few forward passes in training mode, with parameters that are not the initial ones."""
    for i, (_, parameter) in enumerate(net.named_parameters()):
        parameter.data[...] += 0.2 * spread(*parameter.data.shape, seed=i)
    for i in range(2):
        net(spread(*shape, seed=i))
    return net.eval()


DENSE = nn.Sequential(
    nn.Dropout(), nn.Flatten(), nn.Linear(168, 9, bias=False, **DOUBLE), nn.BatchNorm2d(9, **DOUBLE), nn.ReLU(),
    nn.Linear(9, 4, **DOUBLE), nn.ReLU(), nn.BatchNorm2d(4, **DOUBLE),
)  # fmt: skip
SNAPSHOTS = {
    "resnet20": (nn.resnet20(5, width=4, **DOUBLE), (2, 3, 12, 12)),
    "resnet18": (nn.resnet18(5, width=4, stem="cifar", **DOUBLE), (2, 3, 16, 16)),
    "resnet18 with the stem for large images": (nn.resnet18(5, width=4, **DOUBLE), (2, 3, 64, 48)),
    "small_cnn": (small_net(), (4, 2, 9, 7)),
    "affine layers": (DENSE, IMAGES),
    "a layer": (nn.Conv2d(4, 6, 3, groups=2, **DOUBLE), IMAGES),
    "nested": (nn.Sequential(convolutions(6, relu=False), nn.Sequential(nn.ReLU(), nn.AvgPool2d(2))), IMAGES),
    "normalisation first": (nn.Sequential(batchnorm(**DOUBLE), nn.ReLU(), *convolutions(4).layers[:1]), IMAGES),
    "a block that ends in a ReLU": (nn.Residual(convolutions(4)), IMAGES),
    "a block with a shortcut": (nn.Residual(convolutions(6, 2, relu=False), convolutions(6, 2)), IMAGES),
    "activations and group norms": (
        nn.Sequential(
            nn.Conv2d(4, 6, 3, **DOUBLE),
            nn.Identity(),
            batchnorm(6, **DOUBLE),
            nn.GELU(),
            nn.GroupNorm(2, 6, **DOUBLE),
            nn.PReLU(6, **DOUBLE),
            nn.Sigmoid(),
            nn.Maxout(3),
        ),
        IMAGES,
    ),
    "a block without convolution": (nn.Residual(nn.Dropout(), nn.ReLU()), IMAGES),
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_snapshots_compute_what_the_net_does_in_test_mode(name):
    net, shape = copy.deepcopy(SNAPSHOTS[name][0]), SNAPSHOTS[name][1]
    trained(net, shape)
    snapshot, x = net.inference(), spread(*shape, seed=7)
    expected = net(x).copy()
    out, before = snapshot(x), x.copy()
    assert_allclose(out, expected, rtol=1e-10, atol=1e-10)
    for _, parameter in net.named_parameters():
        parameter.data += 1
    trained(net, shape)
    assert_array_equal(snapshot(x), out)
    assert_array_equal(x, before)
    assert snapshot.output_shape(shape[1:]) == expected.shape[1:]
    assert snapshot(x[:0]).shape == (0, *expected.shape[1:])


def test_snapshots_fold_what_they_can():
    def steps(net):
        snapshot = net.inference()
        return [[type(layer).__name__ for layer in step.layers] for step in snapshot._planned().steps]

    first, last, shortcut = ["Conv2d", "ReLU"], ["Conv2d", "Add"], ["Conv2d"]
    block, widening = [first, last], [shortcut, first, last]
    expected = [first, *(3 * block + 2 * (widening + 2 * block)), ["GlobalAvgPool2d"], ["Linear"]]
    assert steps(nn.Sequential(nn.resnet20(3, width=4, **DOUBLE))) == expected
    assert steps(DENSE) == [["Flatten"], ["Linear", "ReLU"], ["Linear", "ReLU"], ["BatchNorm2d"]]


def test_snapshots_of_single_precision():
    x = spread(8, 3, 16, 16, dtype=np.float32)
    net = nn.resnet20(10, width=8)
    for _ in range(20):  # the statistics settle
        net(x)
    exact = nn.resnet20(10, width=8, **DOUBLE)
    exact.load_state_dict(net.state_dict())
    out, right = net.inference()(x), exact.eval()(x.astype(np.float64))
    assert out.dtype == np.float32
    assert np.linalg.norm(out - right) <= 2e-5 * np.linalg.norm(right)


def test_snapshots_refuse():
    snapshot = small_net().inference()
    x = spread(4, 2, 9, 7)
    assert snapshot.eval() is snapshot.inference() is snapshot and not snapshot.state_dict()
    with pytest.raises(TypeError, match="x: expected float64, as the net's parameters, got float32"):
        snapshot(x.astype(np.float32))
    with pytest.raises(ValueError, match="x: expected shape"):
        snapshot(x[:, :1])
    with pytest.raises(RuntimeError, match="has no backward pass"):
        snapshot.backward(snapshot(x))
    for switch in (snapshot.train, lambda: snapshot.eval(gradients=True)):
        with pytest.raises(RuntimeError, match="cannot be trained"):
            switch()


# ---- state


def test_state_dict_round_trip():
    net, other = small_net(), nn.small_cnn((2, 9, 7), 3, width=3, seed=9)
    net(spread(4, 2, 9, 7))  # moves the statistics
    state = net.state_dict()
    assert list(state) == [
        "0.weight",
        *(f"1.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        "3.weight",
        *(f"4.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        "8.weight",
        "8.bias",
    ]
    assert [name for name, _ in net.named_parameters()] == [name for name in state if "running" not in name]
    arrays = other.state_dict()
    other.load_state_dict({name: value.tolist() for name, value in state.items()})
    for name, value in other.state_dict().items():
        assert value is arrays[name] and value.dtype == np.float32  # written into, not replaced
        assert_array_equal(value, state[name].astype(np.float32))
    net.load_state_dict(net.state_dict())


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda state: state.pop("8.bias"), r"missing \['8.bias'\], unknown nothing"),
        (lambda state: state.update(extra=np.ones(3)), r"missing nothing, unknown \['extra'\]"),
        (lambda state: state.update({"8.bias": np.ones(4)}), r"state\['8.bias'\]: expected shape \(3,\), got \(4,\)"),
        (lambda state: state.update({"8.bias": np.float64(1)}), r"state\['8.bias'\]: expected shape \(3,\), got \(\)"),
        (lambda state: state.update({"8.bias": ["a", "b", "c"]}), r"state\['8.bias'\]: expected numbers, got <U1"),
        (lambda state: state.update({"8.bias": np.ones(3, complex)}), "expected numbers, got complex128"),
        (lambda state: state.update({"8.bias": [[1], [1, 2], [3]]}), r"state\['8.bias'\]: expected an array"),
    ],
)
def test_load_state_dict_refuses_and_changes_nothing(change, message):
    net = small_net()
    before = {name: value.copy() for name, value in net.state_dict().items()}
    state = {name: value + 1 for name, value in net.state_dict().items()}
    change(state)
    with pytest.raises(ValueError, match=message):
        net.load_state_dict(state)
    for name, value in net.state_dict().items():
        assert_array_equal(value, before[name])


def test_flat_parameters_are_views():
    net = small_net()
    before = {name: parameter.data.copy() for name, parameter in net.named_parameters()}
    flat = nn.FlatParameters(net)
    assert flat.data.size == flat.grad.size == sum(map(np.size, before.values()))
    parameters = dict(net.named_parameters())
    assert {name for name, *_ in flat.names} == parameters.keys()
    assert [len(shape) == 1 for shape in flat.shapes] == [False] * 3 + [True] * 5  # those of one axis behind the others
    for (name, first, last), shape in zip(flat.names, flat.shapes, strict=True):
        parameter = parameters[name]
        assert shape == parameter.data.shape
        assert_array_equal(parameter.data, before[name])
        assert_array_equal(flat.data[first:last], before[name].ravel())
        assert np.shares_memory(parameter.data, flat.data) and np.shares_memory(parameter.grad, flat.grad)
    out = net(spread(4, 2, 9, 7))
    net.backward(np.ones_like(out))
    assert_array_equal(flat.grad, np.concatenate([parameters[name].grad.ravel() for name, *_ in flat.names]))
    assert flat.grad.any()
    flat.data[...] = 0
    assert not net.eval()(spread(4, 2, 9, 7)).any()
    net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})
    assert (flat.data == 1).all()


@pytest.mark.parametrize("net", [nn.ReLU(), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, dtype=np.float64))])
def test_flat_parameters_refuse(net):
    with pytest.raises(ValueError, match="^net: expected parameters of one dtype, got .*(none|float32.*float64)"):
        nn.FlatParameters(net)


def test_modes_reach_all_layers():
    net = nn.Sequential(nn.Sequential(nn.Dropout(), nn.ReLU()), nn.Dropout())
    assert net.eval() is net and not any(module.training for module in net.modules())
    assert net.train() is net and all(module.training for module in net.modules())
    assert len(list(net.modules())) == 5


# ---- dropout


def test_dropout_masks():
    x = np.ones((64, 100))
    dropout = nn.Dropout(0.3, key=2**64 - 1)
    masks = [dropout(x).copy() for _ in range(3)]
    for mask in masks:
        assert_allclose(np.unique(mask), [0, 1 / 0.7])
        assert abs(np.mean(mask == 0) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / x.size)
        assert sum(np.array_equal(mask, other) for other in masks) == 1  # a new mask in every step
    same, other = nn.Dropout(0.3, key=2**64 - 1), nn.Dropout(0.3, key=4)
    for mask in masks:
        assert_array_equal(same(x), mask)
        assert not np.array_equal(other(x), mask)
    assert_array_equal(dropout.backward(x), masks[-1])  # the mask of the last forward pass
    assert dropout.eval(gradients=True)(x) is x and dropout.backward(x) is x
    assert dropout.step == 3  # evaluation in between changes no mask
    assert nn.Dropout(0)(x) is x


# ---- initialisers


def assert_drawn(array, variance, distribution="normal"):
    """Mean 0, the variance, and the shape of the distribution, each within four standard errors of its estimate."""
    n, x = array.size, array.astype(np.float64).ravel()
    kurtosis, of_eighth = {"normal": (3, 105), "uniform": (9 / 5, 9)}[distribution]  # E x^4, E x^8 at variance 1
    assert abs(x.mean()) < 4 * math.sqrt(variance / n)
    assert abs(np.mean(x**2) / variance - 1) < 4 * math.sqrt((kurtosis - 1) / n)
    assert abs(np.mean(x**4) / variance**2 - kurtosis) < 4 * math.sqrt((of_eighth - kurtosis**2) / n)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("shape, fan_in, fan_out", [((300, 200), 300, 200), ((64, 32, 3, 5), 480, 960)])
def test_initialisers_that_look_at_the_shape(distribution, shape, fan_in, fan_out):
    def check(array, variance):
        assert array.shape == shape and array.dtype == np.float32
        assert_drawn(array, variance, distribution)

    init = nn.initialisers
    check(init.xavier(generator(), shape, distribution), 1 / fan_in)
    check(init.xavier(generator(), shape, distribution, form="both"), 2 / (fan_in + fan_out))
    check(init.kaiming(generator(), shape, distribution), 2 / fan_in)


def test_other_initialisers():
    init = nn.initialisers
    assert init.constant((2, 3)).dtype == np.float32 and not init.constant((2, 3)).any()
    assert_array_equal(init.constant(4, 1.5, np.float64), [1.5] * 4)
    assert_drawn(init.normal(generator(), 20_000, dtype=np.float64), 0.01**2)
    assert_drawn(init.normal(generator(), 20_000, 1), 1)
    assert_drawn(init.uniform(generator(), 20_000, 0.5), 0.5**2, "uniform")
    assert_array_equal(init.kaiming(generator(), (5, 4)), init.kaiming(generator(), (5, 4)))


def test_initialisers_refuse():
    init = nn.initialisers
    with pytest.raises(ValueError, match=r"^shape: expected .*, got \(3, 4, 5\)"):
        init.kaiming(generator(), (3, 4, 5))
    with pytest.raises(ValueError, match="^form: expected one of in, both, got 'out'"):
        init.xavier(generator(), (3, 4), form="out")
    with pytest.raises(ValueError, match="^distribution: expected one of normal, uniform, got 'cauchy'"):
        init.kaiming(generator(), (3, 4), "cauchy")


def test_layers_are_initialised_as_they_say():
    conv = nn.Conv2d(64, 128, 3, rng=generator())
    assert_allclose(conv.weight.data.var(), 2 / (9 * 64), rtol=0.05)
    assert not conv.bias.data.any() and nn.Conv2d(3, 4, 3, bias=False).bias is None
    assert_allclose(nn.Linear(500, 300, rng=generator()).weight.data.var(), 1 / 500, rtol=0.05)
    assert_allclose(nn.Linear(500, 300, relu=True, rng=generator()).weight.data.var(), 2 / 500, rtol=0.05)
    assert not np.array_equal(nn.Linear(5, 3).weight.data, nn.Linear(5, 3).weight.data)  # a fresh generator each
    norm = nn.BatchNorm2d(3)
    assert_array_equal(list(norm.state_dict().values()), [[1] * 3, [0] * 3, [0] * 3, [1] * 3])


# ---- errors


def test_layers_that_stand_twice_are_refused():
    layer, relu = nn.Linear(4, 4), nn.ReLU()
    for make in (
        lambda: nn.Sequential(layer, relu, layer),
        lambda: nn.Sequential(layer, nn.Sequential(relu, layer)),
        lambda: nn.Sequential(nn.Residual(layer), layer),
    ):
        with pytest.raises(ValueError, match="^modules: expected different layers, got one of them twice"):
            make()
    for shortcut in (layer, nn.Sequential(relu, layer)):
        with pytest.raises(ValueError, match="^shortcut: expected different layers, got one of them twice"):
            nn.Residual(layer, shortcut)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: nn.Conv2d(4, 6, 0), ValueError, "kernel_size"),
        (lambda: nn.Conv2d(4, 6, (3, 3, 3)), ValueError, "kernel_size"),
        (lambda: nn.Conv2d(4, 6, 3, stride=0), ValueError, "stride"),
        (lambda: nn.Conv2d(4, 6, 3, padding=-1), ValueError, "padding"),
        (lambda: nn.Conv2d(4, 6, 3, groups=4), ValueError, "groups: expected a divisor of 4 and 6, got 4"),
        (lambda: nn.Conv2d(0, 6, 3), ValueError, "in_channels"),
        (lambda: nn.Conv2d(4, 6.0, 3), TypeError, "out_channels"),
        (lambda: nn.Conv2d(4, 6, 3, dtype=np.float16), TypeError, "expected float32 or float64, got float16"),
        (lambda: nn.Linear(0, 3), ValueError, "in_features"),
        (lambda: nn.Linear(3, -1), ValueError, "out_features"),
        (lambda: nn.BatchNorm2d(0), ValueError, "channels"),
        (lambda: nn.BatchNorm2d(3, eps=-1), ValueError, "eps"),
        (lambda: nn.BatchNorm2d(3, momentum=1.1), ValueError, "momentum"),
        (lambda: nn.BatchNorm2d(3, dtype=np.int64), TypeError, "expected float32 or float64, got int64"),
        (lambda: nn.GroupNorm(3, 4), ValueError, "groups: expected a divisor of C = 4, got 3"),
        (lambda: nn.GroupNorm(0, 4), ValueError, "groups"),
        (lambda: nn.LayerNorm(0), ValueError, "channels"),
        (lambda: nn.InstanceNorm2d(3, eps=-1), ValueError, "eps"),
        (lambda: nn.PReLU(0), ValueError, "channels"),
        (lambda: nn.PReLU(slope="a"), TypeError, "slope"),
        (lambda: nn.LeakyReLU(math.nan), ValueError, "slope"),
        (lambda: nn.ELU("a"), TypeError, "alpha"),
        (lambda: nn.GELU("erf"), ValueError, "approximate: expected one of 'none', 'tanh', got 'erf'"),
        (lambda: nn.Maxout(0), ValueError, "pieces"),
        (lambda: nn.Maxout(3).output_shape((4, 5, 5)), ValueError, "pieces: expected a divisor of C = 4, got 3"),
        (lambda: nn.MaxPool2d(0), ValueError, "kernel_size"),
        (lambda: nn.MaxPool2d(2, 0), ValueError, "stride"),
        (lambda: nn.MaxPool2d((4, 2), padding=2), ValueError, "padding: expected at most half the window"),
        (lambda: nn.Dropout(1), ValueError, r"drop: expected a number in \[0, 1\)"),
        (lambda: nn.Dropout(-0.1), ValueError, "drop"),
        (lambda: nn.Dropout(math.nan), ValueError, "drop"),
        (lambda: nn.Dropout(0.5, key=-1), ValueError, "key"),
        (lambda: nn.Dropout(0.5, key=2**64), ValueError, "key"),
        (lambda: nn.Sequential(*[nn.ReLU()] * 2), ValueError, "modules: expected different layers"),
        (lambda: nn.small_cnn((1, 3, 8), 10), ValueError, "input_shape: expected images of at least 4 x 4, got 3 x 8"),
        (lambda: nn.small_cnn((1, 8, 8), 0), ValueError, "out_features"),
        (lambda: nn.small_cnn((1, 8, 8), 10, width=0), ValueError, "out_channels"),
    ],
)
def test_refused_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@every_layer
def test_refused_inputs(name):
    make, shape = LAYERS[name]
    layer, x = make(), spread(*shape)
    with pytest.raises(TypeError, match="x: expected float32 or float64, got int64"):
        layer(np.zeros(shape, np.int64))
    if list(layer.named_parameters()):
        with pytest.raises(TypeError, match="x: expected float64, as the layer's parameters, got float32"):
            layer(x.astype(np.float32))
        if name != "prelu of one slope":
            with pytest.raises(ValueError, match="expected"):
                layer(spread(shape[0], shape[1] + 1, *shape[2:]))
    if not isinstance(layer, ANY_SHAPE):
        with pytest.raises(ValueError, match="x: expected shape"):
            layer(spread(7))
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
        with pytest.raises(ValueError, match="x: expected shape"):
            layer(spread(2, 2, 2, 2, 2))


@every_layer
def test_refused_gradients(name):
    make, shape = LAYERS[name]
    layer, x = make(), spread(*shape)
    with pytest.raises(RuntimeError, match="needs a forward pass"):
        layer.backward(x)
    out = layer(x)
    dout = np.ones(out.shape)
    for wrong in (dout[:-1], dout[..., :-1], dout[None], np.ones(out.size)):
        with pytest.raises(ValueError, match="dout: expected shape"):
            layer.backward(wrong)
    with pytest.raises(TypeError, match="dout: expected float64, as the layer's output, got float32"):
        layer.backward(dout.astype(np.float32))


def test_no_backward_pass_after_a_forward_pass_that_failed():
    layer = nn.Linear(6, 4, **DOUBLE)
    layer(spread(5, 6))
    with pytest.raises(ValueError, match=r"x: expected shape \(5, 6\), got \(5, 3\)"):
        layer(spread(5, 3))
    with pytest.raises(RuntimeError, match="needs a forward pass"):
        layer.backward(np.ones((5, 4)))


def test_images_smaller_than_the_window():
    for layer in (nn.Conv2d(1, 1, 5), nn.MaxPool2d(5)):
        with pytest.raises(ValueError, match="expected to fit into the padded image"):
            layer(spread(2, 1, 4, 9, dtype=np.float32))
