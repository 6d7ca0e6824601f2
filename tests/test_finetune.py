"""Fine-tuning: weights from files, new heads, frozen stages, rates by layer, and `fastcnn finetune`."""

import json
import re
import shutil

import numpy as np
import pytest
from conftest import TESTS
from numpy.testing import assert_array_equal
from torch_nets import VGG_COLUMNS, torch_resnet, torch_vgg
from train_support import QUICK, metrics_of, save, weights_of, without_times

from fastcnn import cli, data, layers, nn, optim
from fastcnn.cli import main
from fastcnn.train import Callback, Trainer, checkpoint, load_run, load_weights
from fastcnn.train.beginning import FromWeights

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


@pytest.mark.torch
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
        array += rng.uniform(-0.1, 0.1, array.shape).astype(array.dtype)
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
    headless = {key: array for key, array in state.items() if key.split(".")[0] not in ("fc", "classifier")}
    small = options | {"head": "cifar"} if "head" in options else options
    assert nn.torchvision.recognise(headless) == (name, shape[0], None, small)
    state.pop("conv1.weight", None), state.pop("features.0.weight", None)
    with pytest.raises(ValueError, match="expected the names of a VGG or ResNet net of torchvision, got "):
        nn.torchvision.recognise(state)


def test_networks_that_there_are_not_are_not_recognised():
    blocks = [nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)))]
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), *blocks, nn.GlobalAvgPool2d(), nn.Linear(2, 3))
    with pytest.raises(ValueError, match="expected the names of a VGG or ResNet"):
        nn.torchvision.recognise({k: v for k, v in nn.torchvision.state_dict(net).items() if "conv1.bias" not in k})


def test_the_readme(tmp_path, monkeypatch, empty_weights):
    """Its fine-tuning in Python."""
    from safetensors.numpy import save_file

    code = (TESTS.parent / "README.md").read_text().split("## Fine-tuning")[1].split("```python")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    save_file(nn.torchvision.state_dict(nn.resnet18()), "resnet18.safetensors")
    names = {}
    exec(code, names)
    net, optimizer = names["net"], names["optimizer"]
    assert net.output_shape((3, 224, 224)) == (5,)
    assert optimizer.parameters.trainable.count(True) == 2


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


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_graphs_have_stages_and_heads_too(hidden):
    x = nn.Input()
    h = nn.MaxPool2d(2)(nn.ReLU()(nn.Conv2d(2, 4, 3, padding=1)(x)), name="pool")
    h = nn.GlobalAvgPool2d()(nn.ReLU()(nn.Conv2d(4, 4, 3, padding=1)(h, name="second") + h))
    net = nn.Graph(x, nn.Linear(4, 3)(h, name="scores"))
    images = np.random.default_rng(0).standard_normal((2, 2, 8, 8)).astype(np.float32)
    assert net(images).shape == (2, 3)
    assert [list(stage)[-1] for stage in nn.stages(net)][0] == "pool" and list(nn.stages(net)[-1]) == ["scores"]
    assert nn.replace_head(net, 7, hidden)(images).shape == (2, 7)
    nn.freeze_all_but_top(net, 1)
    assert all(parameter.trainable == name.startswith("scores.") for name, parameter in net.named_parameters())
    before = state_of(net)
    optimizer = optim.SGD(nn.FlatParameters(net), 0.1, groups=nn.layerwise_rates(net, 0.5))
    net.backward(np.ones((2, 7), np.float32), need_dx=False)
    optimizer.step()
    assert all(np.array_equal(v, before[k]) != k.startswith("scores.") for k, v in net.state_dict().items())


def test_heads_that_cannot_be_replaced():
    with pytest.raises(TypeError, match="expected a Sequential or a Graph, whose layers can be replaced, got Linear"):
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


def test_a_trainer_unfreezes_stages():
    """Also one that resumes; batch norms of frozen stages keep their statistics through all epochs."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (24, 1, 9, 8), np.uint8), np.arange(24) % 3
    net = nn.small_cnn((1, 9, 8), 3, 2)
    parts, learned, moved = nn.stages(net), [1, 1, 2, 3], []

    class Moved(Callback):
        def on_start(self, trainer):
            self.before = state_of(net)

        def after_epoch(self, trainer, metrics):
            after = state_of(net)
            changed = {key for key in after if not np.array_equal(after[key], self.before[key])}
            moved.append([{key in changed for key in after if key.split(".")[0] in part} for part in parts])
            self.before = after

    optimizer = optim.SGD(nn.FlatParameters(net), 0.05)
    batches = data.Batches(x, y, 8)
    standardize = data.Standardize.fit(x)
    options = dict(callbacks=[Moved()], learned_stages=learned.__getitem__)
    Trainer(net, optimizer, batches, standardize, optim.SCHEDULES["constant"], 4, **options).fit()
    assert moved == [[{i >= 3 - count} for i in range(3)] for count in learned]


# ---- the command


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a run with three classes, to begin with."""
    folder = tmp_path_factory.mktemp("base")
    path = save(folder / "base.npz")
    assert main(["train", "--data", str(path), *QUICK, "--epochs", "1", "--out", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def finetune(tmp_path):
    """finetune(name, weights, *options) -> folder of a short run on four classes that must succeed."""
    path = save(tmp_path / "more.npz", classes=4, n_train=30, n_test=12)
    quick = ("--epochs", "2", "--batch-size", "8", "--no-progress")

    def run(name, weights, *options, path=path):
        folder = tmp_path / name
        arguments = [str(weights), "--data", str(path), *quick, "--out", str(folder), *map(str, options)]
        assert main(["finetune", *arguments]) == 0
        return folder

    return run


def same_arrays(ours, theirs, names):
    return [np.array_equal(ours[name], theirs[name]) for name in names]


def backbone(tensors):
    return [name for name in tensors if not name.startswith(("8.", "preprocess."))]  # of small_cnn


def test_finetune_learns_a_new_head_alone(base, finetune, capsys):
    folder = finetune("run", base)
    out = capsys.readouterr().out
    assert f"weights from {base}, the head is new; " in out and "68 parameters are learned at first" in out
    before, after = weights_of(base), weights_of(folder)
    assert all(same_arrays(before, after, backbone(before))) and before.keys() == after.keys()
    assert all(same_arrays(before, after, ["preprocess.mean", "preprocess.std"]))
    assert after["8.weight"].shape == (16, 4)
    config = json.loads((folder / "config.json").read_text())
    network = json.loads((base / "config.json").read_text())["net"]
    assert config["options"]["weights"] == str(base) and config["net"] == {**network, "head": {}}
    run = load_run(folder)
    assert len(run.class_names) == 4 and len(run.metrics) == 2
    x = np.zeros((1, 1, 8, 9), np.uint8)
    assert run.net(run.preprocess.apply(x)).shape == (1, 4)
    assert main(["evaluate", str(folder)]) == 0 and main(["report", str(folder)]) == 0


def test_finetune_keeps_the_head_of_the_same_classes(base, finetune, tmp_path, capsys):
    path = save(tmp_path / "same.npz", n_train=20)
    folder = finetune("run", base, "--lr", "0", path=path)
    assert "the head is kept" in capsys.readouterr().out
    assert json.loads((folder / "config.json").read_text())["options"]["head"] == "keep"
    assert main(["report", str(folder)]) == 0 and "first loss" not in capsys.readouterr().out
    before, after = weights_of(base), weights_of(folder)
    assert all(same_arrays(before, after, before))
    other = weights_of(finetune("other", base, "--lr", "0", "--head", "linear", path=path))
    assert all(same_arrays(before, other, backbone(before))) and not np.array_equal(
        before["8.weight"], other["8.weight"]
    )


def test_finetune_all_with_smaller_rates_below(base, finetune):
    before = weights_of(base)

    def steps(*options):
        after = weights_of(finetune("-".join(options), base, "--freeze", "none", "--epochs", "1", *options))
        return {name: np.linalg.norm(after[name] - before[name]) for name in ("0.weight", "3.weight")}

    halved, tenth, alike = (steps("--lr-factor", factor) for factor in ("0.5", "0.1", "1"))
    for name in alike:
        assert 0 < tenth[name] < halved[name] < alike[name]
    assert tenth["0.weight"] / alike["0.weight"] < 0.1 * tenth["3.weight"] / alike["3.weight"] * 3


def test_finetune_stages(base, finetune):
    before = weights_of(base)
    first, second = (("0.", "1."), ("3.", "4."))  # convolution and batch norm of each
    for name, options, epochs in (
        ("one", ("--freeze", "1"), {1: False, 2: True}),
        ("later", ("--unfreeze-after", "1"), {1: True, 2: True}),
        ("gradually", ("--unfreeze-after", "1", "--gradually"), {1: False, 2: True}),
        ("twice", ("--unfreeze-after", "1", "--gradually", "--epochs", "3"), {1: True, 2: True}),
    ):
        after = weights_of(finetune(name, base, *options))
        for stage, begins in ((1, first), (2, second)):
            names = [key for key in before if key.startswith(begins)]
            assert {not same for same in same_arrays(before, after, names)} == {epochs[stage]}, (name, stage)


@pytest.mark.parametrize("options", [(), ("--freeze", "1", "--head-hidden", "6,5", "--head-drop", "0.2")])
def test_finetuned_runs_with_a_small_net_as_their_head(base, finetune, options, capsys):
    folder = finetune("run", base, "--head", "mlp", *options)
    hidden = [6, 5] if options else [256]
    said = "6 and 5 hidden neurons (drop 0.2)" if options else "256 hidden neurons (drop 0.5)"
    assert re.search(rf"^small_cnn, .*, with a head of {re.escape(said)}: ", capsys.readouterr().out, re.M)
    config = json.loads((folder / "config.json").read_text())
    assert config["net"]["head"] == {"hidden": hidden, "drop": 0.2 if options else 0.5}
    run = load_run(folder)
    assert [layer.weight.data.shape[1] for layer in run.net.modules() if isinstance(layer, nn.Linear)] == [*hidden, 4]
    again = finetune("again", folder, "--head", "keep")  # which a net with such a head is a beginning for, too
    assert json.loads((again / "config.json").read_text())["net"]["head"] == config["net"]["head"]
    assert json.loads((finetune("new", folder, "--head", "linear") / "config.json").read_text())["net"]["head"] == {}


def test_a_new_head_begins_with_numbers_of_its_own(base):
    """Not with those that the source began with, of the same seed and as many classes."""
    config = json.loads((base / "config.json").read_text())
    arguments = cli.parse(["finetune", str(base), "--data", config["dataset"]["path"], "--head", "linear"])
    start = FromWeights(arguments, base)
    (_, net, _), first = start.net(start.dataset()), nn.small_cnn((1, 8, 9), 3, **config["net"]["options"])
    ours, theirs = (made.state_dict()[f"{nn.head(made)}.weight"] for made in (net, first))
    assert ours.shape == theirs.shape and np.mean(ours == theirs) < 0.01


def test_finetuned_runs_go_on_bit_for_bit(base, finetune, tmp_path, capsys):
    """Also where the weights that they began with are gone, and in the middle of unfreezing."""
    options = ("--epochs", "4", "--unfreeze-after", "1", "--gradually", "--head", "mlp", "--schedule", "constant")
    whole = finetune("whole", base, *options)
    weights = tmp_path / "weights"
    shutil.copytree(base, weights)
    half = finetune("half", weights, *options, "--epochs", "2")
    shutil.rmtree(weights)
    assert main(["train", "--resume", str(half), "--epochs", "4", "--no-progress"]) == 0
    assert without_times(metrics_of(half)) == without_times(metrics_of(whole))
    assert all(same_arrays(weights_of(whole), weights_of(half), weights_of(whole)))


def test_a_finetuned_run_that_ends_before_its_first_checkpoint(base, finetune, tmp_path, monkeypatch, capsys):
    """Its weights are there then, of an epoch that is trained again: from those that it began with."""

    def full(*arguments):
        raise OSError("no space left")

    options, weights = ("--freeze", "none"), tmp_path / "weights"
    whole = finetune("whole", base, *options)
    shutil.copytree(base, weights)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        with pytest.raises(AssertionError):
            finetune("half", weights, *options)
    half = tmp_path / "half"
    assert (half / "weights.safetensors").exists() and not (half / "checkpoint.safetensors").exists()
    before = {file.name: file.read_bytes() for file in half.iterdir()}
    weights.rename(tmp_path / "moved")
    assert main(["train", "--resume", str(half), "--no-progress"]) == 2
    assert f"the run in {half}, stopped in its first epoch, needs these weights" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in half.iterdir()} == before
    (tmp_path / "moved").rename(weights)
    assert main(["train", "--resume", str(half), "--no-progress"]) == 0
    assert without_times(metrics_of(half)) == without_times(metrics_of(whole))
    assert all(same_arrays(weights_of(whole), weights_of(half), weights_of(whole)))


def test_finetune_from_an_epoch_of_a_run(finetune, tmp_path):
    path = save(tmp_path / "base.npz", n_train=20)
    folder = tmp_path / "kept"
    assert main(["train", "--data", str(path), *QUICK, "--keep-checkpoints", "2", "--out", str(folder)]) == 0
    before = load_run(folder / "weights-epoch-001.safetensors").net.state_dict()
    after = weights_of(finetune("run", folder / "weights-epoch-001.safetensors"))
    assert all(same_arrays(before, after, backbone(before)))
    assert not all(same_arrays(weights_of(folder), after, backbone(before)))


# ---- the command, with weights by torchvision's names


@pytest.fixture
def photos(tmp_path):
    """A folder of small pictures in colours, two classes."""
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for i, name in enumerate(("cat", "dog")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for k in range(3):
                pixels = rng.integers(0, 128, (40 + k, 50, 3), np.uint8) + np.uint8(100 * i)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{k}.png")
    return tmp_path / "photos"


def test_finetune_weights_for_large_images(finetune, photos, saved, capsys):
    source = unlike(nn.resnet18(7, width=4))
    path = saved(nn.torchvision.state_dict(source))
    folder = finetune("run", path, path=photos)
    assert "resnet18, stem imagenet, width 4" in capsys.readouterr().out
    run = load_run(folder)
    assert run.image_shape == (3, 224, 224) and run.class_names == ("cat", "dog")
    (
        assert_array_equal(run.preprocess.mean, data.IMAGENET.mean),
        assert_array_equal(run.preprocess.std, data.IMAGENET.std),
    )
    assert main(["evaluate", str(folder)]) == 0
    state, head = source.state_dict(), nn.head(source)
    assert all(np.array_equal(v, state[k]) for k, v in run.net.state_dict().items() if not k.startswith(f"{head}."))
    assert load_run(finetune("small", path, "--image-size", 48, 40, path=photos)).image_shape == (3, 48, 40)
    fitted = load_run(finetune("fitted", path, "--image-size", 32, 32, "--preprocess", "Standardize", path=photos))
    assert abs(fitted.preprocess.mean - data.IMAGENET.mean).max() > 1


def test_finetune_vgg_on_images_of_another_size(finetune, photos, saved):
    """Convolutions are taken, the affine layers, which are for 224 x 224, are not."""
    source = unlike(nn.vgg11(7, (3, 224, 224), head="imagenet", width=1))
    path = saved(nn.torchvision.state_dict(source))
    run = load_run(finetune("run", path, "--image-size", 64, 64, "--freeze", 5, path=photos))
    assert run.config["net"]["options"]["head"] == "cifar"
    assert_array_equal(run.net.layers[0].weight.data, source.layers[0].weight.data)
    whole = load_run(finetune("whole", path, "--freeze", 5, path=photos))
    assert whole.config["net"]["options"]["head"] == "imagenet" and whole.image_shape == (3, 224, 224)


def test_finetune_weights_without_a_head(finetune, saved, photos):
    source = unlike(nn.vgg11(7, width=2))
    state = {key: array for key, array in nn.torchvision.state_dict(source).items() if key.startswith("features")}
    run = load_run(finetune("run", saved(state), "--image-size", 32, 32, path=photos))
    assert_array_equal(run.net.layers[0].weight.data, source.layers[0].weight.data)


def test_finetune_on_grayscale_images(finetune, saved):
    """They become three channels for weights that take colours."""
    source = unlike(nn.resnet20(7, width=2))
    folder = finetune("run", saved(nn.torchvision.state_dict(source)))
    assert load_run(folder).image_shape == (3, 8, 9)
    assert main(["evaluate", str(folder)]) == main(["report", str(folder)]) == 0
    assert "of 12 test images" in (folder / "report.html").read_text()


def test_finetune_a_file_that_does_not_tell_its_network(finetune, saved):
    source = unlike(nn.small_cnn((1, 8, 9), 3, 5))
    state = {**source.state_dict(), "preprocess.mean": np.array([30.0]), "preprocess.std": np.array([7.0])}
    run = load_run(finetune("run", saved(state), "--net", "small_cnn", "--net-option", "width=5"))
    assert_array_equal(run.net.layers[0].weight.data, source.layers[0].weight.data)
    assert run.preprocess.mean == 30 and run.preprocess.std == 7
    assert not np.array_equal(load_run(finetune("other", saved(source.state_dict()), "--net", "small_cnn",
                                                "--net-option", "width=5")).preprocess.mean, [30])  # fmt: skip


@pytest.mark.parametrize(
    "weights, options, message",
    [
        ("{tmp}/none.safetensors", (), "none.safetensors does not exist"),
        ("{tmp}", (), "expected a .safetensors file or the folder of a run, there is no config.json"),
        ("{junk}", (), "junk.safetensors: damaged"),
        ("{own}", (), "not those of torchvision's VGG and ResNet nets.*--net does"),
        ("{base}", ("--net", "lenet"), "the weights are of small_cnn, not of lenet"),
        ("{base}", ("--freeze", "3"), "--freeze: expected fewer than the net's 3 stages, got 3"),
        ("{base}", ("--head", "keep"), r"expected shape \(16, 4\), got \(16, 3\); --head linear puts a new one on"),
        ("{base}", ("--gradually",), "--gradually: needs --unfreeze-after EPOCHS"),
        ("{base}", ("--head-hidden", "5"), "--head-hidden: needs --head mlp"),
        ("{base}", ("--head", "linear", "--head-drop", "0"), "--head-drop: needs --head mlp"),
        ("{own}", ("--net", "mlp", "--net-option", "hidden=5"), "--net-option hidden: expected a list"),
    ],
)
def test_finetune_refuses(base, saved, tmp_path, capsys, weights, options, message):
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"nothing")
    path = save(tmp_path / "more.npz", classes=4, n_train=20)
    given = weights.format(tmp=tmp_path, junk=junk, base=base, own=saved(nn.mlp((4,), 2).state_dict()))
    arguments = ["finetune", given, "--data", str(path), *options, "--out", str(tmp_path / "run"), "--no-progress"]
    assert main(arguments) == 2
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "run").exists()


def test_finetune_by_a_file_of_options(base, finetune, tmp_path):
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"freeze": "none", "lr-factor": 0.25, "head": "mlp", "head-hidden": [3]}))
    config = json.loads((finetune("run", base, "--config", file) / "config.json").read_text())
    assert config["net"]["head"]["hidden"] == [3] and config["options"]["lr_factor"] == 0.25
