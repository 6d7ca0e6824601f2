"""nn.summary: against published counts, what a forward pass keeps, and which pixels a gradient reaches."""

import numpy as np
import pytest
from layers_support import spread
from test_nn import LAYERS, every_layer

from fastcnn import nn


def by_name(summary):
    return {row.name: row for row in summary.rows}


@every_layer
def test_memory_and_parameters_are_those_of_the_layer(name):
    make, shape = LAYERS[name]
    layer = make().train()
    parameters = [parameter.data for _, parameter in layer.named_parameters()]
    x = spread(1, *shape[1:], dtype=parameters[0].dtype if parameters else np.float32)
    layer(x)
    buffers = [buffer for module in layer.modules() for buffer in vars(module).get("_buffers", {}).values()]
    summary = layer.summary(shape[1:])
    assert summary.memory == sum(buffer.size for buffer in buffers)
    assert summary.parameters == sum(map(np.size, parameters))
    assert summary.rows[-1].shape == layer.output_shape(shape[1:])
    for total in ("memory", "parameters", "flops"):
        assert getattr(summary, total) == sum(getattr(row, total) for row in summary.rows)


def test_products():
    """Two for each multiply-add: of 2 x 3 outputs, each of 4 filters of 2 channels of 3 x 2."""
    conv = nn.Conv2d(4, 4, (3, 2), (2, 1), groups=2)
    assert conv.summary((4, 6, 4)).flops == 2 * (2 * 3) * 4 * 2 * 3 * 2
    assert nn.Linear(7, 5).summary((7,)).flops == 2 * 7 * 5
    net = nn.Sequential(nn.BatchNorm2d(4), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.LayerNorm(24))
    assert net.summary((4, 6, 4)).flops == 0


def test_resnet18_is_as_published(empty_weights):
    """1.81 G multiply-adds, 11.69 M parameters; fields of 43, 99, 211 and 435 pixels after the four stages."""
    summary = nn.resnet18().summary((3, 224, 224))
    assert summary.parameters == 11_689_512
    assert summary.flops == 2 * 1_814_073_344
    fields = [row.field for row in summary.rows if row.kind == "Add"]
    assert fields[1::2] == [(43, 43), (99, 99), (211, 211), (435, 435)]
    rows = by_name(summary)
    assert (rows["0"].kind, rows["0"].shape, rows["0"].field) == ("Conv2d", (64, 112, 112), (7, 7))
    assert rows["0"].flops == 2 * 64 * 112 * 112 * 3 * 49 and rows["0"].memory == 4 * 64 * 112 * 112
    assert rows["2"].kind == "MaxPool2d" and rows["2"].field == (11, 11)
    assert rows["5.shortcut.0"].field == (43, 43) and rows["5.main.0"].field == (51, 51)
    assert rows["5.main.0"].parameters == 128 * 64 * 9
    assert summary.rows[-1].kind == "Linear" and summary.rows[-1].field is None


def test_vgg16_is_as_published(empty_weights):
    """15.47 G multiply-adds, 138.4 M parameters; fields of 196 and 212 pixels at the end of the convolutions."""
    summary = nn.vgg16(1000, (3, 224, 224), batch_norm=False, head="imagenet").summary((3, 224, 224))
    assert summary.parameters == 138_357_544
    assert summary.flops == 2 * 15_470_264_320
    assert [row.field for row in summary.rows if row.kind == "Conv2d"][-1] == (196, 196)
    pooled = [row for row in summary.rows if row.kind == "MaxPool2d"][-1]
    assert (pooled.field, pooled.shape) == ((212, 212), (512, 7, 7))


@pytest.mark.parametrize(
    "make, multiply_adds",
    [(nn.resnet34, 3_663_761_408), (nn.resnet50, 4_089_184_256)],  # torchvision's documentation: 3.66 G, 4.09 G
)
def test_other_networks_are_as_published(make, multiply_adds, empty_weights):
    assert make().summary((3, 224, 224)).flops == 2 * multiply_adds


def test_three_small_filters_see_as_much_as_a_large_one():
    three = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(3))).summary((8, 9, 9))
    one = nn.Conv2d(8, 8, 7, padding=3, bias=False).summary((8, 9, 9))
    assert [row.field for row in three.rows] == [(3, 3), (5, 5), (7, 7)] and one.rows[0].field == (7, 7)
    assert (three.parameters, one.parameters) == (27 * 8**2, 49 * 8**2)


def positive(*arguments, **options):
    conv = nn.Conv2d(*arguments, **options, dtype=np.float64)
    conv.weight.data[...] = 1
    return conv


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(positive(1, 1, (3, 2), (2, 1), dilation=(1, 3)), nn.AvgPool2d(2), positive(1, 1, 3), nn.Tanh()),
        nn.Sequential(positive(1, 1, 5, 3), nn.AvgPool2d((2, 3), 2), positive(1, 1, 2, dilation=2)),
        nn.Sequential(nn.AvgPool2d(2), nn.Residual(nn.Identity(), positive(1, 1, 5, padding=2)), positive(1, 1, 3)),
    ],
)
def test_the_field_is_what_a_gradient_reaches(net):
    x = np.full((1, 1, 60, 60), 1e-3)
    out = net(x)
    dout = np.zeros(out.shape)
    dout[0, 0, out.shape[2] // 2, out.shape[3] // 2] = 1
    rows, columns = np.nonzero(abs(net.backward(dout)[0, 0]) > 1e-9)  # transforms leave rounding errors beside it
    reached = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert net.summary((1, 60, 60)).rows[-1].field == reached


def test_the_table():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU(), nn.Dropout(0)), nn.Flatten(), nn.Linear(1800, 3))
    lines = str(net.summary((1, 32, 32))).splitlines()
    assert [line.split() for line in lines if line.split()[0] in ("0", "1.0", "1.1", "2", "3", "total")] == [
        ["0", "Conv2d", "2", "x", "30", "x", "30", "20", "32,400", "3", "x", "3", "0"],
        ["1.0", "ReLU", "2", "x", "30", "x", "30", "0", "0", "3", "x", "3", "7,200"],
        ["1.1", "Dropout", "2", "x", "30", "x", "30", "0", "0", "3", "x", "3", "0"],
        ["2", "Flatten", "1800", "0", "0", "3", "x", "3", "0"],
        ["3", "Linear", "3", "5,403", "10,800", "all", "12"],
        ["total", "5,423", "43,200", "7,212"],
    ]
    assert len({len(line) for line in lines[:-1]}) == 1 and "two for each multiply-add" in lines[-1]
    assert str(nn.Sequential().summary((3,))).splitlines()[-2].split() == ["total", "0", "0", "0"]


def test_refused():
    class Composition(nn.Module):
        def __init__(self):
            self.inner = nn.ReLU()

    with pytest.raises(ValueError, match=r"^0: expected input of 3 channels, got \(1, 8, 8\)"):
        nn.Sequential(nn.Conv2d(3, 4, 3)).summary((1, 8, 8))
    with pytest.raises(ValueError, match=r"^1: expected input of 5 channels, got \(4,\)"):
        nn.Sequential(nn.ReLU(), nn.Linear(5, 4)).summary((4,))
    with pytest.raises(ValueError, match="expected to fit"):
        nn.Conv2d(1, 1, 3).summary((1, 2, 2))
    with pytest.raises(ValueError, match="input_shape"):
        nn.ReLU().summary((0, 3))
    with pytest.raises(TypeError, match="^1: expected a layer, or a composition with a method trace"):
        nn.Sequential(nn.ReLU(), Composition()).summary((1, 2, 2))
    with pytest.raises(RuntimeError, match="has no summary"):
        nn.ReLU().inference().summary((6,))
