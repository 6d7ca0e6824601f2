"""fastcnn.nn.Graph, and how nets run: gradients of whole nets, what is fused, what is shared, what is kept."""

import copy
import pickle

import numpy as np
import pytest
from layers_support import assert_gradient, floor_in_use, spread  # noqa: F401  each test runs on each floor
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import layers as L
from fastcnn import nn
from fastcnn.nn.memory import Memory

DOUBLE = dict(dtype=np.float64)


def conv(channels, filters, size=3, seed=0, **options):
    layer = nn.Conv2d(channels, filters, size, padding=size // 2, rng=np.random.default_rng(seed), **options, **DOUBLE)
    if layer.bias is not None:
        layer.bias.data[...] = spread(filters, seed=seed) / 4
    return layer


def linear(features, outputs, seed=0):
    return nn.Linear(features, outputs, rng=np.random.default_rng(seed), **DOUBLE)


def norm(channels, relu=False, seed=0):
    layer = nn.BatchNorm2d(channels, relu=relu, **DOUBLE)
    for i, (_, array) in enumerate(layer.state_dict().items()):
        array[...] = 1.5 + spread(channels, seed=seed + i) / 2
    return layer


# ---- nets


def chain():
    """A VGG block and a head, as a graph."""
    x = nn.Input()
    h = nn.MaxPool2d(2)(nn.ReLU()(conv(3, 4)(x)))
    h = nn.ReLU()(conv(4, 5, seed=1)(h))
    return nn.Graph(x, linear(5, 3)(nn.GlobalAvgPool2d()(h)))


def residual_by_hand():
    """Two residual blocks, of which one widens, written as sums."""
    x = nn.Input()
    h = nn.ReLU()(norm(4)(conv(3, 4, bias=False)(x)))
    main = nn.ReLU()(norm(4, seed=1)(conv(4, 4, seed=5, bias=False)(h)))
    h = nn.ReLU()(norm(4, seed=2)(conv(4, 4, seed=1, bias=False)(main)) + h)
    wide = norm(6, seed=3)(conv(4, 6, seed=2, bias=False)(h))
    h = nn.ReLU()(wide + norm(6, seed=4)(conv(4, 6, 1, seed=3, bias=False)(h)))
    return nn.Graph(x, linear(6, 3)(nn.GlobalAvgPool2d()(h)))


def residual_of_blocks():
    """The net of `residual_by_hand`, of ready-made blocks."""
    main = nn.Sequential(
        conv(4, 4, seed=5, bias=False), norm(4, True, seed=1), conv(4, 4, seed=1, bias=False), norm(4, seed=2)
    )
    shortcut = nn.Sequential(conv(4, 6, 1, seed=3, bias=False), norm(6, seed=4))
    return nn.Sequential(
        conv(3, 4, bias=False), norm(4, True), nn.Residual(main),
        nn.Residual(nn.Sequential(conv(4, 6, seed=2, bias=False), norm(6, seed=3)), shortcut),
        nn.GlobalAvgPool2d(), linear(6, 3),
    )  # fmt: skip


def two_and_two():
    """Two inputs and two outputs; the part between is used by both."""
    a, b = nn.Input(), nn.Input()
    h = nn.ReLU()(conv(3, 4)(a) + conv(2, 4, seed=1)(b))
    left = nn.GlobalAvgPool2d()(norm(4, True)(conv(4, 4, seed=2)(h)))
    right = linear(4, 2)(nn.GlobalAvgPool2d()(nn.Tanh()(h)))
    return nn.Graph([a, b], [linear(4, 3, seed=1)(left), right])


def inception():
    """Branches that are concatenated, one of which is also used alone."""
    x = nn.Input()
    one = nn.ReLU()(conv(3, 2, 1)(x))
    three = nn.ReLU()(conv(2, 3, seed=1)(one))
    pooled = conv(3, 2, 1, seed=2)(nn.AvgPool2d(3, 1, 1)(x))
    h = nn.Concatenate()(one, three, pooled)
    return nn.Graph(x, linear(7, 3)(nn.GlobalAvgPool2d()(nn.ReLU()(h))))


def siamese():
    """One encoder, of several layers, for two inputs."""
    a, b = nn.Input(), nn.Input()
    encoder = nn.Sequential(conv(3, 4), norm(4), nn.ReLU(), nn.GlobalAvgPool2d())
    last = linear(4, 3)
    return nn.Graph([a, b], last(nn.Tanh()(encoder(a) + last_of(encoder(b)))))


def last_of(node):
    return nn.Sigmoid()(node)


def named():
    """Outputs by name, of a graph within a sequence within a graph."""
    x, h = nn.Input(), nn.Input()
    block = nn.Graph(h, nn.ReLU()(conv(4, 4, seed=1)(h) + h))
    body = nn.Sequential(conv(3, 4), block, nn.GlobalAvgPool2d())(x, name="body")
    return nn.Graph(x, {"digit": linear(4, 3)(body, name="digit"), "parity": linear(4, 2, seed=1)(body, name="parity")})


def handed_on(shortcut):
    """A block that begins with its batch norm, beside a shortcut that hands on what is there."""
    main = nn.Sequential(norm(4), nn.ReLU(), conv(4, 4, seed=1))
    return nn.Sequential(conv(3, 4), nn.Residual(main, shortcut))


def handed_on_and_used(hand_on, output=False):
    """What is handed on and, before that is used, something else is computed of; both are outputs, or summed."""
    x = nn.Input()
    h = nn.ReLU()(conv(3, 4)(x))
    same, other = hand_on(h), hand_on(nn.Tanh()(h))
    return nn.Graph(x, [same, other] if output else same + other)


class View(nn.Module):
    """A layer of somebody's own, which hands on what it is given."""

    def forward(self, x):
        return x

    def backward(self, dout, need_dx=True):
        return dout


class Average(nn.Module):
    """A layer of somebody's own, which gives two gradients that are one array, of memory that is lent."""

    def output_shape(self, first, second):
        return first

    def forward(self, first, second):
        return (first + second) / 2

    def backward(self, dout, need_dx=True):
        half = self.memory.take(dout.shape, dout)
        np.multiply(dout, 0.5, out=half)
        return half, half


class Skip(nn.Sequential):
    """A composition of somebody's own, which reads what it was given after its layers have run."""

    def forward(self, x):
        return super().forward(x) + x

    def backward(self, dout, need_dx=True):
        return super().backward(dout) + dout


def average():
    """Paths that are joined, and each of which writes over its gradient where it may."""
    x = nn.Input()
    first, second = nn.Tanh()(conv(3, 4)(x)), nn.Sigmoid()(conv(3, 4, seed=1)(x))
    return nn.Graph(x, conv(4, 2, seed=2)(Average()(first, second)))


def own_composition():
    return nn.Sequential(conv(3, 4), Skip(nn.Tanh(), conv(4, 4, seed=1), nn.Sigmoid()), nn.Tanh())


IMAGES = (3, 3, 6, 5)
PAIR = [IMAGES, (3, 2, 6, 5)]
# name: (function that makes the net, shapes of its inputs)
NETS = {
    "a chain": (chain, [IMAGES]),
    "residual blocks by hand": (residual_by_hand, [IMAGES]),
    "residual blocks": (residual_of_blocks, [IMAGES]),
    "two inputs and two outputs": (two_and_two, PAIR),
    "concatenation": (inception, [IMAGES]),
    "one encoder for two inputs": (siamese, [IMAGES, IMAGES]),
    "outputs by name": (named, [IMAGES]),
    "an identity as the shortcut": (lambda: handed_on(nn.Identity()), [IMAGES]),
    "a dropout as the shortcut": (lambda: handed_on(nn.Dropout(0)), [IMAGES]),
    "an identity beside a function": (lambda: handed_on_and_used(nn.Identity()), [IMAGES]),
    "rows beside a function": (lambda: handed_on_and_used(nn.Flatten()), [IMAGES]),
    "an identity and a function": (lambda: handed_on_and_used(nn.Identity(), output=True), [IMAGES]),
    "resnet20": (lambda: nn.resnet20(3, width=2, **DOUBLE), [(2, 3, 8, 8)]),
    "vgg11": (lambda: nn.vgg11(3, width=2, batch_norm=False, **DOUBLE), [(2, 3, 32, 32)]),
    "vgg11 with batch norm": (lambda: nn.vgg11(3, width=2, **DOUBLE), [(4, 3, 32, 32)]),
}
# with layers of somebody's own, which do not say what they read and hand on
OWN = {
    "a view beside a function": (lambda: handed_on_and_used(View()), [IMAGES]),
    "a view and a function": (lambda: handed_on_and_used(View(), output=True), [IMAGES]),
    "two gradients that are one": (average, [IMAGES]),
    "a composition of somebody's own": (own_composition, [IMAGES]),
}
every_net = pytest.mark.parametrize("name", NETS)


def made(name):
    make, shapes = {**NETS, **OWN}[name]
    return make(), [spread(*shape, seed=i) for i, shape in enumerate(shapes)]


def several(outputs):
    """The outputs of any net as a list."""
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def like(outputs, arrays):
    """Arrays in the form of the outputs of a net."""
    if isinstance(outputs, dict):
        return dict(zip(outputs, arrays, strict=True))
    return tuple(arrays) if isinstance(outputs, tuple) else arrays[0]


def passes(net, inputs):
    """Outputs, gradients of the inputs, and of the parameters, of a forward and a backward pass; copies."""
    outputs = net(*inputs)
    douts = [spread(*out.shape, seed=7 + i, dtype=out.dtype) for i, out in enumerate(several(outputs))]
    gradients = several(net.backward(like(outputs, douts)))
    parameters = [parameter.grad for _, parameter in net.named_parameters()]
    return [[array.copy() for array in arrays] for arrays in (several(outputs), gradients, parameters)]


# ---- gradients


@every_net
@pytest.mark.parametrize("mode", ["training", "test mode"])
def test_gradients_of_whole_nets(name, mode):
    net, inputs = made(name)
    if name.startswith("vgg"):  # dropout draws another mask for each pass
        for layer in net.modules():
            if isinstance(layer, nn.Dropout):
                layer.keep = 1
    if mode == "test mode":
        net.eval(gradients=True)
    outputs, dx, parameters = passes(net, inputs)
    douts = np.concatenate([spread(*out.shape, seed=7 + i).ravel() for i, out in enumerate(outputs)])

    def f():
        return np.concatenate([out.ravel() for out in several(net(*inputs))])

    arrays = [(x, d) for x, d in zip(inputs, dx, strict=True)]
    arrays += [(p.data, grad) for (_, p), grad in zip(net.named_parameters(), parameters, strict=True)]
    most = 6 if len(arrays) < 25 else 1
    for array, gradient in arrays:
        assert_gradient(f, array, douts, gradient, h=1e-7, most=most, rtol=2e-5, atol=2e-6)


def test_a_graph_computes_what_the_layers_do():
    net, (x,) = made("concatenation")
    one, three, pooled = (net.layers[name] for name in ("0", "2", "5"))
    branch, _ = L.relu_forward(L.conv_forward(x, one.weight.data, one.bias.data, stride=1, pad=0)[0])
    middle, _ = L.relu_forward(L.conv_forward(branch, three.weight.data, three.bias.data, stride=1, pad=1)[0])
    param = {"pool_height": 3, "pool_width": 3, "stride": 1, "pad": 1}
    average, _ = L.avg_pool_forward(x, param)
    last, _ = L.conv_forward(average, pooled.weight.data, pooled.bias.data, stride=1, pad=0)
    h, _ = L.relu_forward(np.concatenate([branch, middle, last], axis=1))
    head = net.layers["9"]
    scores, _ = L.affine_forward(h.mean(axis=(2, 3)), head.weight.data, head.bias.data)
    assert_allclose(net(x), scores, rtol=1e-12, atol=1e-12)


def test_blocks_by_hand_are_the_ready_made_ones():
    by_hand, x = made("residual blocks by hand")
    blocks, _ = made("residual blocks")
    for mode in (lambda net: net.train(), lambda net: net.eval(gradients=True)):
        mode(by_hand), mode(blocks)
        for ours, theirs in zip(passes(by_hand, x), passes(blocks, x), strict=True):
            key = np.sum
            for a, b in zip(sorted(ours, key=key), sorted(theirs, key=key), strict=True):
                assert_array_equal(a, b)
    by_hand.eval(), blocks.eval()
    assert_array_equal(by_hand(*x), blocks(*x))
    assert_array_equal(by_hand.inference()(*x), blocks.inference()(*x))


@every_net
def test_snapshots(name):
    net, inputs = made(name)
    net(*inputs)
    net.eval()
    expected, snapshot = net(*inputs), net.inference()
    for model in (snapshot, pickle.loads(pickle.dumps(snapshot)), copy.deepcopy(snapshot)):
        found = model(*inputs)
        assert type(found) is type(expected) and not model.state_dict()
        for a, b in zip(several(found), several(expected), strict=True):
            assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def every_pass(net, inputs):
    """What `passes` gives in training, and in test mode; outputs of test mode without gradients, and of a snapshot."""
    results = [*passes(net.train(), inputs), *passes(net.eval(gradients=True), inputs)]
    for model in (net.eval(), net.eval(), net.inference()):
        results.append([out.copy() for out in several(model(*inputs))])
    return results


def random_net(seed):
    """Layers of all kinds on paths that meet anywhere."""
    generator = np.random.default_rng(seed)
    x = nn.Input()
    nodes = [x]
    kinds = [
        nn.Identity, nn.ReLU, nn.Tanh, nn.Sigmoid, View, lambda: nn.Dropout(0), lambda: norm(4), lambda: norm(4, True),
        lambda: conv(4, 4, seed=len(nodes)), lambda: Skip(nn.Tanh(), nn.Sigmoid()),
        lambda: nn.Residual(nn.Sequential(nn.Tanh(), nn.Identity())),
    ]  # fmt: skip
    for _ in range(generator.integers(3, 12)):
        recent = [nodes[i] for i in generator.integers(max(0, len(nodes) - 4), len(nodes), size=2)]
        if generator.random() < 0.3:
            nodes.append((nn.Add(relu=True), nn.Add(), Average())[generator.integers(3)](*recent))
        else:
            nodes.append(kinds[generator.integers(len(kinds))]()(recent[0]))
    return nn.Graph(x, [nodes[-1], *(nodes[i] for i in generator.integers(1, len(nodes), size=2))])


def assert_nothing_needed_is_written_over(net, inputs, monkeypatch):
    """All passes give, bit for bit, what they do where nothing is ever written over."""
    other = copy.deepcopy(net)
    found = every_pass(net, inputs)
    with monkeypatch.context() as patch:
        patch.setattr(Memory, "owns", lambda memory, array: False)
        expected = every_pass(other, inputs)
    for arrays, values in zip(found, expected, strict=True):
        for array, value in zip(arrays, values, strict=True):
            assert_array_equal(array, value)
    for kind in found[-3:]:  # and in test mode the same, whether with gradients or without
        for array, value in zip(kind, found[3], strict=True):
            assert_allclose(array, value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", [*NETS, *OWN])
def test_what_is_written_over_is_not_needed(name, monkeypatch):
    net, inputs = made(name)
    assert_nothing_needed_is_written_over(net, inputs, monkeypatch)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_written_over_in_any_net_is_not_needed(seed, monkeypatch):
    assert_nothing_needed_is_written_over(random_net(seed), [spread(2, 4, 3, 3, seed=seed)], monkeypatch)


@every_net
def test_copies_and_repetitions(name):
    net, inputs = made(name)
    first = passes(net, inputs)
    net.eval()
    net(*inputs)
    net.train()
    other = pickle.loads(pickle.dumps(net))
    other.load_state_dict(net.state_dict())
    for model in (copy.deepcopy(net), other):
        for layer in (*net.modules(), *model.modules()):
            if isinstance(layer, nn.Dropout):
                layer.step = 0
        for a, b in zip(passes(model, inputs), passes(net, inputs), strict=True):
            for array, expected in zip(a, b, strict=True):
                assert_array_equal(array, expected)
    for array, expected in zip(passes(net, inputs)[0] if name[:3] != "vgg" else (), first[0], strict=False):
        assert_allclose(array, expected, rtol=1e-12)


@every_net
def test_inputs_and_gradients_are_left_alone(name):
    net, inputs = made(name)
    for gradients in (True, False):
        net.eval(gradients=gradients)
        before = [x.copy() for x in inputs]
        outputs = net(*inputs)
        if gradients:
            douts = [spread(*out.shape) for out in several(outputs)]
            copies = [dout.copy() for dout in douts]
            net.backward(like(outputs, douts))
            for dout, value in zip(douts, copies, strict=True):
                assert_array_equal(dout, value)
        for x, value in zip(inputs, before, strict=True):
            assert_array_equal(x, value)


# ---- what is not learned from, or through


def test_outputs_without_a_gradient():
    net, (a, b) = made("two inputs and two outputs")
    left, right = net(a, b)
    dleft, dright = spread(*left.shape), spread(*right.shape, seed=1)
    both = [gradient.copy() for gradient in net.backward((dleft, dright))]
    grads = {name: p.grad.copy() for name, p in net.named_parameters()}
    parts = []
    for douts in ((dleft, None), [None, dright]):
        for _, parameter in net.named_parameters():
            parameter.grad[...] = np.nan
        parts.append([gradient.copy() for gradient in net.backward(douts)])
        parts[-1] += [p.grad.copy() for _, p in net.named_parameters()]
    for total, first, second in zip([*both, *grads.values()], *parts, strict=True):
        assert_allclose(first + second, total, rtol=1e-11, atol=1e-12)
    assert not all(part.any() for part in parts[0]) and not all(part.any() for part in parts[1])
    assert net.backward((None, None)) == (None, None)
    assert not any(parameter.grad.any() for _, parameter in net.named_parameters())


def test_outputs_by_name_without_a_gradient():
    net, (x,) = made("outputs by name")
    out = net(x)
    assert list(out) == ["digit", "parity"]
    whole = net.backward({"digit": np.ones(out["digit"].shape), "parity": None}).copy()
    assert_array_equal(net.backward({"digit": np.ones(out["digit"].shape)}), whole)
    assert not net.layers["parity"].weight.grad.any() and net.layers["digit"].weight.grad.any()


def test_passes_end_where_nothing_is_learned():
    class Spy(nn.ReLU):
        def backward(self, dout, need_dx=True):
            asked.append(spies.index(self))
            return super().backward(dout, need_dx)

    asked, spies, (a, b) = [], [Spy(), Spy(), Spy()], (nn.Input(), nn.Input())
    first, second = linear(4, 4), linear(4, 4, seed=1)
    h = spies[0](first(a)) + spies[1](second(b))
    net, x = nn.Graph([a, b], spies[2](linear(4, 2, seed=2)(h))), spread(5, 4)

    def backward(need_dx=False):
        asked.clear()
        out = net(x, x)
        gradients = net.backward(np.ones(out.shape), need_dx)
        assert gradients is None if not need_dx else all(gradient is not None for gradient in gradients)
        return asked

    assert backward() == [2, 1, 0]
    second.freeze()
    assert backward() == [2, 0] and backward(need_dx=True) == [2, 1, 0]
    first.freeze()
    assert backward() == [2]
    net.freeze()
    assert backward() == [] and backward(need_dx=True) == [2, 1, 0]


# ---- layers that are used twice


def test_gradients_of_a_layer_used_twice_are_summed():
    net, inputs = made("one encoder for two inputs")
    names = [name for name, _ in net.named_parameters()]
    assert len(names) == len(set(names)) == 6 and len(net.state_dict()) == 8
    apart = nn.Input(), nn.Input()
    encoders = [copy.deepcopy(net.layers["0"]) for _ in range(2)]
    last = copy.deepcopy(net.layers["4"])
    other = nn.Graph(apart, last(nn.Tanh()(encoders[0](apart[0]) + last_of(encoders[1](apart[1])))))
    flat = nn.FlatParameters(net)
    for step in range(2):
        outputs, dx, grads = passes(net, inputs)
        expected_outputs, expected_dx, _ = passes(other, inputs)
        assert_allclose(outputs[0], expected_outputs[0], rtol=1e-12)
        for a, b in zip(dx, expected_dx, strict=True):
            assert_allclose(a, b, rtol=1e-11, atol=1e-13)
        pairs = zip(encoders[0].named_parameters(), encoders[1].named_parameters(), strict=True)
        for grad, ((_, first), (_, second)) in zip(grads, pairs, strict=False):
            assert_allclose(grad, first.grad + second.grad, rtol=1e-10, atol=1e-12)
        flat.data += 0.1 * (step + 1)
        for _, parameter in other.named_parameters():
            parameter.data += 0.1 * (step + 1)
    net.layers["0"].freeze()
    flat.grad[...] = 0
    passes(net, inputs)
    assert not any(parameter.grad.any() for _, parameter in net.layers["0"].named_parameters())


def test_masks_and_statistics_of_a_layer_used_twice():
    a = nn.Input()
    dropout, layer = nn.Dropout(0.5, key=3), norm(6)
    net = nn.Graph(a, [layer(dropout(a)), layer(dropout(a)), dropout(a)])
    x, same = np.ones((50, 6)), nn.Dropout(0.5, key=3)
    masks, alone = [same(x).copy() for _ in range(6)], copy.deepcopy(layer)
    for step in range(2):
        first, second, third = (out.copy() for out in net(x))
        assert_array_equal(third, masks[3 * step + 2])
        assert_array_equal(first, alone(masks[3 * step]))
        assert_array_equal(second, alone(masks[3 * step + 1]))
        dx = net.backward((None, None, x))
        assert_array_equal(dx, masks[3 * step + 2])
    assert dropout.step == 6
    assert_array_equal(layer.running_mean, alone.running_mean)


def test_outputs_may_be_inputs_of_others():
    x = nn.Input()
    h = nn.ReLU()(x)
    net = nn.Graph(x, [h, x, nn.Flatten()(h), h])
    array = spread(2, 3, 4)
    for gradients in (True, False):
        net.eval(gradients=gradients)
        relu, same, flat, again = net(array)
        assert_array_equal(relu, np.maximum(array, 0))
        assert_array_equal(flat, relu.reshape(2, 12))
        assert_array_equal(same, array) or assert_array_equal(again, relu)
    net.train()(array)
    ones = np.ones((2, 3, 4))
    assert_array_equal(net.backward((ones, 2 * ones, ones.reshape(2, 12), ones)), 2 + 3 * (array > 0))
    with pytest.raises(ValueError, match="dout: expected shape"):
        net.backward((ones, None, None, ones[:1]))


# ---- what is fused


def steps(net):
    return ["+".join(step.names) for step in net._planned().steps]


def test_what_is_fused():
    assert steps(nn.lenet()) == ["0+1", "2", "3+4", "5", "6", "7+8", "9+10", "11"]
    assert steps(nn.vgg11(batch_norm=False))[:4] == ["0+1", "2", "3+4", "5"]
    x = nn.Input()
    pair = norm(4)(conv(4, 4)(x)) + norm(4)(conv(4, 4, seed=1)(x))
    h = nn.ReLU()(pair)
    sums = nn.ReLU()(conv(4, 4)(h) + h), nn.Add()(x, h, conv(4, 4)(h)), conv(4, 4)(nn.Tanh()(h)) + x, nn.ReLU()(x + h)
    net = nn.Graph(x, sums)
    assert steps(net) == ["0", "2", "3", "1+4+5", "6+7+8", "9", "10", "11", "12+13", "14+15"]
    assert net._planned().apart == [("9", "10", "a sum of 3 terms is computed by itself")]
    net = nn.Graph(x, [nn.ReLU()(h), nn.ReLU()(nn.Add(relu=True)(h, x))])
    assert steps(net) == ["0", "2", "3", "1+4+5", "6", "7+8"]


def test_steps_keep_the_order_of_the_layers():
    """A sum waits for its terms; all else runs where it stands, as statistics and masks depend on that."""
    x = nn.Input()
    first, second = norm(3)(x), norm(3, seed=1)(x)
    net = nn.Graph(x, [nn.Tanh()(second), nn.ReLU()(first)])
    assert [[type(layer).__name__ for layer in step.layers] for step in net._planned().steps] == [
        ["BatchNorm2d", "ReLU"], ["BatchNorm2d"], ["Tanh"],
    ]  # fmt: skip
    first, other = norm(3)(x), nn.Sigmoid()(x)
    assert [type(step.lead).__name__ for step in nn.Graph(x, first + other)._planned().steps] == [
        "Sigmoid", "BatchNorm2d",
    ]  # fmt: skip


def test_what_is_fused_follows_the_modes():
    block = nn.Sequential(conv(3, 3), norm(3), nn.ReLU(), nn.Residual(nn.Sequential(conv(3, 3, seed=1), norm(3))))
    fused = ["0", "1+2", "3.main.0", "3.main.1+3.sum"]

    def gathering():
        return [step.names for step in block._planned().steps if step.gathers]

    assert steps(block) == fused and gathering() == [["0"], ["3.main.0"]]
    block.layers[1].eval(gradients=True)
    assert steps(block) == fused and gathering() == [["3.main.0"]]
    block.layers[2].eval()  # keeps nothing, the norm before it does
    assert steps(block) == ["0", "1", "2", *fused[2:]] and gathering() == [["3.main.0"]]
    block.eval()
    assert steps(block) == fused and gathering() == []
    block.train().layers[1].relu = True
    assert steps(block) == fused  # to no end, but no harm
    block.layers[2] = nn.Tanh()
    assert steps(block) == ["0", "1", "2", *fused[2:]]
    block.layers[3].main.layers[1].relu = True
    assert steps(block) == ["0", "1", "2", "3.main.0", "3.main.1", "3.sum"]
    relu = block.layers[2] = nn.ReLU()
    relu.forward = relu.forward  # somebody's own, for all we know
    assert steps(block)[:3] == ["0", "1", "2"]


def test_layers_run_by_themselves_after_a_fused_pass():
    """Each may be asked for its own gradient, and the net for its gradient after passes of each."""
    x, net = spread(*IMAGES), nn.Sequential(
        conv(3, 4), nn.ReLU(), conv(4, 4, seed=1), norm(4), nn.ReLU(), nn.Residual(nn.Sequential(norm(4, seed=4))),
        nn.Flatten(), linear(120, 3), nn.ReLU(),
    )  # fmt: skip
    _, (dx,), parameters = passes(net, [x])
    dout = spread(3, 3, seed=7)
    for layer in reversed(net.layers):
        dout = layer.backward(dout)
    assert_allclose(dout, dx, rtol=1e-11, atol=1e-13)
    for (_, parameter), expected in zip(net.named_parameters(), parameters, strict=True):
        assert_allclose(parameter.grad, expected, rtol=1e-11, atol=1e-12)
    out = x
    for layer in net.layers:
        out = layer(out)
    assert_allclose(net.backward(spread(3, 3, seed=7)), dx, rtol=1e-11, atol=1e-13)


def test_outputs_of_layers():
    """What is kept of each layer; None for what was not made."""
    net, x = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4), norm(4), nn.ReLU(), nn.Flatten()), spread(*IMAGES)
    first, relu, second, normal, last, flat = net.layers
    assert all(layer.output is None for layer in net.layers)
    out = net(x)
    assert first.output is None and normal.output is None
    assert_array_equal(last.output.reshape(3, -1), out)
    assert flat.output is out
    alone = copy.deepcopy(net)
    assert_array_equal(relu.output, np.maximum(alone.layers[0](x), 0))
    assert_array_equal(second.output, alone.layers[2](relu.output))
    out = first(x)
    assert first.output is out
    net.eval()(x)
    assert all(layer.output is None for layer in net.layers)


class OwnReLU(nn.ReLU):
    """A ReLU that nothing knows to be one."""

    def forward(self, x):
        return super().forward(x)


class OwnAdd(nn.Add):
    def forward(self, *inputs):
        return super().forward(*inputs)


def apart(net):
    """The net, each of whose layers runs by itself."""
    for layer in net.modules():
        for kind, own in ((nn.ReLU, OwnReLU), (nn.Add, OwnAdd)):
            if type(layer) is kind:
                layer.__class__ = own
    return net


@every_net
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fused_and_apart(name, dtype, floor_in_use):  # noqa: F811
    net, inputs = made(name)
    if dtype == np.float32:
        net.to(lambda array: array.astype(np.float32))
        inputs = [x.astype(np.float32) for x in inputs]
    other = apart(copy.deepcopy(net))
    assert all(len(step.layers) == 1 for step in other._planned().steps)
    assert name == "vgg11 with batch norm" or any(len(step.layers) > 1 for step in net._planned().steps)
    limit = 1e-11 if dtype == np.float64 else 2e-4
    for ours, theirs in zip(passes(net, inputs), passes(other, inputs), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.linalg.norm(a - b) <= limit * np.linalg.norm(b) + limit * 1e-3


# ---- structure


def test_names():
    a, b = nn.Input(), nn.Input()
    stem, head = conv(3, 4), linear(4, 2)
    h = nn.ReLU()(stem(a, name="stem") + stem(b))
    net = nn.Graph([a, b], head(nn.GlobalAvgPool2d()(h), name="head"))
    assert list(net.children()) == ["stem", "1", "2", "3", "head"]
    assert [name for name, _ in net.named_parameters()] == ["stem.weight", "stem.bias", "head.weight", "head.bias"]
    assert list(net.state_dict()) == [name for name, _ in net.named_parameters()]
    assert list(nn.Sequential(net).state_dict())[0] == "0.stem.weight"
    assert len(list(net.modules())) == 6
    assert net.output_shape((3, 8, 8), (3, 8, 8)) == (2,)
    assert two_and_two().output_shape(*[shape[1:] for shape in PAIR]) == ((3,), (2,))
    assert named().output_shape(IMAGES[1:]) == {"digit": (3,), "parity": (2,)}


def test_layers_may_be_replaced():
    net, (x,) = made("a chain")
    assert net(x).shape == (3, 3)
    net.layers["6"] = linear(5, 7)
    out = net(x)
    assert out.shape == (3, 7) and net.backward(np.ones(out.shape)).shape == x.shape
    net.layers["6"] = nn.Sequential(linear(5, 4), nn.ReLU(), linear(4, 2))
    assert net(x).shape == (3, 2) and steps(net)[-2:] == ["6.0+6.1", "6.2"]


def test_what_is_derived_from_a_composition_may_have_passes_of_its_own():
    class Doubled(nn.Sequential):
        def forward(self, x):
            return 2 * super().forward(x)

        def backward(self, dout, need_dx=True):
            return super().backward(2 * dout, need_dx)

    class Derived(nn.Sequential):
        pass

    inner = conv(3, 4), nn.ReLU()
    x, net = spread(*IMAGES), nn.Sequential(Doubled(*inner), nn.ReLU())
    plain = nn.Sequential(Derived(*inner), nn.ReLU())
    outputs, dx, _ = passes(net, [x])
    expected, expected_dx, _ = passes(plain, [x])
    assert_allclose(outputs[0], 2 * expected[0], rtol=1e-12)
    assert_allclose(dx[0], 2 * expected_dx[0], rtol=1e-12)
    assert steps(net) == ["0", "1"] and steps(plain) == ["0.0+0.1", "1"]
    assert_allclose(net.inference()(x), outputs[0], rtol=1e-12)


def test_summary_of_a_graph():
    summary = inception().summary((3, 8, 8))
    rows = {row.name: row for row in summary.rows}
    assert [rows[name].kind for name in ("0", "1", "6", "9")] == ["Conv2d", "ReLU", "Concatenate", "Linear"]
    assert rows["6"].shape == (7, 8, 8) and rows["6"].field == (3, 3) and rows["5"].field == (3, 3)
    assert rows["0"].memory == 0 and rows["1"].memory == 8 * 2 * 64
    summary, net = siamese().summary((3, 8, 8), (3, 8, 8)), siamese()
    assert summary.parameters == sum(parameter.data.size for _, parameter in net.named_parameters())
    assert summary.flops == 2 * (2 * 4 * 64 * 27 + 4 * 3)


def test_kept_memory_is_that_of_the_summary():
    for name in NETS:
        net, inputs = made(name)
        net(*(x[:1] for x in inputs))
        layers = {layer for line in net._planned().program.lines for layer in (line.layer,)}
        kept = sum(buffer.size for layer in layers for buffer in vars(layer).get("_buffers", {}).values())
        assert net.summary(*(x.shape[1:] for x in inputs)).memory == kept


# ---- errors


class Single(nn.Identity):
    """x in float32."""

    def forward(self, x):
        return super().forward(x).astype(np.float32)


def test_refused_graphs():
    x, y, relu = nn.Input(), nn.Input(), nn.ReLU()
    h = relu(x)
    inner = nn.Sequential(nn.ReLU())

    class Opaque(nn.Module):
        def __init__(self):
            self.inner = nn.ReLU()

        def forward(self, x):
            return self.inner(x)

    opaque = Opaque()
    for make, error, message in (
        (lambda: nn.Graph(x, h + y), ValueError, "inputs: an output depends on an input that is not among them"),
        (lambda: nn.Graph([x, y], h), ValueError, r"inputs\[1\]: no output depends on it"),
        (lambda: nn.Graph([x, x], h), ValueError, "inputs: expected different nodes"),
        (lambda: nn.Graph(x, []), ValueError, "outputs: expected at least one node, got none"),
        (lambda: nn.Graph([], [h]), ValueError, "inputs: expected at least one node, got none"),
        (lambda: nn.Graph(x, [h, np.ones(3)]), TypeError, r"outputs\[1\]: expected a node"),
        (lambda: nn.Graph(np.ones(3), h), TypeError, r"inputs\[0\]: expected a node"),
        (lambda: nn.Add()(x, np.ones(3)), TypeError, r"inputs\[1\]: expected a node, as the others are, got ndarray"),
        (lambda: x + 1, TypeError, "unsupported operand"),
        (lambda: np.ones(3) + x, TypeError, "not implemented|unsupported"),
        (lambda: relu(x, name="a.b"), ValueError, "name: expected a word without dots, got 'a.b'"),
        (lambda: relu(x, name=""), ValueError, "name: expected a word"),
        (lambda: relu(np.ones(3), name="relu"), TypeError, "name: expected none for arrays"),
        (lambda: nn.Graph(x, nn.ReLU()(relu(x, name="a"), name="a")), ValueError, "name: expected another for each"),
        (lambda: nn.Graph(x, relu(relu(x, name="a"), name="b")), ValueError, "name: a layer is called 'a' and 'b'"),
        (lambda: nn.Graph(x, inner.layers[0](inner(x))), ValueError, "both by itself and within another"),
        (lambda: nn.Graph(x, opaque(opaque(x)))(np.ones((2, 3))), ValueError, "^0: expected a layer, or layers"),
    ):
        with pytest.raises(error, match=message):
            make()


def test_refused_arrays():
    net, (a, b) = made("two inputs and two outputs")
    for inputs in ((), (a,), (a, b, b)):
        with pytest.raises(ValueError, match=f"inputs: expected 2, got {len(inputs)}"):
            net(*inputs)
    with pytest.raises(RuntimeError, match="needs a forward pass before it"):
        net.backward((np.ones((3, 3)), np.ones((3, 2))))
    left, right = net(a, b)
    for wrong, message in (
        (left, "dout: expected a tuple of 2 gradients, got ndarray"),
        ((left,), "dout: expected a tuple of 2 gradients, got 1"),
        ((right, left), r"dout: expected shape \(3, 3\), got \(3, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            net.backward(wrong)
    with pytest.raises(ValueError, match="inputs.1.: expected shape|add: expected shape"):
        net(a, b[:, :, :4])
    with pytest.raises(ValueError, match="add: expected shape"):
        nn.Residual(nn.Sequential(conv(3, 4), norm(4)))(a)
    with pytest.raises(TypeError, match="add: expected float64, as x, got float32"):
        nn.Residual(norm(3), Single())(a)
    by_name, (x,) = made("outputs by name")
    by_name(x)
    for wrong in (np.ones((3, 3)), {"digits": np.ones((3, 3))}):
        with pytest.raises(ValueError, match="dout: expected a dictionary of gradients for 'digit', 'parity', got"):
            by_name.backward(wrong)
    with pytest.raises(ValueError, match="net: expected one output"):
        nn.Sequential(named())(a)
    with pytest.raises(ValueError, match="^0: expected 2 inputs, got 1"):
        nn.Sequential(two_and_two())(a)


def test_no_backward_pass_after_a_forward_pass_that_failed():
    net = nn.Sequential(conv(3, 4), nn.ReLU(), nn.Flatten(), linear(120, 3), nn.ReLU())
    out = net(spread(*IMAGES))
    with pytest.raises(ValueError, match="x: expected shape"):
        net(spread(3, 3, 4, 4))
    assert all(layer.output is None for layer in net.layers)
    with pytest.raises(RuntimeError, match="needs a forward pass before it"):
        net.backward(np.ones(out.shape))


def test_what_a_layer_gives_is_kept_again_after_a_pass_that_failed():
    net = nn.Sequential(linear(4, 4), nn.Dropout(0.5), nn.Sigmoid())
    assert net._planned().steps[0].brief[1]
    with pytest.raises(ValueError, match="x: expected shape"):
        net(spread(3, 5))
    first = net.layers[0]
    out = first(spread(3, 4))
    first(spread(3, 4, seed=1))
    assert np.shares_memory(out, first.output)


def test_concatenate():
    parts, layer = [spread(2, channels, 3, seed=channels) for channels in (1, 4, 2)], nn.Concatenate()
    for gradients in (False, True):
        assert_array_equal(layer.eval(gradients=gradients)(*parts), np.concatenate(parts, axis=1))
    dout = spread(2, 7, 3)
    for gradient, part in zip(layer.backward(dout), np.split(dout, [1, 5], axis=1), strict=True):
        assert_array_equal(gradient, part)
    assert layer.backward(dout, need_dx=False) is None
    assert layer.output_shape((1, 3), (4, 3), (2, 3)) == (7, 3)
    for wrong, message in (
        (parts[:1], "inputs: expected at least two, got 1"),
        ([parts[0], parts[1][:1]], "inputs: expected shape"),
        ([parts[0], parts[1][..., :1]], r"inputs\[1\]: expected shape \(C, 3\), got \(4, 1\)"),
        ([np.ones(3), np.ones(3)], r"inputs: expected shape \(N, C, ...\)"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(*wrong)


# ---- memory


def test_outputs_that_no_backward_pass_reads_are_not_kept():
    """Of the shortcuts of a ResNet: each is part of a sum whose gradient does not depend on it."""
    x = spread(4, 3, 16, 16, dtype=np.float32)
    net, other = nn.resnet20(3, width=4), apart(nn.resnet20(3, width=4))
    for layer in (other.layers[5].shortcut.layers[1], other.layers[8].shortcut.layers[1]):
        layer.__class__ = type("OwnNorm", (nn.BatchNorm2d,), {})
    norms = [net.layers[i].shortcut.layers[1] for i in (5, 8)]
    for _ in range(2):
        out = net(x)
        assert all(norm.output is None for norm in norms)
        dx, expected = net.backward(np.ones_like(out)), other.backward(np.ones_like(other(x)))
        assert np.linalg.norm(dx - expected) <= 1e-4 * np.linalg.norm(expected)
    rows = {row.name: row.memory for row in net.summary((3, 16, 16)).rows}
    assert rows["5.shortcut.1"] == rows["8.shortcut.1"] == 0 < rows["5.shortcut.0"]
    out = norms[0](net.layers[5].shortcut.layers[0].output)  # by itself it keeps what it gives
    assert norms[0].output is out


def test_what_is_derived_may_read_what_it_likes():
    class Watching(nn.Dropout):
        def backward(self, dout, need_dx=True):
            seen.append((self._x.copy(), self._out.copy()))
            return super().backward(dout, need_dx)

    seen, x = [], spread(5, 4)
    net = nn.Sequential(linear(4, 4), Watching(0.5), nn.Flatten(), nn.Identity(), nn.Sigmoid())
    assert [step.brief[1] for step in net._planned().steps] == [False, False, True, True, False]
    dx = net.backward(np.ones_like(net(x))).copy()
    before, after = seen[0]
    assert_array_equal(net.layers[0].output, before)
    assert_array_equal(after * (after != 0), 2 * before * (after != 0))
    net.layers[1] = nn.Dropout(0.5)
    assert [step.brief[1] for step in net._planned().steps] == [True, True, True, True, False]
    assert_array_equal(net.backward(np.ones_like(net(x))), dx)
    assert all(layer.output is None for layer in net.layers[:4]) and net.layers[4].output is not None


# ---- explain


def kept(net):
    """All memory that a net has for outputs and gradients, as arrays of bytes: what it lends, what layers have."""
    own = [chunk for line in net._planned().program.lines for chunk in vars(line.layer).get("_buffers", {}).values()]
    return [*net.memory.free, *own]


def written(chunk, run):
    """How many bytes of the chunk `run` writes to, at least: its last one that differs from what was there."""
    last = 0
    for value in (0xA5, 0x5A):
        chunk[...] = value
        run()
        last = max(last, *(np.nonzero(chunk != value)[0] + 1), 0) if (chunk != value).any() else last
    return last


EXPLAINED = {
    "lenet": (lambda: nn.lenet(), [(1, 28, 28)]),
    "resnet20": (lambda: nn.resnet20(width=4), [(3, 12, 12)]),
    "two inputs and two outputs": (two_and_two, [shape[1:] for shape in PAIR]),
    "one encoder for two inputs": (siamese, [(3, 6, 5), (3, 6, 5)]),
    "concatenation": (inception, [(3, 6, 5)]),
    "an identity as the shortcut": (lambda: handed_on(nn.Identity()), [(3, 6, 5)]),
    "an identity and a function": (lambda: handed_on_and_used(nn.Identity(), output=True), [(3, 6, 5)]),
}


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("name", EXPLAINED)
def test_explained_memory_is_what_is_used(name, mode, floor_in_use):  # noqa: F811
    if floor_in_use == "reference":
        pytest.skip("its results are not of that memory before they are copied there")
    make, shapes = EXPLAINED[name]
    net, batch = make(), 5
    before = [array.copy() for array in net.state_dict().values()]
    explanation = net.explain(*shapes, batch=batch, mode=mode)
    for array, value in zip(net.state_dict().values(), before, strict=True):
        assert_array_equal(array, value)
    assert explanation.bytes <= explanation.bytes_without_reuse
    net.train() if mode == "train" else net.eval()
    dtype = next(p.data.dtype for _, p in net.named_parameters())
    inputs = [spread(batch, *shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]
    generator = np.random.default_rng(0)

    def run():
        outputs = net(*inputs)
        if mode == "train":
            douts = [generator.uniform(0.5, 1, out.shape).astype(dtype) for out in several(outputs)]
            net.backward(like(outputs, douts), need_dx=False)

    for _ in range(4):
        run()
    chunks = kept(net)
    assert sorted(chunk.size for chunk in chunks) == sorted(buffer.reserved for buffer in explanation.buffers)
    sizes = sorted(written(chunk, run) for chunk in chunks)
    assert sizes == sorted(buffer.bytes for buffer in explanation.buffers)


def test_explanation():
    x = nn.Input()
    h = nn.ReLU()(conv(3, 4)(x))
    h = nn.Tanh()(conv(4, 4, seed=1)(h)) + h
    net = nn.Graph(x, linear(4, 2)(nn.GlobalAvgPool2d()(nn.ReLU()(nn.GroupNorm(2, 4, **DOUBLE)(h)))))
    explanation = net.explain((3, 8, 8), batch=2)
    image, rows = 2 * 4 * 64 * 8, 2 * 4 * 8
    assert explanation.steps[0] == ("0+1", "Conv2d + ReLU") and explanation.steps[1] == ("2", "Conv2d")
    assert explanation.apart == [
        ("2", "3", "no kernel of Conv2d goes on with Tanh"),
        ("5", "6", "no kernel of GroupNorm goes on with ReLU"),
    ]
    own = [(buffer.uses, buffer.bytes) for buffer in explanation.buffers if not buffer.lent]
    # Neither Tanh nor what follows the ReLU looks at its input again.
    assert own == [*(((name,), image) for name in ("0+1", "3", "4", "5")), (("7",), rows), (("8",), 2 * 2 * 8)]
    lent = {use for buffer in explanation.buffers if buffer.lent for use in buffer.uses}
    assert lent == {"2", "6", *(f"d({name})" for name in ("0+1", "2", "3", "4", "5", "6", "7"))}
    assert explanation.bytes_without_reuse == 2 * (6 * image + rows) + 2 * 2 * 8
    test = net.explain((3, 8, 8), batch=2, mode="test")
    assert [(buffer.lent, buffer.bytes) for buffer in test.buffers] == [(True, image)] * 2
    for told in (explanation, test):
        text = str(told)
        for name, does in told.steps:
            assert any(line.split(maxsplit=1) == [name, does] for line in text.splitlines())
        assert f"{told.bytes:,} bytes; {told.bytes_without_reuse:,} if" in text and "no kernel of Conv2d" in text
    assert "net.inference() also folds" not in str(test) and "net.inference() also folds" in str(
        nn.resnet20(width=2).explain((3, 8, 8), mode="test")
    )
    assert nn.ReLU().explain((3,)).steps == [("", "ReLU")] and "" in str(nn.Sequential().explain((3,)))
    block = residual_of_blocks().explain((3, 6, 5)).steps
    assert block[1] == ("1", "BatchNorm2d with ReLU; moments from 0") and block[0] == ("0", "Conv2d; gathers moments")
    assert block[5] == ("2.main.3+2.sum", "BatchNorm2d + Add with ReLU; moments from 2.main.2")
    with pytest.raises(ValueError, match="mode: expected one of 'train', 'test', got 'eval'"):
        net.explain((3, 8, 8), mode="eval")
