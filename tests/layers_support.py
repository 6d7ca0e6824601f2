"""What the tests of the layers share: the floors they run on, numerical gradients, and a table of all layers."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastcnn import layers as L
from fastcnn.layers.backend import backend


@pytest.fixture(params=["reference", "cpu"], scope="module", autouse=True)
def floor_in_use(request):
    """Each test of a module that imports this runs on each floor."""
    with backend(request.param):
        yield request.param


def spread(*shape, seed=0, dtype=np.float64):
    """Shuffled numbers of equal distance in (-2, 2), none of them 0: no kink is near, no maximum is shared."""
    size = int(np.prod(shape))
    values = np.linspace(-1.97, 1.98, size) if size > 1 else np.full(size, 0.7)
    return np.random.default_rng([seed, size]).permutation(values).reshape(shape).astype(dtype)


def assert_gradient(f, x, dout, gradient, h=1e-6, most=24, **tolerances):
    """`gradient` is that of sum(f() * dout) with respect to x, which f reads.

    Central differences, x perturbed in place, at no more than `most` elements.
    """
    assert gradient.shape == x.shape
    elements = list(np.ndindex(x.shape))
    if len(elements) > most:
        elements = [elements[i] for i in np.random.default_rng(x.size).choice(len(elements), most, replace=False)]
    for i in elements:
        value = x[i]
        x[i] = value + h
        above = f().copy()
        x[i] = value - h
        below = f().copy()
        x[i] = value
        assert_allclose(gradient[i], np.sum((above - below) * dout) / (2 * h), **tolerances)


def layouts(x):
    """Arrays equal to x that lie otherwise in memory."""
    strided = np.zeros([2 * n + 1 for n in x.shape], x.dtype)[(..., *(slice(1, None, 2) for _ in x.shape))]
    strided[...] = x
    reverse = (..., *(slice(None, None, -1) for _ in x.shape))
    backwards = x[reverse].copy()[reverse]
    read_only = x.copy()
    read_only.flags.writeable = False
    packed = np.zeros(x.shape, np.dtype([("flag", "u1"), ("x", x.dtype)]))["x"]  # unaligned
    packed[...] = x
    swapped = x.astype(x.dtype.newbyteorder())
    return {
        "fortran": np.asfortranarray(x),
        "strided": strided,
        "backwards": backwards,
        "read-only": read_only,
        "unaligned": packed,
        "byte-swapped": swapped,
        "list": x.tolist() if x.dtype == np.float64 and x.size else x.copy(),
    }


def buffers(shape, dtype):
    """Arrays to receive a result of that shape, by kind."""
    return {
        "contiguous": np.full(shape, 7, dtype),
        "fortran": np.full(shape, 7, dtype, order="F"),
        "strided": np.full([2 * n for n in shape], 7, dtype)[tuple(slice(None, None, 2) for _ in shape)],
        "backwards": np.full(shape, 7, dtype)[::-1],
        "subclass": np.full(shape, 7, dtype).view(type("Subclass", (np.ndarray,), {})),
    }


class Layer(NamedTuple):
    """One layer: forward(*arrays, out=) -> out, cache; backward(dout, cache, out=) -> gradients of the arrays."""

    name: str
    forward: Callable
    backward: Callable
    shapes: dict
    in_place: bool = True  # the output has the shape of x
    constant: tuple = ()  # arrays without a gradient

    def arrays(self, dtype=np.float64):
        """Fresh arrays by name."""
        arrays = {name: spread(*shape, seed=i, dtype=dtype) for i, (name, shape) in enumerate(self.shapes.items())}
        for name in arrays.keys() & {"running_var"}:
            arrays[name] = np.abs(arrays[name])
        return arrays

    def gradients(self, dout, cache, **keywords):
        """The gradients as a tuple."""
        result = self.backward(dout, cache, **keywords)
        return result if isinstance(result, tuple) else (result,)

    def run(self, arrays, dout):
        """out and the gradients."""
        out, cache = self.forward(*arrays.values())
        return out.copy(), [gradient.copy() for gradient in self.gradients(dout, cache)]


IMAGES, ROWS = {"x": (3, 4, 5, 4)}, {"x": (5, 6)}
CHANNELS, COLUMNS = {"gamma": (4,), "beta": (4,)}, {"gamma": (6,), "beta": (6,)}
CONV = {"x": (2, 4, 6, 5), "w": (3, 4, 3, 2), "b": (3,)}
CONV_PARAM, POOL_PARAM = {"stride": 2, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}


def _train(forward):
    return lambda x, gamma, beta, **k: forward(x, gamma, beta, {"mode": "train"}, **k)


def _test(forward):
    def forward_in_test_mode(x, gamma, beta, running_mean, running_var, **k):
        param = {"mode": "test", "running_mean": running_mean, "running_var": running_var}
        return forward(x, gamma, beta, param, **k)

    return forward_in_test_mode


def _with(forward, *fixed, **keywords):
    return lambda *arrays, **k: forward(*arrays, *fixed, **keywords, **k)


def _with_add(forward, add):
    return lambda x, *arrays, **k: forward(x, add, *arrays, **k)


_statistics = {"running_mean": (6,), "running_var": (6,)}
_channel_statistics = {"running_mean": (4,), "running_var": (4,)}
_running = ("running_mean", "running_var")

LAYERS = [
    Layer("affine", L.affine_forward, L.affine_backward, {"x": (3, 2, 4), "w": (8, 5), "b": (5,)}, False),
    Layer("affine without bias", _with(L.affine_forward, None), lambda d, c, **k: L.affine_backward(d, c, **k)[:2],
          {"x": (3, 8), "w": (8, 5)}, False),
    Layer("flatten", L.flatten_forward, L.flatten_backward, {"x": (3, 2, 4)}, False),
    Layer("conv", _with(L.conv_forward, CONV_PARAM), L.conv_backward, CONV, False),
    Layer("conv, pairs", _with(L.conv_forward, stride=(2, 1), pad=(0, 2), dilation=(1, 2)), L.conv_backward,
          CONV, False),
    Layer("conv, groups", _with(L.conv_forward, pad=1, groups=2, algo="im2col"), L.conv_backward,
          {"x": (2, 4, 4, 4), "w": (6, 2, 3, 3), "b": (6,)}, False),
    Layer("conv, depthwise", _with(L.conv_forward, None, pad=1, groups=4),
          lambda d, c, **k: L.conv_backward(d, c, **k)[:2], {"x": (2, 4, 4, 4), "w": (4, 1, 3, 3)}),
    Layer("max_pool", _with(L.max_pool_forward, POOL_PARAM), L.max_pool_backward, IMAGES, False),
    Layer("max_pool, overlapping", _with(L.max_pool_forward, pool_height=3, pool_width=2, stride=(2, 1), pad=(1, 0)),
          L.max_pool_backward, IMAGES, False),
    Layer("avg_pool", _with(L.avg_pool_forward, pool_height=2, pool_width=3, stride=(1, 2), pad=1),
          L.avg_pool_backward, IMAGES, False),
    Layer("global_avg_pool", L.global_avg_pool_forward, L.global_avg_pool_backward, IMAGES, False),
    Layer("relu", L.relu_forward, L.relu_backward, ROWS),
    Layer("leaky_relu", _with(L.leaky_relu_forward, 0.2), L.leaky_relu_backward, ROWS),
    Layer("prelu", L.prelu_forward, L.prelu_backward, {**IMAGES, "slope": (4,)}),
    Layer("prelu, one slope", L.prelu_forward, L.prelu_backward, {**ROWS, "slope": (1,)}),
    Layer("elu", _with(L.elu_forward, 0.7), L.elu_backward, ROWS),
    Layer("gelu", L.gelu_forward, L.gelu_backward, ROWS),
    Layer("gelu, tanh", _with(L.gelu_forward, "tanh"), L.gelu_backward, ROWS),
    Layer("sigmoid", L.sigmoid_forward, L.sigmoid_backward, ROWS),
    Layer("tanh", L.tanh_forward, L.tanh_backward, ROWS),
    Layer("maxout", _with(L.maxout_forward, 2), L.maxout_backward, IMAGES, False),
    Layer("add", L.add_forward, L.add_backward, {"a": (3, 4), "b": (3, 4)}),
    Layer("add_relu", L.add_relu_forward, L.add_relu_backward, {"a": (3, 4), "b": (3, 4)}),
    Layer("batchnorm", _train(L.batchnorm_forward), L.batchnorm_backward, {**ROWS, **COLUMNS}),
    Layer("batchnorm_alt", _train(L.batchnorm_forward), L.batchnorm_backward_alt, {**ROWS, **COLUMNS}),
    Layer("batchnorm, test", _test(L.batchnorm_forward), L.batchnorm_backward,
          {**ROWS, **COLUMNS, **_statistics}, constant=_running),
    Layer("spatial_batchnorm", _train(L.spatial_batchnorm_forward), L.spatial_batchnorm_backward,
          {**IMAGES, **CHANNELS}),
    Layer("spatial_batchnorm, test", _test(L.spatial_batchnorm_forward), L.spatial_batchnorm_backward,
          {**IMAGES, **CHANNELS, **_channel_statistics}, constant=_running),
    Layer("batchnorm_relu", _train(L.batchnorm_relu_forward), L.batchnorm_relu_backward, {**ROWS, **COLUMNS}),
    Layer("spatial_batchnorm_relu", _train(L.spatial_batchnorm_relu_forward), L.spatial_batchnorm_relu_backward,
          {**IMAGES, **CHANNELS}),
    Layer("spatial_batchnorm_relu, test", _test(L.spatial_batchnorm_relu_forward), L.spatial_batchnorm_relu_backward,
          {**IMAGES, **CHANNELS, **_channel_statistics}, constant=_running),
    Layer("batchnorm_add_relu", lambda *a, **k: L.batchnorm_add_relu_forward(*a, {"mode": "train"}, **k),
          L.batchnorm_add_relu_backward, {**ROWS, "add": (5, 6), **COLUMNS}),
    Layer("spatial_batchnorm_add_relu, test",
          lambda x, add, *a, **k: _test(_with_add(L.spatial_batchnorm_add_relu_forward, add))(x, *a, **k),
          L.spatial_batchnorm_add_relu_backward,
          {**IMAGES, "add": (3, 4, 5, 4), **CHANNELS, **_channel_statistics}, constant=_running),
    Layer("layernorm", _with(L.layernorm_forward, {}), L.layernorm_backward, {**ROWS, **COLUMNS}),
    Layer("spatial_layernorm", L.spatial_layernorm_forward, L.spatial_layernorm_backward, {**IMAGES, **CHANNELS}),
    Layer("groupnorm", _with(L.groupnorm_forward, 2), L.groupnorm_backward, {**ROWS, **COLUMNS}),
    Layer("spatial_groupnorm", _with(L.spatial_groupnorm_forward, 2, {"eps": 1e-3}), L.spatial_groupnorm_backward,
          {**IMAGES, "gamma": (1, 4, 1, 1), "beta": (1, 4, 1, 1)}),
    Layer("spatial_groupnorm, flat", _with(L.spatial_groupnorm_forward, 2), L.spatial_groupnorm_backward,
          {**IMAGES, "gamma": (4,), "beta": (1, 4, 1, 1)}),
    Layer("instancenorm", L.instancenorm_forward, L.instancenorm_backward, {**ROWS, **COLUMNS}),
    Layer("spatial_instancenorm", L.spatial_instancenorm_forward, L.spatial_instancenorm_backward,
          {**IMAGES, **CHANNELS}),
    Layer("dropout, seed", _with(L.dropout_forward, {"p": 0.6, "mode": "train", "seed": 3}), L.dropout_backward, ROWS),
    Layer("dropout, key", _with(L.dropout_forward, p=0.6, key=3), L.dropout_backward, ROWS),
    Layer("dropout, key alone", _with(L.dropout_forward, p=0.6, key=3, save_mask=False), L.dropout_backward, ROWS),
    Layer("dropout, vanilla", _with(L.dropout_forward, p=0.6, key=3, inverted=False), L.dropout_backward, ROWS),
    Layer("dropout, test", _with(L.dropout_forward, p=0.6, mode="test"), L.dropout_backward, ROWS),
    Layer("dropout, vanilla test", _with(L.dropout_forward, p=0.6, mode="test", inverted=False), L.dropout_backward,
          ROWS),
    Layer("affine_relu", L.affine_relu_forward, L.affine_relu_backward,
          {"x": (3, 2, 4), "w": (8, 5), "b": (5,)}, False),
    Layer("affine_bn_relu", lambda *a, **k: L.affine_bn_relu_forward(*a, {"mode": "train"}, **k),
          L.affine_bn_relu_backward, {"x": (6, 4), "w": (4, 4), "b": (4,), **CHANNELS}),
    Layer("conv_relu", _with(L.conv_relu_forward, CONV_PARAM), L.conv_relu_backward, CONV, False),
    Layer("conv_bn_relu", lambda *a, **k: L.conv_bn_relu_forward(*a, {"stride": 1, "pad": 1}, {"mode": "train"}, **k),
          L.conv_bn_relu_backward, {"x": (2, 4, 5, 4), "w": (4, 4, 3, 3), "b": (4,), **CHANNELS}),
    Layer("conv_relu_pool", _with(L.conv_relu_pool_forward, {"stride": 1, "pad": 1}, POOL_PARAM),
          L.conv_relu_pool_backward, {"x": (2, 4, 6, 5), "w": (3, 4, 3, 3), "b": (3,)}, False),
]  # fmt: skip

each_layer = pytest.mark.parametrize("layer", LAYERS, ids=[layer.name for layer in LAYERS])
