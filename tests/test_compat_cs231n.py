"""Nets as the course's students write them, on fastcnn.compat.cs231n and on plain NumPy: the same losses.

The nets, the solver and the plain layers below are small re-creations. Everything takes its layer functions from a
namespace, so that the two differ in nothing but the import.
"""

import importlib
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

NAMES = {
    "layers": """affine_forward affine_backward relu_forward relu_backward batchnorm_forward batchnorm_backward
        batchnorm_backward_alt layernorm_forward layernorm_backward dropout_forward dropout_backward conv_forward_naive
        conv_backward_naive max_pool_forward_naive max_pool_backward_naive spatial_batchnorm_forward
        spatial_batchnorm_backward spatial_groupnorm_forward spatial_groupnorm_backward svm_loss softmax_loss""",
    "fast_layers": """conv_forward_im2col conv_forward_strides conv_forward_fast conv_backward_im2col
        conv_backward_strides conv_backward_fast max_pool_forward_fast max_pool_forward_reshape max_pool_forward_im2col
        max_pool_backward_fast max_pool_backward_reshape max_pool_backward_im2col""",
    "layer_utils": """affine_relu_forward affine_relu_backward affine_bn_relu_forward affine_bn_relu_backward
        conv_relu_forward conv_relu_backward conv_bn_relu_forward conv_bn_relu_backward conv_relu_pool_forward
        conv_relu_pool_backward""",
    "optim": "sgd sgd_momentum rmsprop adam",
    "im2col": "get_im2col_indices im2col_indices col2im_indices",
}


def star_import(module):
    """What ``from fastcnn.compat.cs231n.<module> import *`` brings."""
    module = importlib.import_module(f"fastcnn.compat.cs231n.{module}")
    return {name: getattr(module, name) for name in module.__all__}


@pytest.mark.parametrize("module", NAMES)
def test_star_import(module):
    expected = set(NAMES[module].split())
    if module == "layer_utils":  # brings the others, as the course's does
        expected |= {*NAMES["layers"].split(), *NAMES["fast_layers"].split()}
    assert set(star_import(module)) == expected


def test_submodules():
    for module in NAMES:
        assert importlib.import_module(f"fastcnn.compat.cs231n.{module}").__doc__


FAST = SimpleNamespace(**star_import("layer_utils"), **star_import("optim"))

# ---- the same in plain NumPy


def affine_forward(x, w, b):
    return x.reshape(len(x), -1) @ w + b, (x, w, b)


def affine_backward(dout, cache):
    x, w, _ = cache
    return (dout @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dout, dout.sum(axis=0)


def relu_forward(x):
    return np.maximum(x, 0), x


def relu_backward(dout, x):
    return dout * (x > 0)


def batchnorm_forward(x, gamma, beta, bn_param):
    momentum, eps = bn_param.get("momentum", 0.9), bn_param.get("eps", 1e-5)
    running = [bn_param.get(name, np.zeros(x.shape[1], x.dtype)) for name in ("running_mean", "running_var")]
    if bn_param["mode"] == "train":
        mean, var = x.mean(axis=0), x.var(axis=0)
        running = [momentum * old + (1 - momentum) * new for old, new in zip(running, (mean, var), strict=True)]
    else:
        mean, var = running
    bn_param["running_mean"], bn_param["running_var"] = running
    sigma = np.sqrt(var + eps)
    xhat = (x - mean) / sigma
    return gamma * xhat + beta, (xhat, gamma, sigma)


def batchnorm_backward(dout, cache):
    xhat, gamma, sigma = cache
    dgamma, dbeta = (dout * xhat).sum(axis=0), dout.sum(axis=0)
    return gamma / sigma * (dout - dbeta / len(dout) - xhat * dgamma / len(dout)), dgamma, dbeta


def layernorm_forward(x, gamma, beta, ln_param):
    sigma = np.sqrt(x.var(axis=1, keepdims=True) + ln_param.get("eps", 1e-5))
    xhat = (x - x.mean(axis=1, keepdims=True)) / sigma
    return gamma * xhat + beta, (xhat, gamma, sigma)


def layernorm_backward(dout, cache):
    xhat, gamma, sigma = cache
    g = dout * gamma
    dx = (g - g.mean(axis=1, keepdims=True) - xhat * (g * xhat).mean(axis=1, keepdims=True)) / sigma
    return dx, (dout * xhat).sum(axis=0), dout.sum(axis=0)


def dropout_forward(x, dropout_param):
    if "seed" in dropout_param:
        np.random.seed(dropout_param["seed"])
    if dropout_param["mode"] == "test":
        return x, (dropout_param, None)
    mask = (np.random.rand(*x.shape) < dropout_param["p"]) / dropout_param["p"]
    return x * mask, (dropout_param, mask)


def dropout_backward(dout, cache):
    return dout if cache[1] is None else dout * cache[1]


def conv_forward(x, w, b, conv_param):
    windows = _windows(x, w.shape[2:], conv_param)
    return np.einsum("nchwij,fcij->nfhw", windows, w) + b[:, None, None], (x, w, b, conv_param)


def conv_backward(dout, cache):
    x, w, _, conv_param = cache
    pad, stride = conv_param["pad"], conv_param["stride"]
    dw = np.einsum("nfhw,nchwij->fcij", dout, _windows(x, w.shape[2:], conv_param))
    dx = np.zeros((*x.shape[:2], x.shape[2] + 2 * pad, x.shape[3] + 2 * pad), dout.dtype)
    for p, q in np.ndindex(dout.shape[2:]):
        row, column = p * stride, q * stride
        dx[:, :, row : row + w.shape[2], column : column + w.shape[3]] += np.einsum(
            "nf,fcij->ncij", dout[:, :, p, q], w
        )
    return dx[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], dw, dout.sum(axis=(0, 2, 3))


def max_pool_forward(x, pool_param):
    windows = _windows(x, (pool_param["pool_height"], pool_param["pool_width"]), pool_param)
    return windows.max(axis=(4, 5)), (x, pool_param)


def max_pool_backward(dout, cache):
    x, pool_param = cache
    height, width, stride = pool_param["pool_height"], pool_param["pool_width"], pool_param["stride"]
    dx = np.zeros_like(x)
    for n, c, p, q in np.ndindex(dout.shape):
        window = np.s_[n, c, p * stride : p * stride + height, q * stride : q * stride + width]
        dx[window][np.unravel_index(x[window].argmax(), (height, width))] += dout[n, c, p, q]
    return dx


def _windows(x, size, param):
    pad = param.get("pad", 0)
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    stride = param["stride"]
    return np.lib.stride_tricks.sliding_window_view(x, size, (2, 3))[:, :, ::stride, ::stride]


def _in_columns(x):
    """(N, C, H, W) as (N H W, C)."""
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1])


def _in_images(x, shape):
    N, C, H, W = shape
    return x.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def spatial_batchnorm_forward(x, gamma, beta, bn_param):
    out, cache = batchnorm_forward(_in_columns(x), gamma, beta, bn_param)
    return _in_images(out, x.shape), cache


def spatial_batchnorm_backward(dout, cache):
    dx, dgamma, dbeta = batchnorm_backward(_in_columns(dout), cache)
    return _in_images(dx, dout.shape), dgamma, dbeta


def softmax_loss(x, y):
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    return -np.log(p[rows, y]).mean(), (p - np.eye(x.shape[1])[y]) / len(x)


def svm_loss(x, y):
    rows = np.arange(len(x))
    margins = np.maximum(0, x - x[rows, y][:, None] + 1)
    margins[rows, y] = 0
    dx = (margins > 0).astype(x.dtype)
    dx[rows, y] -= dx.sum(axis=1)
    return margins.sum() / len(x), dx / len(x)


def sgd(w, dw, config):
    return w - config["learning_rate"] * dw, config


def sgd_momentum(w, dw, config):
    config["velocity"] = config.get("momentum", 0.9) * config.get("velocity", 0) - config["learning_rate"] * dw
    return w + config["velocity"], config


def rmsprop(w, dw, config):
    config["cache"] = 0.99 * config.get("cache", 0) + 0.01 * dw**2
    return w - config["learning_rate"] * dw / (np.sqrt(config["cache"]) + 1e-8), config


def adam(w, dw, config):
    config["t"] = config.get("t", 0) + 1
    config["m"] = 0.9 * config.get("m", 0) + 0.1 * dw
    config["v"] = 0.999 * config.get("v", 0) + 0.001 * dw**2
    mhat, vhat = config["m"] / (1 - 0.9 ** config["t"]), config["v"] / (1 - 0.999 ** config["t"])
    return w - config["learning_rate"] * mhat / (np.sqrt(vhat) + 1e-8), config


def _chain(*names):
    """A sandwich layer of the plain functions; arguments are shared out by their number."""
    steps = [(globals()[name + "_forward"], globals()[name + "_backward"]) for name in names]

    def forward(x, *arguments):
        caches, arguments = [], list(arguments)
        learned = {"affine": 2, "conv": 2, "spatial_batchnorm": 2}
        taken = [[arguments.pop(0) for _ in range(learned.get(name, 0))] for name in names]
        for given, name in zip(taken, names, strict=True):
            given += [arguments.pop(0)] if name in ("conv", "spatial_batchnorm", "max_pool") else []
        for (step, _), given in zip(steps, taken, strict=True):
            x, cache = step(x, *given)
            caches.append(cache)
        return x, caches

    def backward(dout, caches):
        gradients = []
        for (_, step), cache in zip(reversed(steps), reversed(caches), strict=True):
            result = step(dout, cache)
            dout, *more = result if isinstance(result, tuple) else (result,)
            gradients = more + gradients
        return dout, *gradients

    return forward, backward


affine_relu_forward, affine_relu_backward = _chain("affine", "relu")
conv_relu_pool_forward, conv_relu_pool_backward = _chain("conv", "relu", "max_pool")
conv_bn_relu_forward, conv_bn_relu_backward = _chain("conv", "spatial_batchnorm", "relu")
conv_forward_naive = conv_forward_fast = conv_forward
conv_backward_naive = conv_backward_fast = conv_backward
max_pool_forward_fast, max_pool_backward_fast = max_pool_forward, max_pool_backward

PLAIN = SimpleNamespace(
    **{name: value for name, value in globals().items() if callable(value) and not name.startswith("_")}
)

# ---- what students write on top


class FullyConnectedNet:
    """{affine - [batch or layer norm] - relu - [dropout]} x (L - 1) - affine - softmax."""

    def __init__(self, lib, sizes, normalization=None, keep=1.0, seed=None, reg=0.0, dtype=np.float64, scale=0.1):
        self.lib, self.normalization, self.reg, self.dtype = lib, normalization, reg, dtype
        self.depth = len(sizes) - 1
        rng = np.random.default_rng(1)
        self.params = {}
        for i, (D, M) in enumerate(pairwise(sizes), 1):
            self.params[f"W{i}"], self.params[f"b{i}"] = scale * rng.standard_normal((D, M)), np.zeros(M)
            if normalization and i < self.depth:
                self.params[f"gamma{i}"], self.params[f"beta{i}"] = np.ones(M), np.zeros(M)
        self.params = {name: array.astype(dtype) for name, array in self.params.items()}
        self.dropout_param = {"mode": "train", "p": keep} if keep < 1 else {}
        if seed is not None and keep < 1:
            self.dropout_param["seed"] = seed
        self.bn_params = [{"mode": "train"} if normalization == "batchnorm" else {} for _ in range(self.depth - 1)]

    def loss(self, X, y=None):
        lib, p = self.lib, self.params
        mode = "test" if y is None else "train"
        for param in [self.dropout_param, *self.bn_params]:
            if param.get("mode"):
                param["mode"] = mode
        normalize = {"batchnorm": "batchnorm", "layernorm": "layernorm"}.get(self.normalization)
        h, caches = X.astype(self.dtype), []
        for i in range(1, self.depth):
            steps = {}
            h, steps["affine"] = lib.affine_forward(h, p[f"W{i}"], p[f"b{i}"])
            if normalize:
                forward = getattr(lib, normalize + "_forward")
                h, steps["norm"] = forward(h, p[f"gamma{i}"], p[f"beta{i}"], self.bn_params[i - 1])
            h, steps["relu"] = lib.relu_forward(h)
            if self.dropout_param:
                h, steps["dropout"] = lib.dropout_forward(h, self.dropout_param)
            caches.append(steps)
        scores, last = lib.affine_forward(h, p[f"W{self.depth}"], p[f"b{self.depth}"])
        if y is None:
            return scores

        loss, dh = lib.softmax_loss(scores, y)
        grads = {}
        dh, grads[f"W{self.depth}"], grads[f"b{self.depth}"] = lib.affine_backward(dh, last)
        for i in range(self.depth - 1, 0, -1):
            steps = caches[i - 1]
            if "dropout" in steps:
                dh = lib.dropout_backward(dh, steps["dropout"])
            dh = lib.relu_backward(dh, steps["relu"])
            if normalize:
                backward = getattr(lib, normalize + "_backward")
                dh, grads[f"gamma{i}"], grads[f"beta{i}"] = backward(dh, steps["norm"])
            dh, grads[f"W{i}"], grads[f"b{i}"] = lib.affine_backward(dh, steps["affine"])
        for i in range(1, self.depth + 1):
            loss += 0.5 * self.reg * np.sum(p[f"W{i}"] ** 2)
            grads[f"W{i}"] = grads[f"W{i}"] + self.reg * p[f"W{i}"]
        return loss, grads


class ThreeLayerConvNet:
    """conv - [batch norm] - relu - 2x2 max pool - affine - relu - affine - softmax."""

    def __init__(self, lib, batchnorm=False, filters=4, reg=1e-3, dtype=np.float64):
        self.lib, self.reg, self.dtype = lib, reg, dtype
        rng = np.random.default_rng(2)
        self.params = {
            "W1": 0.2 * rng.standard_normal((filters, 3, 3, 3)), "b1": np.zeros(filters),
            "W2": 0.1 * rng.standard_normal((filters * 9, 10)), "b2": np.zeros(10),
            "W3": 0.1 * rng.standard_normal((10, 3)), "b3": np.zeros(3),
        }  # fmt: skip
        if batchnorm:
            self.params |= {"gamma1": np.ones(filters), "beta1": np.zeros(filters)}
        self.params = {name: array.astype(dtype) for name, array in self.params.items()}
        self.bn_param = {"mode": "train"}

    def loss(self, X, y=None):
        lib, p = self.lib, self.params
        W1, b1, W2, b2, W3, b3 = (p[name] for name in ("W1", "b1", "W2", "b2", "W3", "b3"))
        conv_param = {"stride": 1, "pad": (W1.shape[2] - 1) // 2}
        pool_param = {"pool_height": 2, "pool_width": 2, "stride": 2}
        self.bn_param["mode"] = "test" if y is None else "train"
        X = X.astype(self.dtype)
        if "gamma1" in p:
            h, conv_cache = lib.conv_bn_relu_forward(X, W1, b1, p["gamma1"], p["beta1"], conv_param, self.bn_param)
            h, pool_cache = lib.max_pool_forward_fast(h, pool_param)
        else:
            h, conv_cache = lib.conv_relu_pool_forward(X, W1, b1, conv_param, pool_param)
        h, hidden_cache = lib.affine_relu_forward(h, W2, b2)
        scores, last_cache = lib.affine_forward(h, W3, b3)
        if y is None:
            return scores

        grads = {}
        loss, dh = lib.softmax_loss(scores, y)
        dh, grads["W3"], grads["b3"] = lib.affine_backward(dh, last_cache)
        dh, grads["W2"], grads["b2"] = lib.affine_relu_backward(dh, hidden_cache)
        if "gamma1" in p:
            dh = lib.max_pool_backward_fast(dh, pool_cache)
            result = lib.conv_bn_relu_backward(dh, conv_cache)
            _, grads["W1"], grads["b1"], grads["gamma1"], grads["beta1"] = result
        else:
            _, grads["W1"], grads["b1"] = lib.conv_relu_pool_backward(dh, conv_cache)
        for name in ("W1", "W2", "W3"):
            loss += 0.5 * self.reg * np.sum(p[name] ** 2)
            grads[name] = grads[name] + self.reg * p[name]
        return loss, grads


class TwoLayerSVM:
    """affine - relu - affine - hinge loss, on the names of `layers` alone."""

    def __init__(self, lib):
        self.lib, rng = lib, np.random.default_rng(3)
        self.params = {
            "W1": 0.1 * rng.standard_normal((108, 7)), "b1": np.zeros(7),
            "W2": 0.1 * rng.standard_normal((7, 3)), "b2": np.zeros(3),
        }  # fmt: skip

    def loss(self, X, y=None):
        lib, p, grads = self.lib, self.params, {}
        a, first = lib.affine_forward(X, p["W1"], p["b1"])
        h, middle = lib.relu_forward(a)
        scores, last = lib.affine_forward(h, p["W2"], p["b2"])
        if y is None:
            return scores
        loss, dscores = lib.svm_loss(scores, y)
        dh, grads["W2"], grads["b2"] = lib.affine_backward(dscores, last)
        _, grads["W1"], grads["b1"] = lib.affine_backward(lib.relu_backward(dh, middle), first)
        return loss, grads


class Solver:
    """Mini-batches, one update rule and its own configuration for each parameter, decay of the learning rate."""

    def __init__(self, model, X, y, rule, learning_rate, batch=8, decay=0.9):
        self.model, self.X, self.y, self.rule, self.batch, self.decay = model, X, y, rule, batch, decay
        self.configs = {name: {"learning_rate": learning_rate} for name in model.params}
        self.loss_history = []

    def train(self, epochs):
        rng = np.random.default_rng(4)
        for _ in range(epochs):
            for _ in range(len(self.X) // self.batch):
                chosen = rng.choice(len(self.X), self.batch)
                loss, grads = self.model.loss(self.X[chosen], self.y[chosen])
                self.loss_history.append(loss)
                for name, w in self.model.params.items():
                    self.model.params[name], self.configs[name] = self.rule(w, grads[name], self.configs[name])
            for config in self.configs.values():
                config["learning_rate"] *= self.decay
        return self.loss_history

    def accuracy(self):
        return np.mean(self.model.loss(self.X).argmax(axis=1) == self.y)


def worst_gradient_error(model, X, y, h=1e-5, samples=6):
    """Largest relative error of the gradients; the weights are perturbed in place, as the course's checker does."""
    _, grads = model.loss(X, y)
    rng, worst = np.random.default_rng(5), 0.0
    for name, w in model.params.items():
        for _ in range(samples):
            i = tuple(rng.integers(n) for n in w.shape)
            kept = w[i]
            w[i] = kept + h
            above, _ = model.loss(X, y)
            w[i] = kept - h
            below, _ = model.loss(X, y)
            w[i] = kept
            numerical = (above - below) / (2 * h)
            worst = max(worst, abs(numerical - grads[name][i]) / max(1e-4, abs(numerical) + abs(grads[name][i])))
    return worst


IMAGES, LABELS = spread(32, 3, 6, 6), np.random.default_rng(6).integers(0, 3, 32)

NETS = {
    "fully connected": (lambda lib, **k: FullyConnectedNet(lib, [108, 12, 9, 3], reg=1e-2, **k), "sgd_momentum", 5e-2),
    "batchnorm": (lambda lib, **k: FullyConnectedNet(lib, [108, 12, 9, 3], "batchnorm", **k), "adam", 1e-2),
    "layernorm": (lambda lib, **k: FullyConnectedNet(lib, [108, 12, 9, 3], "layernorm", **k), "rmsprop", 3e-3),
    "dropout": (lambda lib, **k: FullyConnectedNet(lib, [108, 12, 9, 3], keep=0.7, **k), "sgd", 5e-2),
    "dropout, seed": (lambda lib, **k: FullyConnectedNet(lib, [108, 12, 9, 3], "batchnorm", 0.7, 7, **k), "adam", 1e-2),
    "conv": (ThreeLayerConvNet, "adam", 5e-3),
    "conv, batchnorm": (lambda lib, **k: ThreeLayerConvNet(lib, True, **k), "sgd_momentum", 5e-2),
    "svm": (TwoLayerSVM, "rmsprop", 3e-3),
}


@pytest.mark.parametrize("make, rule, learning_rate", NETS.values(), ids=NETS)
def test_training_gives_the_same_losses(make, rule, learning_rate):
    histories, scores = [], []
    for lib in (PLAIN, FAST):
        np.random.seed(0)
        solver = Solver(make(lib), IMAGES, LABELS, getattr(lib, rule), learning_rate)
        histories.append(solver.train(epochs=4))
        scores.append(solver.model.loss(IMAGES))
        assert solver.loss_history[-1] < solver.loss_history[0]
    assert_allclose(histories[1], histories[0], rtol=1e-7)
    assert_allclose(scores[1], scores[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in NETS if name != "dropout"])  # without a seed every loss differs
def test_gradient_check_of_whole_nets(name):
    assert worst_gradient_error(NETS[name][0](FAST), IMAGES[:6], LABELS[:6]) < 1e-5


@pytest.mark.parametrize("name", ["batchnorm", "conv, batchnorm"])
def test_float32_nets_stay_float32(name):
    net = NETS[name][0](FAST, dtype=np.float32)
    solver = Solver(net, IMAGES, LABELS, FAST.adam, 1e-2)
    solver.train(epochs=6)
    assert {array.dtype for array in net.params.values()} == {np.dtype(np.float32)}
    assert net.loss(IMAGES).dtype == np.float32
    assert solver.accuracy() > 0.5


# ---- outputs published in the course's notebooks


def ramp(start, stop, *shape):
    return np.linspace(start, stop, int(np.prod(shape))).reshape(shape)


def test_published_affine_and_relu():
    out, _ = FAST.affine_forward(ramp(-0.1, 0.5, 2, 4, 5, 6), ramp(-0.2, 0.3, 120, 3), np.linspace(-0.3, 0.1, 3))
    assert_allclose(out, [[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]], rtol=1e-8)
    out, _ = FAST.relu_forward(ramp(-0.5, 0.5, 3, 4))
    expected = [[0, 0, 0, 0], [0, 0, 0.04545455, 0.13636364], [0.22727273, 0.31818182, 0.40909091, 0.5]]
    assert_allclose(out, expected, atol=1e-8)


def test_published_two_layer_net():
    net = FullyConnectedNet(FAST, [5, 50, 7])
    net.params = {"W1": ramp(-0.7, 0.3, 5, 50), "b1": np.linspace(-0.1, 0.9, 50)}
    net.params |= {"W2": ramp(-0.3, 0.4, 50, 7), "b2": np.linspace(-0.9, 0.1, 7)}
    X, y = np.linspace(-5.5, 4.5, 15).reshape(5, 3).T, np.array([0, 5, 1])
    scores = [11.53165108, 12.2917344, 13.05181771, 13.81190102, 14.57198434, 15.33206765, 16.09215096]
    assert_allclose(net.loss(X)[0], scores, rtol=1e-8)
    assert_allclose(net.loss(X, y)[0], 3.4702243556, rtol=1e-9)
    net.reg = 1.0
    assert_allclose(net.loss(X, y)[0], 26.5948426952, rtol=1e-9)


@pytest.mark.parametrize("name", ["naive", "fast", "im2col", "strides"])
def test_published_convolution(name):
    x, w, b = ramp(-0.1, 0.5, 2, 3, 4, 4), ramp(-0.2, 0.3, 3, 3, 4, 4), np.linspace(-0.1, 0.2, 3)
    out, cache = getattr(FAST, f"conv_forward_{name}")(x, w, b, {"stride": 2, "pad": 1})
    expected = [
        [[[-0.08759809, -0.10987781], [-0.18387192, -0.2109216]],
         [[0.21027089, 0.21661097], [0.22847626, 0.23004637]],
         [[0.50813986, 0.54309974], [0.64082444, 0.67101435]]],
        [[[-0.98053589, -1.03143541], [-1.19128892, -1.24695841]],
         [[0.69108355, 0.66880383], [0.59480972, 0.56776003]],
         [[2.36270298, 2.36904306], [2.38090835, 2.38247847]]],
    ]  # fmt: skip
    assert_allclose(out, expected, rtol=1e-7)
    dout = spread(*out.shape)
    for one, other in zip(getattr(FAST, f"conv_backward_{name}")(dout, cache), conv_backward(dout, cache), strict=True):
        assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("name", ["naive", "fast", "im2col", "reshape"])
def test_published_max_pool(name):
    x, param = ramp(-0.3, 0.4, 2, 3, 4, 4), {"pool_width": 2, "pool_height": 2, "stride": 2}
    out, cache = getattr(FAST, f"max_pool_forward_{name}")(x, param)
    expected = [
        [[[-0.26315789, -0.24842105], [-0.20421053, -0.18947368]],
         [[-0.14526316, -0.13052632], [-0.08631579, -0.07157895]],
         [[-0.02736842, -0.01263158], [0.03157895, 0.04631579]]],
        [[[0.09052632, 0.10526316], [0.14947368, 0.16421053]],
         [[0.20842105, 0.22315789], [0.26736842, 0.28210526]],
         [[0.32631579, 0.34105263], [0.38526316, 0.4]]],
    ]  # fmt: skip
    assert_allclose(out, expected, atol=1e-8)
    dout = spread(*out.shape)
    assert_array_equal(getattr(FAST, f"max_pool_backward_{name}")(dout, cache), max_pool_backward(dout, cache))


W, DW = ramp(-0.4, 0.6, 4, 5), ramp(-0.6, 0.4, 4, 5)


def test_published_sgd_momentum():
    config = {"learning_rate": 1e-3, "velocity": ramp(0.6, 0.9, 4, 5)}
    next_w, config = FAST.sgd_momentum(W, DW, config)
    assert_allclose(next_w[0], [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789], rtol=1e-7)
    assert_allclose(next_w[3], [1.14244211, 1.20923158, 1.27602105, 1.34281053, 1.4096], rtol=1e-7)
    assert_allclose(config["velocity"][0], [0.5406, 0.55475789, 0.56891579, 0.58307368, 0.59723158], rtol=1e-7)
    assert_allclose(config["velocity"][3], [0.75296842, 0.76712632, 0.78128421, 0.79544211, 0.8096], rtol=1e-7)


def test_published_rmsprop():
    config = {"learning_rate": 1e-2, "cache": ramp(0.6, 0.9, 4, 5)}
    next_w, config = FAST.rmsprop(W, DW, config)
    assert_allclose(next_w[0], [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247], rtol=1e-7)
    assert_allclose(next_w[3], [0.38739248, 0.43947102, 0.49155973, 0.54365823, 0.59576619], rtol=1e-7)
    assert_allclose(config["cache"][0], [0.5976, 0.6126277, 0.6277108, 0.64284931, 0.65804321], rtol=1e-7)
    assert_allclose(config["cache"][3], [0.82883269, 0.84469141, 0.86060554, 0.87657507, 0.8926], rtol=1e-7)


def test_published_adam():
    config = {"learning_rate": 1e-2, "m": ramp(0.6, 0.9, 4, 5), "v": ramp(0.7, 0.5, 4, 5), "t": 5}
    next_w, config = FAST.adam(W, DW, config)
    assert_allclose(next_w[0], [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977], rtol=1e-7)
    assert_allclose(next_w[3], [0.38774145, 0.44031188, 0.49288093, 0.54544852, 0.59801459], rtol=1e-7)
    assert_allclose(config["v"][0], [0.69966, 0.68908382, 0.67851319, 0.66794809, 0.65738853], rtol=1e-7)
    assert_allclose(config["m"][3], [0.77210526, 0.79157895, 0.81105263, 0.83052632, 0.85], rtol=1e-7)
    assert config["t"] == 6


# ---- contracts of the course that its notebooks rely on


def test_integer_parameters():
    x, w = spread(2, 3, 4, 4), np.zeros((2, 3, 3, 3))
    w[0, :, 1, 1] = 1
    out, _ = FAST.conv_forward_naive(x, w, np.array([0, 128]), {"stride": 1, "pad": 1})
    assert_allclose(out[:, 0], x.sum(axis=1), atol=1e-12)
    assert (out[:, 1] == 128).all()
    out, cache = FAST.spatial_batchnorm_forward(x, np.asarray([3, 4, 5]), np.asarray([6, 7, 8]), {"mode": "train"})
    assert_allclose(out.mean(axis=(0, 2, 3)), [6, 7, 8])
    assert_allclose(out.std(axis=(0, 2, 3)), [3, 4, 5], rtol=1e-4)
    assert FAST.spatial_batchnorm_backward(out, cache)[1].dtype == np.float64
    assert FAST.affine_forward(np.arange(6).reshape(2, 3), w=np.eye(3), b=np.array([1, 2, 3]))[0].tolist() == [
        [1, 3, 5],
        [4, 6, 8],
    ]


def test_im2col_orders_columns_as_the_course_does():
    im2col = importlib.import_module("fastcnn.compat.cs231n.im2col")
    x = spread(2, 3, 5, 4)
    for height, width, padding, stride in [(3, 3, 1, 1), (2, 3, 0, 1), (3, 2, 2, 2), (1, 1, 0, 3)]:
        cols = im2col.im2col_indices(x, height, width, padding=padding, stride=stride)
        padded = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
        k, i, j = im2col.get_im2col_indices(x.shape, height, width, padding, stride)
        gathered = padded[:, k, i, j]
        assert_array_equal(cols, gathered.transpose(1, 2, 0).reshape(3 * height * width, -1))

        H_out, W_out = (5 + 2 * padding - height) // stride + 1, (4 + 2 * padding - width) // stride + 1
        for c, p, q, n in [(0, 0, 0, 1), (2, H_out - 1, W_out - 1, 0), (1, H_out // 2, 0, 1)]:
            column = cols[:, (p * W_out + q) * 2 + n].reshape(3, height, width)
            window = padded[n, c, p * stride : p * stride + height, q * stride : q * stride + width]
            assert_array_equal(column[c], window)

        y = spread(*cols.shape, seed=1)
        back = im2col.col2im_indices(y, x.shape, height, width, padding, stride)
        expected = np.zeros_like(padded)
        np.add.at(expected, (slice(None), k, i, j), y.reshape(3 * height * width, -1, 2).transpose(2, 0, 1))
        assert_allclose(back, expected[:, :, padding : padding + 5, padding : padding + 4], atol=1e-12)
    assert im2col.im2col_indices(x, 3, 3).shape == (27, 40)
    assert im2col.col2im_indices(np.ones((27, 40)), x.shape).shape == x.shape
    with pytest.raises(ValueError, match="expected to fit into the padded image"):
        im2col.get_im2col_indices(x.shape, 7, 3, padding=0)
