"""The choice of the algorithm for convolutions: the switch, what obeys it, and the explanation."""

from threading import Thread

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastcnn
from fastcnn import nn
from fastcnn.common.convolution import ALGORITHMS, CHOICES, TENSOR_CORES, WINOGRAD
from fastcnn.cpu.conv import choose
from fastcnn.layers import conv_backward, conv_forward, conv_relu_forward
from fastcnn.layers.algorithm import conv_algorithm, preferred, use_conv_algorithm

X, W = (4, 64, 32, 32), (64, 64, 3, 3)
PASSES = ("forward", "backward_input", "backward_filter")


@pytest.fixture
def used(monkeypatch):
    """The names of the algorithms that compute while the test runs, by pass."""
    used = []

    def noting(name, module):
        class Noting:
            pass

        for direction in PASSES:

            def run(*args, direction=direction):
                used.append((direction, name))
                return getattr(module, direction)(*args)

            setattr(Noting, direction, run)
        return Noting

    for name, module in choose.MODULES.items():
        monkeypatch.setitem(choose.MODULES, name, noting(name, module))
    return used


def images(dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((2, 8, 12, 11)).astype(dtype), rng.standard_normal((8, 8, 3, 3)).astype(dtype)


# ---- the switch


def test_switch_nests_and_restores():
    assert preferred() == "auto"
    with use_conv_algorithm("accurate") as name:
        assert name == preferred() == "accurate"
        with use_conv_algorithm("winograd_f2x3"):
            assert preferred() == "winograd_f2x3"
        assert preferred() == "accurate"
        with pytest.raises(ZeroDivisionError), use_conv_algorithm("direct"):
            raise ZeroDivisionError
        assert preferred() == "accurate"
    assert preferred() == "auto"


def test_one_switch_may_be_used_again():
    direct = use_conv_algorithm("direct")
    with use_conv_algorithm("im2col"), direct, use_conv_algorithm("im2col"), direct:
        assert preferred() == "direct"
    assert preferred() == "auto"
    with direct:
        assert preferred() == "direct"


@pytest.mark.parametrize("algo", ["magic", "", None, 3])
def test_unknown_names(algo):
    with pytest.raises(ValueError, match="^algo: expected one of 'auto', 'accurate', 'direct', .*, got "):
        use_conv_algorithm(algo)
    assert preferred() == "auto"


def test_threads_choose_for_themselves():
    seen = []

    def work():
        seen.append(preferred())
        with use_conv_algorithm("im2col"):
            seen.append(preferred())

    with use_conv_algorithm("direct"):
        thread = Thread(target=work)
        thread.start()
        thread.join()
        assert preferred() == "direct"
    assert seen == ["auto", "im2col"]


def test_it_is_public():
    assert fastcnn.use_conv_algorithm is use_conv_algorithm and fastcnn.conv_algorithm is conv_algorithm


# ---- what obeys it


def test_layers_obey(used):
    x, w = images()
    with use_conv_algorithm("winograd_f4x3"):
        out, cache = conv_forward(x, w, None, pad=1)
        conv_backward(out, cache)
        conv_relu_forward(x, w, None, pad=1)
    assert used == [(direction, "winograd_f4x3") for direction in ("forward", *PASSES[1:], "forward")]


def test_a_call_s_own_algorithm_wins(used):
    x, w = images()
    with use_conv_algorithm("winograd_f4x3"):
        out, cache = conv_forward(x, w, None, pad=1, algo="im2col")
        conv_backward(out, cache)
        conv_backward(out, cache, algo="direct")
        conv_forward(x, w, None, {"stride": 1, "pad": 1, "algo": "winograd_f2x3"})
    assert [name for _, name in used] == ["im2col"] * 3 + ["direct"] * 2 + ["winograd_f2x3"]


def test_the_backward_pass_may_stand_elsewhere(used):
    """An algorithm that the forward pass was not told by name is not remembered."""
    x, w = images()
    with use_conv_algorithm("winograd_f4x3"):
        out, cache = conv_forward(x, w, None, pad=1)
    with use_conv_algorithm("im2col"):
        conv_backward(out, cache)
    assert [name for _, name in used] == ["winograd_f4x3", "im2col", "im2col"]


def test_networks_obey(used):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)
    with use_conv_algorithm("winograd_f2x3"):
        net.backward(net.forward(x))
        net.inference().forward(x)
    assert len(used) >= 7 and {name for _, name in used} == {"winograd_f2x3"}
    expected = net.inference().forward(x).copy()
    with use_conv_algorithm("accurate"):
        assert_allclose(net.inference().forward(x), expected, rtol=1e-4, atol=1e-5)


def test_where_it_does_not_apply_convolutions_are_direct(used):
    """Inside the switch; a call that names it is told."""
    x, w = images()
    with use_conv_algorithm("winograd_f4x3"):
        conv_forward(x, w, None, stride=2)
        conv_forward(x, w[:, :, :1, :1], None)
        conv_forward(x, w[:, :1], None, groups=8)
    assert [name for _, name in used] == ["direct", "direct", "depthwise"]


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 3}, {"stride": (1, 2)}, {"dilation": (2, 1)}, {"groups": 2}, {"pad": 5}, {"pad": (0, 5)},
        {"kernel": (1, 1)}, {"kernel": (3, 5)}, {"kernel": (2, 2)},
    ],
)  # fmt: skip
@pytest.mark.parametrize("algo", WINOGRAD)
def test_winograd_refuses(algo, change):
    _, taps, stride = WINOGRAD[algo]
    given = {"kernel": (taps, taps), "groups": 1, "stride": stride, **change}
    x, w = np.ones((2, 4, 12, 11)), np.ones((6, 4 // given["groups"], *given.pop("kernel")))
    message = rf"^algo: '{algo}' computes filters of {taps} x {taps} pixels with stride {stride}, .* got w \({len(w)}, "
    with pytest.raises(ValueError, match=message):
        conv_forward(x, w, None, **given, algo=algo)
    out, cache = conv_forward(x, w, None, **given)
    with pytest.raises(ValueError, match=message):
        conv_backward(out, cache, algo=algo)
    with pytest.raises(ValueError, match=message):
        conv_algorithm(x.shape, w.shape, **given, algo=algo)


def test_depthwise_refuses():
    x, w = images()
    with pytest.raises(ValueError, match="^algo: 'depthwise' computes filters of one channel, groups = C, got w "):
        conv_forward(x, w, None, algo="depthwise")


def test_names_mean_the_same_on_the_reference():
    x, w = images(np.float64)
    with fastcnn.backend("reference"), use_conv_algorithm("winograd_f4x3"):
        out, _ = conv_forward(x, w, None, pad=1)
        assert_array_equal(out, conv_forward(x, w, None, pad=1, algo="im2col")[0])
        with pytest.raises(ValueError, match="^algo: 'winograd_f4x3' computes"):
            conv_forward(x, w, None, stride=2, algo="winograd_f4x3")


# ---- the explanation


def chosen(explanation):
    return [getattr(explanation, direction) for direction in PASSES]


def test_explains_what_is_used(used):
    for x_shape, w_shape, options in [
        (X, W, {"pad": 1}),
        ((2, 3, 30, 30), (16, 3, 5, 5), {"stride": 2}),
        ((2, 16, 9, 9), (16, 1, 3, 3), {"pad": 1, "groups": 16}),
        ((1, 64, 7, 7), (32, 64, 1, 1), {}),
        ((2, 6, 14, 14), (16, 6, 5, 5), {}),
    ]:
        rng = np.random.default_rng(0)
        for dtype in (np.float32, np.float64):
            used.clear()
            x, w = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
            conv_backward(*conv_forward(x, w, None, **options))
            assert [name for _, name in used] == chosen(conv_algorithm(x_shape, w_shape, **options, dtype=dtype))


@pytest.mark.parametrize("algo", [algo for algo in CHOICES if not algo.endswith(("x5", "s2")) and algo != "depthwise"])
def test_explains_what_was_asked_for(algo):
    with use_conv_algorithm(algo):
        inside = conv_algorithm(X, W, pad=1)
    assert inside == conv_algorithm(X, W, pad=1, algo=algo)
    if algo == "auto":
        assert all(inside.costs.values()) and set(chosen(inside)) <= {"direct", *WINOGRAD}
        for direction, costs in inside.costs.items():
            assert getattr(inside, direction) == min(costs, key=costs.get)
    else:
        assert chosen(inside) == ["direct" if algo == "accurate" else algo] * 3
        assert list(inside.costs.values()) == [{}] * 3


def test_the_choice_is_sensible():
    """Winograd where a layer is deep; directly where Winograd cannot, or where there is next to nothing to compute."""
    assert all(name in WINOGRAD for name in chosen(conv_algorithm(X, W, pad=1)))
    assert set(chosen(conv_algorithm(X, W, pad=1, stride=2))) <= {"winograd_f2x3s2", "winograd_f4x3s2"}
    assert chosen(conv_algorithm(X, W, pad=1, stride=(2, 1))) == ["direct"] * 3
    assert chosen(conv_algorithm(X, (64, 64, 1, 1))) == ["direct"] * 3
    assert conv_algorithm(X, (64, 1, 3, 3), pad=1, groups=64).forward == "depthwise"
    assert {name for name in chosen(conv_algorithm(X, (64, 64, 5, 5), pad=2)) if name in WINOGRAD} <= {
        "winograd_f2x5", "winograd_f4x5"
    }  # fmt: skip
    assert set(chosen(conv_algorithm(X, W, pad=1, algo="accurate"))) == {"direct"}


def test_it_is_a_table_to_read():
    lines = str(conv_algorithm(X, W, pad=1)).splitlines()
    assert [line.split()[0] for line in lines] == list(PASSES)
    for line in lines:
        _, name, *rest = line.split()
        assert name in ALGORITHMS and " ".join(rest).startswith(f"estimated cost: {name} 1.00, ")
        assert "direct " in line and line == line.rstrip()
    assert str(conv_algorithm(X, W, algo="direct")).split() == [part for name in PASSES for part in (name, "direct")]
    assert "forward" in str(conv_algorithm((0, 64, 32, 32), W))  # nothing to compute costs nothing


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((X[1:], W), {}, r"x: expected shape \(N, C, H, W\)"),
        ((X, W[1:]), {}, r"w: expected shape \(F, C/groups, HH, WW\)"),
        ((X, (64, 32, 3, 3)), {}, r"w: expected shape \(F, 64, HH, WW\)"),
        ((X, W), {"groups": 3}, "groups: expected a divisor"),
        ((X, (64, 64, 33, 3)), {}, r"kernel \(33, 3\)"),
        ((X, W), {"stride": 0}, "stride: expected ints of at least 1"),
        ((X, W), {"algo": "magic"}, "algo: expected one of"),
    ],
)
def test_bad_arguments(arguments, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        conv_algorithm(*arguments, **options)


@pytest.mark.parametrize("dtype", [np.float16, int])
def test_bad_dtype(dtype):
    with pytest.raises(TypeError, match="^dtype: expected float32 or float64"):
        conv_algorithm(X, W, dtype=dtype)


@pytest.mark.parametrize("algo", TENSOR_CORES)
def test_tensor_cores_are_a_gpus(algo):
    """Arrays of the host are refused where the call names them, and computed directly where it does not."""
    rng = np.random.default_rng()
    x, w = rng.standard_normal((1, 2, 5, 5)), rng.standard_normal((3, 2, 3, 3))
    with pytest.raises(ValueError, match=f"algo: '{algo}' .*tensor cores of a GPU.*to_device"):
        conv_forward(x, w, None, stride=1, pad=0, algo=algo)
    with pytest.raises(ValueError, match="tensor cores"):
        conv_algorithm(x.shape, w.shape, algo=algo)
    direct, _ = conv_forward(x, w, None, stride=1, pad=0, algo="direct")
    with use_conv_algorithm(algo):
        out, _ = conv_forward(x, w, None, stride=1, pad=0)
        assert chosen(conv_algorithm(x.shape, w.shape)) == ["direct"] * 3
    assert_array_equal(out, direct)
