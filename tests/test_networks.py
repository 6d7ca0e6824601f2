"""The networks: shapes, numbers of parameters, torchvision's names, and PyTorch's nets with the same weights."""

import inspect
import math

import numpy as np
import pytest
from layers_support import spread
from numpy.testing import assert_allclose, assert_array_equal
from torch_nets import VGG_COLUMNS, torch_resnet, torch_vgg

from fastcnn import layers as L
from fastcnn import nn, optim

IMAGENET = dict(classes=1000, input_shape=(3, 224, 224), head="imagenet")
PLAIN = dict(IMAGENET, batch_norm=False)
# name: (function, options, shape of an image, classes, parameters)
NETS = {
    "mlp": (nn.mlp, dict(input_shape=(1, 28, 28), classes=10), (1, 28, 28), 10, 784 * 100 + 100 + 1010),
    "mlp of rows": (
        nn.mlp,
        dict(input_shape=(6,), classes=3, hidden=(5, 4), batch_norm=True, drop=0.2),
        (6,),
        3,
        6 * 5 + 10 + 5 * 4 + 8 + 15,
    ),
    "mlp without hidden layers": (nn.mlp, dict(input_shape=(2, 3), classes=4, hidden=()), (2, 3), 4, 28),
    # LeCun et al. (1998): C5 has 48120, F6 10164; C3 is complete here, 16 (6 25 + 1)
    "lenet": (nn.lenet, {}, (1, 28, 28), 10, 6 * 26 + 16 * 151 + 48_120 + 10_164 + 850),
    "lenet of colours": (nn.lenet, dict(classes=7, input_shape=(3, 33, 12)), (3, 33, 12), 7, None),
    # He et al. (2015), table 6: 0.27, 0.46 and 0.85 M, with shortcuts that have none (option A); ours have
    # 16 32 + 2 32 + 32 64 + 2 64.
    "resnet20": (nn.resnet20, {}, (3, 32, 32), 10, 269_722 + 2752),
    "resnet32": (nn.resnet32, {}, (3, 32, 32), 10, 464_154 + 2752),
    "resnet56": (nn.resnet56, {}, (3, 32, 32), 10, 853_018 + 2752),
    "resnet18, small images": (nn.resnet18, dict(classes=10, stem="cifar"), (3, 32, 32), 10, 11_173_962),
    # torchvision's documentation, `num_params` of the weights; with batch norm less the biases that it cancels
    "resnet18": (nn.resnet18, {}, (3, 224, 224), 1000, 11_689_512),
    "resnet34": (nn.resnet34, {}, (3, 224, 224), 1000, 21_797_672),
    "resnet50": (nn.resnet50, {}, (3, 224, 224), 1000, 25_557_032),
    "vgg11": (nn.vgg11, PLAIN, (3, 224, 224), 1000, 132_863_336),
    "vgg13": (nn.vgg13, PLAIN, (3, 224, 224), 1000, 133_047_848),
    "vgg16": (nn.vgg16, PLAIN, (3, 224, 224), 1000, 138_357_544),
    "vgg19": (nn.vgg19, PLAIN, (3, 224, 224), 1000, 143_667_240),
    "vgg11_bn": (nn.vgg11, IMAGENET, (3, 224, 224), 1000, 132_868_840 - 2752),
    "vgg13_bn": (nn.vgg13, IMAGENET, (3, 224, 224), 1000, 133_053_736 - 2944),
    "vgg16_bn": (nn.vgg16, IMAGENET, (3, 224, 224), 1000, 138_365_992 - 4224),
    "vgg19_bn": (nn.vgg19, IMAGENET, (3, 224, 224), 1000, 143_678_248 - 5504),
    "vgg11, small images": (nn.vgg11, {}, (3, 32, 32), 10, 9_228_362),
    "vgg11, other images": (nn.vgg11, dict(classes=7, input_shape=(1, 64, 33)), (1, 64, 33), 7, 9_229_255),
    "vgg16, small images": (nn.vgg16, {}, (3, 32, 32), 10, 14_723_136 + 5130 - 4224),
}


def network_names():
    """The public functions of the module that make a net of its own kind."""
    functions = [f for f in vars(nn.networks).values() if getattr(f, "__module__", "") == nn.networks.__name__]
    return {f.__name__ for f in functions} - {"build", "network_options", "nearest"}


def test_networks_by_name(empty_weights):
    assert set(nn.NETWORKS) == {name for name in network_names() if not name.startswith("_")}
    for name, make in nn.NETWORKS.items():
        assert make is getattr(nn, name)
        net = nn.build(name, (2, 33, 40), 7, dtype=np.float64)
        assert net.output_shape((2, 33, 40)) == (7,)
        assert all(parameter.data.dtype == np.float64 for _, parameter in net.named_parameters())


def test_building_by_name():
    named, made = nn.build("small_cnn", (2, 9, 8), 3, 5, np.float64, width=4), nn.small_cnn((2, 9, 8), 3, 4, 0.3, 5)
    for name, value in made.state_dict().items():
        assert_array_equal(named.state_dict()[name].astype(np.float32), value, err_msg=name)
    assert [layer.key for layer in named.modules() if isinstance(layer, nn.Dropout)] == [
        layer.key for layer in made.modules() if isinstance(layer, nn.Dropout)
    ]
    assert nn.network_options("small_cnn", (2, 9, 8), width=4) == {"width": 4, "drop": 0.3}
    assert nn.network_options("resnet34", (3, 70, 64)) == {"stem": "imagenet", "width": 64}
    assert nn.build("mlp", (6,), 2, hidden=(3,)).output_shape((6,)) == (2,)


@pytest.mark.parametrize("name, small, large", [("resnet18", "cifar", "imagenet"), ("vgg11", "cifar", "imagenet")])
def test_building_for_the_size_of_images(name, small, large, empty_weights):
    option = "stem" if "stem" in inspect.signature(nn.NETWORKS[name]).parameters else "head"
    for size, expected in (((32, 63), small), ((64, 64), large)):
        built, same = nn.build(name, (3, *size), 5), nn.build(name, (3, *size), 5, **{option: expected})
        assert built.state_dict().keys() == same.state_dict().keys()
        assert str(built.summary((3, *size))) == str(same.summary((3, *size)))
    other = nn.build(name, (3, 64, 64), 5, **{option: "cifar"})
    assert str(other.summary((3, 64, 64))) != str(nn.build(name, (3, 64, 64), 5).summary((3, 64, 64)))


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("resnett20", {}, r"no network 'resnett20' \(did you mean 'resnet20'.\); known are small_cnn, mlp, "),
        ("xyz", {}, "there is no network 'xyz'; known are small_cnn, "),
        ("small_cnn", {"widht": 3}, r"no option 'widht' \(did you mean 'width'.\); it has width, drop$"),
        ("lenet", {"width": 3}, "lenet has no option 'width'; it has none"),
        ("resnet20", {"channels": 3}, "resnet20 has no option 'channels'; it has width"),
    ],
)
def test_building_refuses(name, options, message):
    with pytest.raises(ValueError, match=message):
        nn.build(name, (3, 32, 32), 10, **options)


@pytest.mark.parametrize("name", NETS)
def test_shapes_and_parameters(name, empty_weights):
    make, options, shape, classes, expected = NETS[name]
    net = make(**options)
    assert net.output_shape(shape) == (classes,)
    parameters = dict(net.named_parameters())
    assert expected in (None, sum(parameter.data.size for parameter in parameters.values()))
    assert all(parameter.data.dtype == np.float32 for parameter in parameters.values())


SMALL = {
    "mlp": lambda **k: nn.mlp((3, 4, 4), 5, (7, 6), drop=0.5, **k),
    "mlp with batch norm": lambda **k: nn.mlp((3, 4, 4), 5, (7, 6), batch_norm=True, **k),
    "lenet": lambda **k: nn.lenet(5, (3, 13, 12), **k),
    "resnet20": lambda **k: nn.resnet20(5, width=4, **k),
    "resnet18": lambda **k: nn.resnet18(5, width=4, **k),
    "resnet50": lambda **k: nn.resnet50(5, stem="cifar", width=2, **k),
    "vgg11": lambda **k: nn.vgg11(5, width=4, batch_norm=False, **k),
    "vgg16": lambda **k: nn.vgg16(5, width=4, **k),
}
every_small = pytest.mark.parametrize("name", SMALL)


@every_small
def test_nets_are_functions_of_their_seed(name):
    same, again, other = (SMALL[name](seed=seed).state_dict() for seed in (3, 3, 4))
    for key, value in same.items():
        assert_array_equal(value, again[key])
        assert value.ndim == 1 or not np.array_equal(value, other[key])
    double = SMALL[name](seed=3, dtype=np.float64).state_dict()
    assert all(np.array_equal(value, double[key].astype(np.float32)) for key, value in same.items())


def test_hidden_layers_have_masks_of_their_own():
    net = nn.mlp((50,), 3, (200, 200), drop=0.5, seed=2)
    first, second = (layer for layer in net.layers if isinstance(layer, nn.Dropout))
    ones = np.ones((4, 200), np.float32)
    assert not np.array_equal(first(ones), second(ones))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.lenet(input_shape=(1, 28, 11)), "input_shape: expected images of at least 12 x 12, got 28 x 11"),
        (lambda: nn.vgg16(input_shape=(3, 31, 64)), "input_shape: expected images of at least 32 x 32, got 31 x 64"),
        (lambda: nn.vgg11(head="small"), "head: expected one of 'cifar', 'imagenet', got 'small'"),
        (lambda: nn.resnet50(stem="small"), "stem: expected one of 'imagenet', 'cifar', got 'small'"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# ---- torchvision's names, from the definitions of its nets: (names, shapes)


def affine(name, m, d):
    return {f"{name}.weight": (m, d), f"{name}.bias": (m,)}


def norm(name, channels):
    arrays = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{array}": (channels,) for array in arrays}, f"{name}.num_batches_tracked": ()}


def resnet_table(blocks, kernels, expansion):
    """`kernels`: sizes of the filters of a block."""
    table, channels = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}, 64
    for stage, count in enumerate(blocks):
        filters = 64 * 2**stage
        for block in range(count):
            prefix, entering = f"layer{stage + 1}.{block}", channels
            for i, kernel in enumerate(kernels):
                leaving = filters * (expansion if i == len(kernels) - 1 else 1)
                table[f"{prefix}.conv{i + 1}.weight"] = (leaving, entering, kernel, kernel)
                table |= norm(f"{prefix}.bn{i + 1}", leaving)
                entering = leaving
            if block == 0 and channels != entering:
                table[f"{prefix}.downsample.0.weight"] = (entering, channels, 1, 1)
                table |= norm(f"{prefix}.downsample.1", entering)
            channels = entering
    return table | affine("fc", 1000, channels)


def vgg_table(column, batch_norm):
    table, place, channels = {}, 0, 3
    for entry in column.split():
        if entry == "M":
            place += 1
            continue
        filters = int(entry)
        table |= {f"features.{place}.weight": (filters, channels, 3, 3), f"features.{place}.bias": (filters,)}
        table |= norm(f"features.{place + 1}", filters) if batch_norm else {}
        place, channels = place + 2 + batch_norm, filters
    heads = (0, 4096, 512 * 7 * 7), (3, 4096, 4096), (6, 1000, 4096)
    return table | {k: v for i, m, d in heads for k, v in affine(f"classifier.{i}", m, d).items()}


TABLES = {
    "resnet18": resnet_table((2, 2, 2, 2), (3, 3), 1),
    "resnet34": resnet_table((3, 4, 6, 3), (3, 3), 1),
    "resnet50": resnet_table((3, 4, 6, 3), (1, 3, 1), 4),
    **{name: vgg_table(column, False) for name, column in VGG_COLUMNS.items()},
    **{f"{name}_bn": vgg_table(column, True) for name, column in VGG_COLUMNS.items()},
}


@pytest.mark.parametrize("name", TABLES)
def test_names_and_shapes_of_torchvision(name, empty_weights, monkeypatch):
    monkeypatch.setattr(np, "ascontiguousarray", np.asarray)  # no copies of large arrays
    make, options, *_ = NETS[name]
    found = {key: array.shape for key, array in nn.torchvision.state_dict(make(**options)).items()}
    assert found == TABLES[name]


def randomised(net, seed=1):
    """The net, no parameter or statistic as it was made."""
    rng = np.random.default_rng(seed)
    state = {key: value + rng.uniform(0.05, 0.4, value.shape) for key, value in net.state_dict().items()}
    net.load_state_dict(state)
    return net


FAMILIES = {name: SMALL[name] for name in ("resnet20", "resnet18", "resnet50", "vgg11", "vgg16")}


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_go_and_come_back(name):
    net, other = randomised(FAMILIES[name]()), FAMILIES[name](seed=9)
    nn.torchvision.load_state_dict(other, nn.torchvision.state_dict(net))
    for key, value in net.state_dict().items():
        assert_array_equal(other.state_dict()[key], value)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s.pop("classifier.0.bias"), r"missing \['classifier.0.bias'\], unknown nothing"),
        (lambda s: s.update(fc=np.ones(3)), r"missing nothing, unknown \['fc'\]"),
        (lambda s: s.update({"classifier.0.weight": s["classifier.0.weight"].T}), r"classifier.0.weight.*\(32, 5\)"),
        (lambda s: s.update({"features.0.bias": np.ones(7)}), r"bias before features.1.*\(4,\)"),
    ],
)
def test_loading_refuses_and_changes_nothing(change, message):
    net = FAMILIES["vgg16"]()
    before = {key: value.copy() for key, value in net.state_dict().items()}
    state = nn.torchvision.state_dict(randomised(FAMILIES["vgg16"]()))
    change(state)
    with pytest.raises(ValueError, match=message):
        nn.torchvision.load_state_dict(net, state)
    for key, value in net.state_dict().items():
        assert_array_equal(value, before[key])


def test_other_nets_have_no_such_names():
    with pytest.raises(ValueError, match="expected one of the VGG or ResNet family, got a layer AvgPool2d"):
        nn.torchvision.state_dict(nn.Sequential(nn.AvgPool2d(2)))


# ---- PyTorch's nets


# name: PyTorch's net, and the shape of a batch
PEERS = {
    "resnet20": (lambda torch, net: torch_resnet(torch, net, (3, 3), 1), (3, 3, 9, 8)),
    "resnet18": (lambda torch, net: torch_resnet(torch, net, (3, 3), 2), (3, 3, 65, 48)),
    "resnet50": (lambda torch, net: torch_resnet(torch, net, (1, 3, 1), 1), (3, 3, 17, 16)),
    "vgg11": (lambda torch, net: torch_vgg(torch, VGG_COLUMNS["vgg11"], False, 4, 5), (3, 3, 32, 32)),
    "vgg16": (lambda torch, net: torch_vgg(torch, VGG_COLUMNS["vgg16"], True, 4, 5), (3, 3, 32, 32)),
}


def assert_near(ours, theirs, limit, name):
    assert np.linalg.norm(ours - theirs) <= limit * max(np.linalg.norm(theirs), 1e-12), name


@pytest.mark.torch
@pytest.mark.parametrize("training", [True, False], ids=["training", "test mode"])
@pytest.mark.parametrize("name", PEERS)
def test_pytorch_agrees(name, training):
    torch = pytest.importorskip("torch", reason="PyTorch is the other side of this comparison")
    net, (make, shape) = randomised(FAMILIES[name](dtype=np.float64, seed=2)), PEERS[name]
    peer = make(torch, net).double()
    weights = {key: torch.from_numpy(value.copy()) for key, value in nn.torchvision.state_dict(net).items()}
    for key in weights:  # biases in front of a batch norm, which ours have not
        if name == "vgg16" and key.startswith("features") and key.endswith(".bias") and not weights[key].any():
            weights[key] += torch.linspace(-0.5, 0.5, weights[key].numel(), dtype=torch.float64)
    peer.load_state_dict(weights)
    nn.torchvision.load_state_dict(net, {key: value.numpy() for key, value in weights.items()})
    peer.train(training)
    net.train() if training else net.eval(gradients=True)

    x, y = spread(*shape), np.arange(shape[0]) % 5
    there = torch.from_numpy(x.copy()).requires_grad_()
    scores = peer(there)
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(y)).backward()
    ours = net(x)
    assert_allclose(ours, scores.detach().numpy(), rtol=1e-9, atol=1e-9)
    dx = net.backward(L.softmax_loss(ours, y)[1])
    assert_near(dx, there.grad.numpy(), 1e-8, "dx")
    for _, parameter in net.named_parameters():
        parameter.data[...] = parameter.grad
    gradients, compared = nn.torchvision.state_dict(net), 0
    for key, parameter in peer.named_parameters():
        if gradients[key].any() or "features" not in key:  # not those of cancelled biases
            assert_near(gradients[key], parameter.grad.numpy(), 1e-8, key)
            compared += math.prod(parameter.shape)
    assert compared == sum(parameter.data.size for _, parameter in net.named_parameters())


# name: our net of a dtype, PyTorch's, and the size of the images
TRAINED = {
    "resnet20": (
        lambda dtype: nn.resnet20(5, width=8, dtype=dtype, seed=1),
        lambda torch, net: torch_resnet(torch, net, (3, 3), 1),
        16,
    ),
    "vgg11": (
        lambda dtype: nn.vgg11(5, width=8, batch_norm=False, dtype=dtype, seed=1),
        lambda torch, net: torch_vgg(torch, VGG_COLUMNS["vgg11"], False, 8, 5),
        32,
    ),
}


@pytest.mark.torch
@pytest.mark.parametrize("name", TRAINED)
def test_fifty_steps_of_training_are_those_of_pytorch(name):
    """Same weights, same batches, SGD with momentum and weight decay.

    In float64 the runs go on side by side. In float32 two runs part after some ten steps, PyTorch's from its own in
    float64 like ours: a unit whose input is 0 but for rounding passes a gradient on in one and none in the other. So
    each step's loss in float32 is that of the weights that the float64 run had come to.
    """
    torch = pytest.importorskip("torch", reason="PyTorch is the other side of this comparison")
    make, make_peer, size = TRAINED[name]
    net, net32 = make(np.float64), make(np.float32)
    peer, peer32 = make_peer(torch, net).double(), make_peer(torch, net)

    def load(model, dtype):
        state = nn.torchvision.state_dict(net).items()
        model.load_state_dict({key: torch.from_numpy(np.asarray(value, dtype)) for key, value in state})

    load(peer, np.float64)
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3}
    optimizer, theirs = optim.SGD(nn.FlatParameters(net), **options), torch.optim.SGD(peer.parameters(), **options)
    rng, losses = np.random.default_rng(0), []
    for _ in range(50):
        y = rng.integers(0, 5, 16)
        x = rng.standard_normal((16, 3, size, size)) + 0.3 * y[:, None, None, None]
        net32.load_state_dict(net.state_dict())
        load(peer32, np.float32)
        scores32 = peer32(torch.from_numpy(x.astype(np.float32)))
        single = [L.softmax_loss(net32(x.astype(np.float32)), y)[0]]
        single.append(torch.nn.functional.cross_entropy(scores32, torch.from_numpy(y)).item())

        loss, dscores = L.softmax_loss(net(x), y)
        net.backward(dscores, need_dx=False)
        optimizer.step()
        there = torch.nn.functional.cross_entropy(peer(torch.from_numpy(x)), torch.from_numpy(y))
        theirs.zero_grad()
        there.backward()
        theirs.step()
        losses.append((float(loss), there.item(), *map(float, single)))
    ours, peers, ours32, peers32 = np.array(losses).T
    assert_allclose(ours, peers, rtol=1e-9)  # found: 5e-13
    assert_allclose(ours32, peers32, rtol=1e-5)  # Winograd's transforms: 2e-6 of a score
    assert ours[-5:].mean() < 0.8 * ours[0]
