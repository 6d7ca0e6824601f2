"""Monitoring: every number against direct computation, training that it does not change, its file."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import data, layers, nn, optim
from fastcnn.train import Monitor, Trainer, monitor

CLASSES, SHAPE = 3, (2, 6, 7)


class Raw:
    """No preprocessing."""

    def apply(self, x, dtype):
        return x.astype(dtype)


def example_net(seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    block = nn.Sequential(
        nn.Conv2d(4, 4, 3, 1, 1, bias=False, rng=rng, dtype=dtype),
        nn.BatchNorm2d(4, relu=True, dtype=dtype),
        nn.Conv2d(4, 4, 3, 1, 1, bias=False, rng=rng, dtype=dtype),
        nn.BatchNorm2d(4, dtype=dtype),
    )
    stem = nn.Conv2d(2, 4, 3, 1, 1, rng=rng, dtype=dtype), nn.ReLU()
    head = nn.Flatten(), nn.Linear(4 * 6 * 7, 5, rng=rng, dtype=dtype), nn.Tanh(), nn.Dropout(0.2, 7)
    return nn.Sequential(*stem, nn.Residual(block), *head, nn.Linear(5, CLASSES, rng=rng, dtype=dtype))


def train(net, *callbacks, epochs=2, n=21, batch_size=6, lr=0.05, seed=0, start=0):
    """A short training on noise; the trainer."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, *SHAPE)), np.arange(n) % CLASSES
    optimizer = optim.SGD(nn.FlatParameters(net), lr, 0.9)
    dtype = next(net.named_parameters())[1].data.dtype.type
    batches = data.Batches(x, y, batch_size, seed=seed)
    trainer = Trainer(net, optimizer, batches, Raw(), lambda progress: 1.0, epochs, dtype, callbacks)
    trainer.epoch = start
    trainer.fit()
    return trainer


def test_training_is_the_same_with_and_without():
    with_monitor, without = example_net(), example_net()
    watched = train(with_monitor, Monitor(every=1))
    plain = train(without)
    for name, array in without.state_dict().items():
        assert_array_equal(with_monitor.state_dict()[name], array)
    for name, array in plain.optimizer.state.items():
        assert_array_equal(watched.optimizer.state[name], array)
    losses = [[m.train_loss for m in trainer.metrics] for trainer in (watched, plain)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    "every, n, expected",
    [
        (None, 21, [(1, 1), (1, 3), (2, 3), (3, 3)]),  # of four steps
        (None, 6, [(1, 1), (2, 1), (3, 1)]),
        (3, 21, [(1, 1), (1, 4), (2, 3), (3, 2)]),
        (100, 21, [(1, 1)]),
    ],
)
def test_when_it_looks(every, n, expected):
    watching = Monitor(every=every)
    train(example_net(), watching, epochs=3, n=n)
    assert [(record["epoch"], record["step"]) for record in watching.records] == expected
    steps = -(-n // 6)
    assert [r["at"] for r in watching.records] == [epoch - 1 + (step - 1) / steps for epoch, step in expected]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights(dtype):
    """Gradients and updates of one step, from a net that takes the same step by itself."""
    watching, net, twin = Monitor(), example_net(3, dtype), example_net(3, dtype).train()
    net.layers[0].freeze(), twin.layers[0].freeze()
    train(net, watching, epochs=1, n=6)
    x = np.random.default_rng(0).standard_normal((6, *SHAPE))
    (x, y), *_ = data.Batches(x, np.arange(6) % CLASSES, 6, seed=0).epoch(0)
    loss, dscores = layers.softmax_loss(twin(x.astype(dtype)), y)
    twin.backward(dscores)
    (record,) = watching.records
    assert (record["epoch"], record["step"], record["lr"]) == (1, 1, 0.05)
    assert_allclose(record["loss"], float(loss), rtol=1e-6)
    after = dict(net.named_parameters())
    weights = {name: p for name, p in twin.named_parameters() if p.data.ndim > 1 and p.trainable}
    assert list(weights) == [weight["name"] for weight in record["weights"]] and len(weights) == 4
    for name, weight in zip(weights, record["weights"], strict=True):
        before, gradient = (a.astype(np.float64) for a in (weights[name].data, weights[name].grad))
        change = after[name].data.astype(np.float64) - before
        assert_allclose(weight["norm"], np.sqrt((before**2).sum()), rtol=1e-6)
        assert_allclose(weight["gradient_norm"], np.sqrt((gradient**2).sum()), rtol=1e-6)
        assert_allclose(weight["update_ratio"], np.sqrt((change**2).sum() / (before**2).sum()), rtol=1e-6)
        assert_allclose(weight["update_ratio"], 0.05 * weight["gradient_norm"] / weight["norm"], rtol=1e-4)
        check_description(weight, gradient)


def check_description(described, values):
    values = values.astype(np.float64).ravel()
    assert_allclose([described["mean"], described["std"]], [values.mean(), values.std()], rtol=1e-5, atol=1e-9)
    assert described["nonfinite"] == 0
    low, high = np.quantile(values, (0.005, 0.995))
    counts, edges = np.histogram(np.clip(values, low, high), monitor.BINS)
    histogram = described["histogram"]
    assert_allclose([histogram["low"], histogram["high"]], edges[[0, -1]], rtol=1e-6, atol=1e-12)
    # Rounding may move a value that lies at an edge into the next bin.
    assert abs(np.cumsum(histogram["counts"]) - counts.cumsum()).max() <= 2 and sum(histogram["counts"]) == values.size


def test_layers():
    """Outputs of a step, as functions of single layers give them; not those that are not kept."""
    net, watching = example_net(5), Monitor()
    train(net, watching, epochs=1, n=6)
    twin = example_net(5)
    x = np.random.default_rng(0).standard_normal((6, *SHAPE)).astype(np.float32)
    (x, _), *_ = data.Batches(x, np.arange(6), 6, seed=0).epoch(0)
    conv, relu, residual, flatten, linear, tanh, dropout, scores = twin.layers
    main = residual.main.layers
    out = {"1": relu(conv(x))}
    out["2.main.0"] = main[0](out["1"])
    out["2.main.1"] = main[1](out["2.main.0"])
    out["2.main.2"] = main[2](out["2.main.1"])
    out["2.sum"] = np.maximum(main[3](out["2.main.2"]) + out["1"], 0)
    out["5"] = tanh(linear(flatten(out["2.sum"])))
    out["7"] = scores(dropout(out["5"]))
    (record,) = watching.records
    found = {layer["name"]: layer for layer in record["layers"]}
    assert list(found) == list(out)
    kinds = ["ReLU", "Conv2d", "BatchNorm2d", "Conv2d", "Add", "Tanh", "Linear"]
    assert [layer["kind"] for layer in record["layers"]] == kinds
    for name, values in out.items():
        check_description(found[name], values)
        assert found[name]["units"] == values.shape[1]
        after_relu = name in ("1", "2.main.1", "2.sum")
        assert found[name]["dead"] == (0 if after_relu else None), name
        assert found[name]["saturated"] == (np.mean(abs(values) > 0.99) if name == "5" else None)


def test_dead_units():
    net = example_net()
    net.layers[0].bias.data[[1, 3]] = -1e3
    watching = Monitor()
    train(net, watching, epochs=1, lr=0.0)
    dead = {layer["name"]: layer["dead"] for layer in watching.records[-1]["layers"]}
    assert "0" not in dead and dead["1"] == 0.5


def test_dead_share():
    out = np.abs(np.random.default_rng(0).standard_normal((5, 4, 3, 2)))
    assert monitor.dead_share(out) == 0
    out[:, 1] = 0
    out[:, 2] = 0
    out[4, 2, 2, 1] = 1e-30  # alive, at one pixel of one image
    assert monitor.dead_share(out) == 0.25
    assert monitor.dead_share(np.zeros((3, 7))) == 1
    assert monitor.dead_share(out[:, :, 0, 0]) == 0.5
    assert monitor.dead_share(np.array([0.0, 1.0])) == 0


def test_only_what_a_relu_gave_can_be_dead():
    """Zeros of a layer that begins with zeros, as a head or the last norm of a block, are no dead units."""
    block = nn.Residual(nn.Sequential(nn.BatchNorm2d(4, relu=True), nn.Conv2d(4, 4, 1)))
    head = nn.Flatten(), nn.Linear(16, 3), nn.Linear(3, 3), nn.ReLU(), nn.Sigmoid()
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), block, *head)
    net.layers[1].weight.data[...] = 0
    net.layers[4].weight.data[...] = 0
    net(np.random.default_rng(2).standard_normal((5, 2, 4, 4)).astype(np.float32))
    found = {described["name"]: described["dead"] for described in monitor.layer_statistics(net)}
    assert found == {"0": None, "1": None, "2.main.0": 1, "2.sum": 1, "4": None, "6": 1, "7": None}


@pytest.mark.parametrize("layer, ends", [(nn.Sigmoid(), (0.01, 0.99)), (nn.Tanh(), (-0.99, 0.99))])
def test_saturated(layer, ends):
    x = np.random.default_rng(1).standard_normal((9, 11)) * 3
    net = nn.Sequential(layer)
    out = net(x)
    (described,) = monitor.layer_statistics(net)
    share = np.mean((out < ends[0]) | (out > ends[1]))
    assert described["saturated"] == share and 0 < share < 1 and described["dead"] is None


@pytest.mark.parametrize("shape", [(1,), (3, 0), (2, 5, 3, 3), (70_000,)])
def test_describe(shape):
    values = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    described = monitor.describe(values)
    if not values.size:
        assert described == {"mean": None, "std": None, "nonfinite": 0, "histogram": None}
        return
    assert_allclose(described["mean"], values.mean(dtype=np.float64), rtol=1e-6)
    assert_allclose(described["std"], values.std(dtype=np.float64), rtol=1e-6)
    histogram = described["histogram"]
    assert len(histogram["counts"]) == monitor.BINS and sum(histogram["counts"]) == min(values.size, 2**16)
    assert values.min() <= histogram["high"] and histogram["low"] <= values.max()
    if values.size > 2**16:  # drawn: shares that are near those of all
        low, high = histogram["low"], histogram["high"]
        assert_allclose([low, high], np.quantile(values, (0.005, 0.995)), atol=0.1)
        counts, _ = np.histogram(np.clip(values, low, high), monitor.BINS, (low, high))
        assert_allclose(np.array(histogram["counts"]) / 2**16, counts / counts.sum(), atol=0.01)
        assert monitor.describe(values) == described


@pytest.mark.parametrize("value", [0.0, 1.0, -3e-9, 1e-310, 1e300])
def test_describe_constants(value):
    described = monitor.describe(np.full(7, value))
    assert described["std"] is None or described["std"] <= 1e-12 * max(abs(value), 1)
    assert sum(described["histogram"]["counts"]) == 7
    near = monitor.describe(np.array([1.0, 1.0 + 2**-52]))["histogram"]
    assert sum(near["counts"]) == 2


def test_describe_what_is_not_finite():
    values = np.array([1.0, np.nan, 2.0, np.inf, -np.inf])
    described = monitor.describe(values)
    assert described["nonfinite"] == 3 and described["mean"] == 1.5 and described["std"] == 0.5
    assert sum(described["histogram"]["counts"]) == 2
    lost = monitor.describe(np.full(3, np.nan, np.float32))
    assert lost == {"mean": None, "std": None, "nonfinite": 3, "histogram": None}
    assert monitor.describe(np.array([1e308, -1e308]))["std"] in (None, 1e308)


def test_a_run_that_becomes_nan(tmp_path):
    """The last record before the trainer gives up holds what there is, as JSON in the strict sense."""
    net = example_net()
    net.layers[-1].weight.data[:] = 1e38
    watching = Monitor(tmp_path, every=1)
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
        train(net, watching, lr=1e30)
    text = (tmp_path / "monitor.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert monitor.read_records(tmp_path) == watching.records


# ---- the file


def test_file(tmp_path):
    watching = Monitor(tmp_path)
    train(example_net(), watching, epochs=3)
    lines = (tmp_path / "monitor.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == watching.records == monitor.read_records(tmp_path)
    assert len(lines) == 4 and {file.name for file in tmp_path.iterdir()} == {"monitor.jsonl"}


def test_resumed(tmp_path):
    """Of a run that was killed in epoch 3 and is resumed after epoch 1, records of epoch 1 stay."""
    train(example_net(), Monitor(tmp_path), epochs=3)
    with open(tmp_path / "monitor.jsonl", "a") as file:
        file.write('{"epoch": 4, "st')
    watching = Monitor(tmp_path)
    train(example_net(), watching, epochs=3, start=1)
    expected = [(1, 1), (1, 3), (2, 3), (3, 3)]
    assert [(record["epoch"], record["step"]) for record in watching.records] == expected
    assert monitor.read_records(tmp_path) == watching.records


def test_read_records(tmp_path):
    assert monitor.read_records(tmp_path) == []
    file = tmp_path / "monitor.jsonl"
    file.write_text('{"epoch": 1}\n{"epo')
    assert monitor.read_records(file) == [{"epoch": 1}]
    file.write_text('{"epo\n{"epoch": 1}\n')
    with pytest.raises(ValueError, match="monitor.jsonl: damaged"):
        monitor.read_records(tmp_path)


def test_refused():
    with pytest.raises(ValueError, match="every: expected"):
        Monitor(every=0)
