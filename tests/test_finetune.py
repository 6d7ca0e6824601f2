"""Fine-tuning: weights from files, new heads, frozen stages, rates by layer, and `fastcnn finetune`."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from torch_nets import VGG_COLUMNS, torch_resnet, torch_vgg

from fastcnn import layers, nn, optim
from fastcnn.train import load_weights

# name: what makes the net of ours, what makes PyTorch's, the shape of a batch
VGG = dict(input_shape=(3, 224, 224), head="imagenet", width=4)
PEERS = {
    "resnet18": (lambda: nn.resnet18(), lambda torch, net: torch_resnet(torch, net, (3, 3), 2), (2, 3, 224, 224)),
    "resnet50": (lambda: nn.resnet50(), lambda torch, net: torch_resnet(torch, net, (1, 3, 1), 2), (2, 3, 224, 224)),
    "resnet34, narrow": (
        lambda: nn.resnet34(7, width=8),
        lambda torch, net: torch_resnet(torch, net, (3, 3), 2),
        (3, 3, 97, 64),
    ),
    "vgg11, narrow": (
        lambda: nn.vgg11(9, batch_norm=False, **VGG),
        lambda torch, net: torch_vgg(torch, VGG_COLUMNS["vgg11"], False, 4, 9, (256, 256)),
        (2, 3, 224, 224),
    ),
    "vgg16 with batch norm, narrow": (
        lambda: nn.vgg16(9, **VGG),
        lambda torch, net: torch_vgg(torch, VGG_COLUMNS["vgg16"], True, 4, 9, (256, 256)),
        (2, 3, 224, 224),
    ),
    "vgg16, one affine layer": (
        lambda: nn.vgg16(5, width=8),
        lambda torch, net: torch_vgg(torch, VGG_COLUMNS["vgg16"], True, 8, 5),
        (3, 3, 33, 40),
    ),
}


def randomised(torch, peer, seed):
    """The net in test mode, no array as it was made, and weights so large that scores tell of the images."""
    torch.manual_seed(seed)
    for module in peer.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            for array, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5)):
                torch.nn.init.uniform_(getattr(module, array), low, high)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return peer.eval()


@pytest.mark.parametrize("name", PEERS)
def test_pytorch_with_the_same_file(name, tmp_path):
    """Scores in float32 against PyTorch's in float64.

    The limit is that of rounding: PyTorch's own float32 scores are 2e-7 to 5e-7 off, ours, by Winograd's transforms
    where these are faster, 4e-7 to 1.2e-6.
    """
    torch = pytest.importorskip("torch", reason="PyTorch makes the file")
    library = pytest.importorskip("safetensors.torch")
    make, make_peer, shape = PEERS[name]
    net = make()
    peer = randomised(torch, make_peer(torch, net), 3)
    library.save_file(peer.state_dict(), tmp_path / "weights.safetensors")
    assert load_weights(net, tmp_path / "weights.safetensors") is net
    x = (np.random.default_rng(5).standard_normal(shape) * [[[[0.3]], [[1]], [[2]]]]).astype(np.float32)
    x[0] += 1
    with torch.no_grad():
        theirs = peer(torch.from_numpy(x)).numpy()
        exact = peer.double()(torch.from_numpy(x).double()).numpy()
    assert np.ptp(exact, axis=0).max() > 0.02 * np.abs(exact).max()  # scores tell of the images, not of biases alone
    for scores in (theirs, net.eval()(x), net.inference()(x)):
        assert np.linalg.norm(scores - exact) < 3e-6 * np.linalg.norm(exact)


# ---- files that do not fit


@pytest.fixture
def saved(tmp_path):
    """saved(arrays) -> path of a .safetensors file with them."""

    def save(arrays):
        from safetensors.numpy import save_file

        path = tmp_path / "weights.safetensors"
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
        return path

    return save


def small_resnet(classes=5, **options):
    return nn.resnet18(classes, **{"width": 4, "stem": "cifar", **options})


def small_vgg(classes=5, **options):
    return nn.vgg11(classes, **{"width": 4, **options})


def unlike(net, seed=1):
    """The net, with no parameter or statistic as it was made."""
    rng = np.random.default_rng(seed)
    for array in net.state_dict().values():
        array += rng.uniform(0.05, 0.4, array.shape).astype(array.dtype)
    return net


def state_of(net):
    return {name: array.copy() for name, array in net.state_dict().items()}


def names_of(net, torchvision):
    return nn.torchvision.state_dict(net) if torchvision else net.state_dict()


@pytest.mark.parametrize("torchvision", [True, False], ids=["torchvision's names", "own names"])
@pytest.mark.parametrize("make", [small_resnet, small_vgg])
def test_all_but_the_head(make, torchvision, saved):
    source, net = unlike(make(7)), make(5, seed=4)
    path, before = saved({**names_of(source, torchvision), "preprocess.mean": np.zeros(3)}), state_of(net)
    with pytest.raises(ValueError, match=r"weights.safetensors: state\[.*\]"):
        load_weights(net, path)
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())
    load_weights(net, path, head="skip")
    own = f"{nn.head(net)}."
    for name, array in net.state_dict().items():
        assert_array_equal(array, before[name] if name.startswith(own) else source.state_dict()[name])


def test_other_classes_are_said_to_be_the_reason(saved):
    path = saved(nn.torchvision.state_dict(small_resnet(7)))
    with pytest.raises(ValueError, match="fc.weight.*weights for 7 classes, the net has 5; head='skip' loads all but"):
        load_weights(small_resnet(5), path)


def test_convolutions_of_a_vgg_net_without_its_hidden_affine_layers(saved):
    source = unlike(nn.vgg11(9, (3, 64, 64), head="imagenet", width=2))
    net, path = nn.vgg11(4, (3, 32, 32), width=2), saved(nn.torchvision.state_dict(source))
    with pytest.raises(ValueError, match="missing nothing, unknown .*classifier.3.bias"):
        load_weights(net, path)
    load_weights(net, path, head="skip")
    assert_array_equal(net.layers[0].weight.data, source.layers[0].weight.data)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda s: s.pop("layer2.0.downsample.1.running_var"),
            "missing .'layer2.0.downsample.1.running_var'., unknown",
        ),
        (lambda s: s.update({"layer4.2.conv1.weight": np.ones((3, 3))}), "missing nothing, unknown .'layer4.2.conv1"),
        (lambda s: s.update({"bn1.bias": np.ones(5, np.float32)}), r"bn1.bias.: expected shape \(4,\), got \(5,\)"),
    ],
)
def test_weights_of_another_net(change, message, saved):
    net = small_resnet()
    state, before = nn.torchvision.state_dict(unlike(small_resnet())), state_of(net)
    change(state)
    path = saved(state)
    for head in ("load", "skip"):
        with pytest.raises(ValueError, match=message):
            load_weights(net, path, head)
    assert all(np.array_equal(array, before[name]) for name, array in net.state_dict().items())


def test_messages_do_not_list_hundreds_of_names(saved):
    with pytest.raises(ValueError, match="and [0-9]+ more") as error:
        load_weights(nn.resnet50(width=2), saved(nn.torchvision.state_dict(small_vgg())))
    assert len(str(error.value)) < 600


def test_damaged_and_missing_files(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="none.safetensors does not exist"):
        load_weights(small_resnet(), tmp_path / "none.safetensors")
    path = saved(nn.torchvision.state_dict(small_resnet()))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="weights.safetensors: damaged"):
        load_weights(small_resnet(), path)
    with pytest.raises(ValueError, match="head: expected one of 'load', 'skip', got 'all'"):
        load_weights(small_resnet(), saved(small_resnet().state_dict()), head="all")


@pytest.mark.parametrize(
    "name, shape, options",
    [
        ("resnet20", (3, 16, 16), {"width": 2}),
        ("resnet56", (1, 16, 16), {"width": 2}),
        ("resnet18", (3, 32, 32), {"width": 2, "stem": "cifar"}),
        ("resnet34", (3, 64, 64), {"width": 3, "stem": "imagenet"}),
        ("resnet50", (3, 64, 64), {"width": 2, "stem": "imagenet"}),
        ("vgg11", (3, 32, 32), {"width": 2, "head": "cifar", "batch_norm": False}),
        ("vgg13", (2, 32, 32), {"width": 2, "head": "cifar", "batch_norm": True}),
        ("vgg16", (3, 32, 32), {"width": 2, "head": "imagenet", "batch_norm": True}),
        ("vgg19", (3, 32, 32), {"width": 1, "head": "imagenet", "batch_norm": False}),
    ],
)
def test_networks_are_recognised(name, shape, options):
    state = nn.torchvision.state_dict(nn.build(name, shape, 6, **options))
    assert nn.torchvision.recognise(state) == (name, shape[0], 6, options)
    state.pop("conv1.weight", None), state.pop("features.0.weight", None)
    with pytest.raises(ValueError, match="expected the names of a VGG or ResNet net of torchvision, got "):
        nn.torchvision.recognise(state)


def test_networks_that_there_are_not_are_not_recognised():
    blocks = [nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)))]
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), *blocks, nn.GlobalAvgPool2d(), nn.Linear(2, 3))
    with pytest.raises(ValueError, match="expected the names of a VGG or ResNet"):
        nn.torchvision.recognise({k: v for k, v in nn.torchvision.state_dict(net).items() if "conv1.bias" not in k})


# ---- stages and heads

HEADS = {
    "resnet18": (lambda **k: nn.resnet18(5, stem="cifar", width=4, **k), (3, 16, 16), 6),
    "resnet50": (lambda **k: nn.resnet50(5, width=2, **k), (3, 33, 33), 6),
    "resnet20": (lambda **k: nn.resnet20(5, width=2, **k), (3, 8, 8), 5),
    "vgg11": (lambda **k: nn.vgg11(5, width=2, **k), (3, 32, 32), 6),
    "vgg16 without batch norm": (lambda **k: nn.vgg16(5, (1, 32, 32), head="imagenet", width=1, batch_norm=False, **k),
                                 (1, 32, 32), 8),
    "lenet": (lambda **k: nn.lenet(5, **k), (1, 28, 28), 5),
    "small_cnn": (lambda **k: nn.small_cnn((1, 9, 8), 5, 3, **k), (1, 9, 8), 3),
    "mlp": (lambda **k: nn.mlp((2, 3, 3), 5, (4, 4), **k), (2, 3, 3), 3),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_stages(name):
    make, _, count = HEADS[name]
    net = make()
    found = nn.stages(net)
    assert len(found) == count
    assert {k: v for stage in found for k, v in stage.items()} == net.children()
    assert nn.head(net) in found[-1] and all(any(layer.state_dict() for layer in s.values()) for s in found)
    if name.startswith("resnet"):
        blocks = [[layer for layer in stage.values() if isinstance(layer, nn.Residual)] for stage in found]
        assert [len(b) for b in blocks] == {"resnet18": [0, 2, 2, 2, 2, 0], "resnet50": [0, 3, 4, 6, 3, 0],
                                            "resnet20": [0, 3, 3, 3, 0]}[name]  # fmt: skip
        assert all(b[0].shortcut for b in blocks[2:-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("hidden", [(), (6,), (6, 3)])
@pytest.mark.parametrize("name", HEADS)
def test_new_heads(name, hidden, dtype):
    make, shape, _ = HEADS[name]
    net, same = make(dtype=dtype), make(dtype=dtype)
    for n in (net, same):
        assert nn.replace_head(n, 7, hidden, drop=0.25, seed=3) is n
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
    scores = net.eval()(x)
    assert scores.shape == (2, 7) and scores.dtype == dtype and net.output_shape(shape) == (7,)
    assert_array_equal(same.eval()(x), scores)
    old = make(dtype=dtype).state_dict()
    for key, array in net.state_dict().items():
        assert key.startswith(f"{nn.head(net)}.") or np.array_equal(array, old[key])
    new = net.children()[nn.head(net)]
    assert sum(isinstance(layer, nn.Dropout) for layer in new.modules()) == len(hidden)
    assert not np.array_equal(nn.replace_head(same, 7, hidden, seed=4).eval()(x), scores)
    assert nn.replace_head(net, 2).train()(x).shape == (2, 2)  # of a head that is a small net, too
    assert not hasattr(net.children()[nn.head(net)], "layers")
    loss, dscores = layers.softmax_loss(net(x), np.array([0, 1]))
    net.backward(dscores, need_dx=False)
    assert net.layers[-1].weight.grad.any()


def test_a_new_head_is_in_the_mode_of_the_old_one():
    net = nn.resnet20(3, width=2).eval(gradients=True)
    nn.replace_head(net, 4, (5,))
    assert not net.layers[-1].layers[0].training and net.layers[-1].layers[0].gradients
    nn.replace_head(net.train(), 4)
    assert net.layers[-1].training


def test_heads_that_cannot_be_replaced():
    with pytest.raises(TypeError, match="expected a Sequential, whose last layer can be replaced, got Linear"):
        nn.replace_head(nn.Linear(2, 2), 3)
    with pytest.raises(ValueError, match="expected an affine layer to be replaced, got Conv2d"):
        nn.replace_head(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(1, 1, 3)), 3)
    with pytest.raises(ValueError, match="expected layers with parameters, got Sequential without"):
        nn.stages(nn.Sequential(nn.ReLU()))


# ---- what is learned


def moved_stages(net, optimizer, shape, steps=2):
    """Of each stage, whether its parameters changed in training, and whether its running statistics did."""
    parts, before = nn.stages(net), state_of(net)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        net.train()
        x = rng.standard_normal((4, *shape)).astype(np.float32) + 0.5
        _, dscores = layers.softmax_loss(net(x), np.array([0, 1, 2, 1]))
        net.backward(dscores, need_dx=False)
        optimizer.step()
    after, found = net.state_dict(), []
    for part in parts:
        keys = [key for key in after if key.split(".")[0] in part]
        changed = {key: not np.array_equal(before[key], after[key]) for key in keys}
        learned = {changed[key] for key in keys if "running" not in key}
        counted = {changed[key] for key in keys if "running" in key}
        assert len(learned) == 1 and len(counted) < 2
        found.append((learned.pop(), counted.pop() if counted else None))
    return found


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "small_cnn"])
def test_frozen_stages_keep_parameters_and_statistics(name):
    make, shape, count = HEADS[name]
    net = make()
    optimizer = optim.SGD(nn.FlatParameters(net), 0.05, momentum=0.9, weight_decay=0.1)
    for top in (1, 2, count, 0):
        assert nn.freeze_all_but_top(net, top) is net
        moved = moved_stages(net, optimizer, shape)
        learned = [i >= count - top for i in range(count)]
        assert moved == [(yes, None if i == count - 1 else yes) for i, yes in enumerate(learned)]
    with pytest.raises(ValueError, match="count"):
        nn.freeze_all_but_top(net, count + 1)


@pytest.mark.parametrize("residual", [False, True])
def test_frozen_batch_norms_are_in_test_mode(residual):
    """Forward and backward are those of `eval(gradients=True)`, with the layers learning again those of `train()`."""
    net = unlike(nn.resnet20(3, width=2, dtype=np.float64) if residual else nn.vgg11(3, width=2, dtype=np.float64))
    x = np.random.default_rng(2).standard_normal((3, 3, 32, 32))

    def passes():
        before = state_of(net)
        out = net(x).copy()
        dx = net.backward(np.ones_like(out)).copy()
        counted = any(not np.array_equal(before[k], v) for k, v in net.state_dict().items())
        net.load_state_dict(before)
        return out, dx, counted

    training, testing = (*passes(),), (*[net.eval(gradients=True), passes()][1],)
    assert training[2] and not testing[2] and not np.allclose(training[0], testing[0])
    for freeze, expected in ((True, testing), (False, training), (True, testing)):
        net.train()
        net.freeze() if freeze else net.unfreeze()
        out, dx, counted = passes()
        assert_array_equal(out, expected[0]), assert_array_equal(dx, expected[1])
        assert counted == expected[2]


def test_rates_by_layer():
    net = nn.resnet18(3, stem="cifar", width=2)
    groups = nn.layerwise_rates(net, 0.5)
    factors = {}
    for name, parameter in net.named_parameters():
        holds = [group.lr for group in groups if group.holds(name, parameter.data.shape)]
        factors[name] = np.prod(holds)
    for i, stage in enumerate(nn.stages(net)):
        found = {factor for name, factor in factors.items() if name.split(".")[0] in stage}
        assert found == {0.5 ** (5 - i)}
    optimizer = optim.SGD(nn.FlatParameters(net), 1.0, groups=groups)
    before = state_of(net)
    for _, parameter in net.named_parameters():
        parameter.grad[...] = 1
    optimizer.step()
    for name, parameter in net.named_parameters():
        np.testing.assert_allclose(before[name] - parameter.data, factors[name], rtol=1e-4)
    with pytest.raises(ValueError, match="factor"):
        nn.layerwise_rates(net, -1)
