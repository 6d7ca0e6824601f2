"""The oracles themselves, checked by means that share nothing with them: published values, loops over pixels,
Python integers, numerical gradients in float64; and the contract of the floor, function by function."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from philox_answers import PHILOX_ANSWERS

from fastcnn.common.geometry import output_size
from fastcnn.common.philox import derive_key, philox_4x32
from fastcnn.reference import activation, conv, dropout, linear, loss, norm, optim, pool

pytestmark = pytest.mark.filterwarnings("error")


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def ramp(start, stop, *shape):
    return np.linspace(start, stop, math.prod(shape)).reshape(shape)


# ---------------------------------------------------------------------------------------------- published values


@pytest.mark.parametrize("counter, key, words", PHILOX_ANSWERS)
def test_philox_known_answers(counter, key, words):
    assert tuple(int(w) for w in philox_4x32(*map(np.uint64, counter + key))) == words
    arrays = philox_4x32(*(np.full(3, c, np.uint64) for c in counter + key))
    assert_array_equal(arrays, np.repeat(np.array(words, np.uint64)[:, None], 3, axis=1))


def test_affine_and_relu_as_published_by_cs231n():
    x, w, b = ramp(-0.1, 0.5, 2, 120), ramp(-0.2, 0.3, 120, 3), ramp(-0.3, 0.1, 3)
    expected = [[1.49834967, 1.70660132, 1.91485297], [3.25553199, 3.5141327, 3.77273342]]
    assert_allclose(linear.affine_forward(x, w, b), expected, rtol=1e-8)
    expected = [0, 0, 0, 0, 0, 0, 0.04545455, 0.13636364, 0.22727273, 0.31818182, 0.40909091, 0.5]
    assert_allclose(activation.relu_forward(ramp(-0.5, 0.5, 12)), expected, atol=1e-8)


def test_conv_forward_as_published_by_cs231n():
    x, w, b = ramp(-0.1, 0.5, 2, 3, 4, 4), ramp(-0.2, 0.3, 3, 3, 4, 4), ramp(-0.1, 0.2, 3)
    expected = [
        [[-0.08759809, -0.10987781, -0.18387192, -0.2109216]],
        [[0.21027089, 0.21661097, 0.22847626, 0.23004637]],
        [[0.50813986, 0.54309974, 0.64082444, 0.67101435]],
        [[-0.98053589, -1.03143541, -1.19128892, -1.24695841]],
        [[0.69108355, 0.66880383, 0.59480972, 0.56776003]],
        [[2.36270298, 2.36904306, 2.38090835, 2.38247847]],
    ]
    out = conv.conv_forward(x, w, b, (2, 2), (1, 1))
    assert_allclose(out, np.reshape(expected, (2, 3, 2, 2)), atol=1e-8)


def test_max_pool_forward_as_published_by_cs231n():
    expected = [
        [-0.26315789, -0.24842105, -0.20421053, -0.18947368],
        [-0.14526316, -0.13052632, -0.08631579, -0.07157895],
        [-0.02736842, -0.01263158, 0.03157895, 0.04631579],
        [0.09052632, 0.10526316, 0.14947368, 0.16421053],
        [0.20842105, 0.22315789, 0.26736842, 0.28210526],
        [0.32631579, 0.34105263, 0.38526316, 0.4],
    ]
    out = pool.max_pool_forward(ramp(-0.3, 0.4, 2, 3, 4, 4), (2, 2), (2, 2))
    assert_allclose(out, np.reshape(expected, (2, 3, 2, 2)), atol=1e-8)


UPDATES = {  # function and arguments, then w' (first row) and the new state (first rows) as published by CS231n
    "momentum": (
        lambda w, dw: optim.momentum_update(w, dw, ramp(0.6, 0.9, 4, 5), 1e-3, lr_in_velocity=True),
        [0.1406, 0.20738947, 0.27417895, 0.34096842, 0.40775789],
        [0.5406, 0.55475789, 0.56891579, 0.58307368, 0.59723158],
    ),
    "rmsprop": (
        lambda w, dw: optim.rmsprop_update(w, dw, ramp(0.6, 0.9, 4, 5), 1e-2),
        [-0.39223849, -0.34037513, -0.28849239, -0.23659121, -0.18467247],
        [0.5976, 0.6126277, 0.6277108, 0.64284931, 0.65804321],
    ),
    "adam": (
        lambda w, dw: optim.adam_update(w, dw, ramp(0.6, 0.9, 4, 5), ramp(0.7, 0.5, 4, 5), 6, 1e-2),
        [-0.40094747, -0.34836187, -0.29577703, -0.24319299, -0.19060977],
        [0.48, 0.49947368, 0.51894737, 0.53842105, 0.55789474],
        [0.69966, 0.68908382, 0.67851319, 0.66794809, 0.65738853],
    ),
}


@pytest.mark.parametrize("rule", UPDATES)
def test_update_rules_as_published_by_cs231n(rule):
    update, *expected = UPDATES[rule]
    results = update(ramp(-0.4, 0.6, 4, 5), ramp(-0.6, 0.4, 4, 5))
    assert_allclose([r[0] for r in results], expected, atol=1e-8)


# ---------------------------------------------------------------------------------------------- loops over pixels


def conv_by_loops(x, w, b, stride, pad, dilation, groups):
    N, _, H, W = x.shape
    F, C_group, HH, WW = w.shape
    H_out, W_out = (output_size(x.shape[2 + a], w.shape[2 + a], stride[a], pad[a], dilation[a]) for a in (0, 1))
    out = np.zeros((N, F, H_out, W_out))
    for n, f, p, q in np.ndindex(out.shape):
        out[n, f, p, q] = b[f]
        for c, i, j in np.ndindex(C_group, HH, WW):
            h, k = p * stride[0] + i * dilation[0] - pad[0], q * stride[1] + j * dilation[1] - pad[1]
            if 0 <= h < H and 0 <= k < W:
                out[n, f, p, q] += w[f, c, i, j] * x[n, f // (F // groups) * C_group + c, h, k]
    return out


CONVOLUTIONS = [  # kernel, stride, pad, dilation, groups
    ((1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 2), (2, 1), (0, 2), (1, 1), 2),
    ((2, 3), (1, 3), (2, 1), (2, 1), 1),
    ((3, 3), (2, 2), (2, 2), (2, 2), 4),
    ((5, 6), (3, 3), (0, 0), (1, 1), 2),
]


@pytest.mark.parametrize("kernel, stride, pad, dilation, groups", CONVOLUTIONS)
def test_conv_against_loops(kernel, stride, pad, dilation, groups):
    x, w, b = normal(2, 4, 5, 6), normal(8, 4 // groups, *kernel), normal(8)
    expected = conv_by_loops(x, w, b, stride, pad, dilation, groups)
    assert_allclose(conv.conv_forward(x, w, b, stride, pad, dilation, groups), expected, atol=1e-12)
    relu = conv.conv_forward(x, w, None, stride, pad, dilation, groups, relu=True, algo="direct")
    assert_allclose(relu, np.maximum(expected - b[:, None, None], 0), atol=1e-12)


@pytest.mark.parametrize("kernel, stride, pad, dilation, groups", CONVOLUTIONS)
def test_im2col_is_the_matrix_of_convolution_and_col2im_its_transpose(kernel, stride, pad, dilation, groups):
    x, w = normal(2, 4, 5, 6), normal(3, 4, *kernel)
    cols = conv.im2col(x, kernel, stride, pad, dilation)
    out = conv_by_loops(x, w, np.zeros(3), stride, pad, dilation, 1)
    assert_allclose(w.reshape(3, -1) @ cols, out.reshape(2, 3, -1), atol=1e-12)
    y = normal(*cols.shape, seed=1)
    assert_allclose((cols * y).sum(), (x * conv.col2im(y, x.shape, kernel, stride, pad, dilation)).sum(), atol=1e-12)


def test_im2col_and_col2im_by_hand():
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    assert_array_equal(conv.im2col(x, (2, 2), (1, 1), (0, 0))[0], [[0, 1], [1, 2], [3, 4], [4, 5]])
    back = conv.col2im(np.ones((1, 4, 2)), x.shape, (2, 2), (1, 1), (0, 0))
    assert_array_equal(back[0, 0], [[1, 2, 1], [1, 2, 1]])


@pytest.mark.parametrize(
    "size, stride, pad",
    [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (1, 0)), ((3, 2), (3, 3), (0, 1))],
)
def test_pooling_against_loops(size, stride, pad):
    x = np.round(normal(2, 3, 7, 6))  # rounded: many ties
    x[0, 0, 2:4, 1:3] = np.nan
    x[1, 1] = -np.inf
    out_hw = [output_size(x.shape[2 + a], size[a], stride[a], pad[a]) for a in (0, 1)]
    dout = normal(2, 3, *out_hw, seed=1)
    largest, average, dx_max, dx_avg = np.zeros_like(dout), np.zeros_like(dout), np.zeros_like(x), np.zeros_like(x)
    for n, c, p, q in np.ndindex(dout.shape):
        window = [(p * stride[0] + i - pad[0], q * stride[1] + j - pad[1]) for i, j in np.ndindex(size)]
        window = [(h, w) for h, w in window if 0 <= h < 7 and 0 <= w < 6]
        best = window[0]
        for h, w in window:
            average[n, c, p, q] += x[n, c, h, w] / math.prod(size)
            dx_avg[n, c, h, w] += dout[n, c, p, q] / math.prod(size)
            if x[n, c, h, w] > x[n, c][best] or (np.isnan(x[n, c, h, w]) and not np.isnan(x[n, c][best])):
                best = h, w
        largest[n, c, p, q] = x[n, c][best]
        dx_max[n, c][best] += dout[n, c, p, q]
    assert_array_equal(pool.max_pool_forward(x, size, stride, pad), largest)
    assert_allclose(pool.max_pool_backward(dout, x, size, stride, pad), dx_max, atol=1e-14)
    assert_allclose(pool.avg_pool_forward(x, size, stride, pad), average, atol=1e-14)
    assert_allclose(pool.avg_pool_backward(dout, x.shape, size, stride, pad), dx_avg, atol=1e-14)


def philox_by_integers(counter, key):
    """Philox4x32-10 in Python integers."""
    for _ in range(10):
        hi0, lo0 = divmod(0xD2511F53 * counter[0], 2**32)
        hi1, lo1 = divmod(0xCD9E8D57 * counter[2], 2**32)
        counter = [hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0]
        key = (key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32
    return counter


@pytest.mark.parametrize("shape, p", [*product([(3, 7), (3, 5, 71), (2, 1100), (1,), ()], [0.0, 0.3, 0.8, 1.0])])
def test_dropout_mask_against_integers(shape, p):
    key = derive_key(7, 1, 2)
    words = []
    for i in range(math.prod(shape)):  # of 512 counters in a row, all first words, then all second words, ...
        q, r = divmod(i, 4 * 512)
        words.append(philox_by_integers([q * 512 + r % 512, 0, 0, 0], (key % 2**32, key >> 32))[r // 512])
    expected = np.reshape([1 / p if word < round(p * 2**32) else 0.0 for word in words], shape)
    assert_array_equal(dropout.dropout_mask(shape, p, key, np.float64), expected)
    x = normal(*shape)
    assert_array_equal(dropout.dropout_forward(x, p, key), x * expected)
    assert_array_equal(dropout.dropout_backward(x, p, key), x * expected)


def test_dropout_keeps_a_share_of_p():
    kept = dropout.dropout_mask((100_000,), 0.7, 2**64 - 1, np.float32) > 0
    assert abs(kept.mean() - 0.7) < 5 * math.sqrt(0.7 * 0.3 / kept.size)


# ---------------------------------------------------------------------------------------------- values by hand


def test_activations_by_hand():
    x = np.array([-2.0, 0.0, 3.0])
    assert_allclose(activation.leaky_relu_forward(x), [-0.2, 0, 3])
    assert_allclose(activation.elu_forward(x, 2.0), [2 * (math.exp(-2) - 1), 0, 3])
    assert_allclose(activation.sigmoid_forward(x), [1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-3))])
    assert_allclose(activation.tanh_forward(x), [math.tanh(-2), 0, math.tanh(3)])
    Phi = [(1 + math.erf(v / math.sqrt(2))) / 2 for v in x]
    assert_allclose(activation.gelu_forward(x), x * Phi)
    assert_allclose(activation.gelu_forward(x, "tanh"), x * Phi, atol=1e-3)
    assert_allclose(activation.gelu_forward(np.array([1.0]), "tanh"), [0.8411919906082768])  # as in PyTorch, JAX
    assert_allclose(activation.prelu_forward(np.tile(x, (1, 2, 1)), np.array([0.5, 3.0])), [[[-1, 0, 3], [-6, 0, 3]]])
    assert_allclose(activation.maxout_forward(np.array([[1.0, 5, 2, 4, 4, 3]]), 3), [[5, 4]])
    dx = activation.maxout_backward(np.array([[7.0, 8]]), np.array([[1.0, 5, 2, 4, 4, np.nan]]), 3)
    assert_array_equal(dx, [[0, 7, 0, 0, 0, 8]])
    assert_array_equal(activation.add_forward(x, np.array([1.0, -1, 1]), relu=True), [0, 0, 4])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_values_neither_overflow_nor_warn(dtype):
    x = np.array([-1000, -100, -40, 40, 100, 1000], dtype)
    dout = np.ones_like(x)
    assert_allclose(activation.sigmoid_forward(x), [0, math.exp(-100), math.exp(-40), 1, 1, 1], rtol=1e-5, atol=1e-44)
    assert_array_equal(activation.gelu_forward(x, "tanh")[[0, 1, 4, 5]], [0, 0, 100, 1000])
    assert_array_equal(activation.gelu_forward(x)[[0, 4, 5]], [0, 100, 1000])
    assert_array_equal(activation.gelu_backward(dout, x, "tanh"), [0, 0, 0, 1, 1, 1])
    assert_allclose(activation.gelu_backward(dout, x), [0, 0, 0, 1, 1, 1], atol=1e-300)
    assert_array_equal(activation.elu_forward(x), [-1, -1, -1, 40, 100, 1000])
    assert_allclose(activation.elu_backward(dout, x), [0, 0, 0, 1, 1, 1], atol=1e-16)
    scores = np.array([[1000, -1000, 0], [-1000, -1000, -1000]], dtype)
    value, dx = loss.softmax_loss(scores, np.array([2, 0]))
    assert_allclose(value, (1000 + math.log(3)) / 2)
    assert_allclose(dx, [[0.5, 0, -0.5], [-1 / 3, 1 / 6, 1 / 6]], rtol=1e-6)
    logits, y = np.array([1000, -1000, 1000, -1000], dtype), np.array([1, 0, 0, 1], dtype)
    value, dx = loss.binary_cross_entropy_loss(logits, y)
    assert value == 500
    assert_array_equal(dx, [0, 0, 0.25, -0.25])


def test_losses_by_hand():
    x, y = np.log([[1.0, 2, 5], [2, 2, 4]]), np.array([2, 0])
    value, dx = loss.softmax_loss(x, y)
    assert_allclose(value, (math.log(8 / 5) + math.log(4)) / 2)
    assert_allclose(dx, [[1 / 16, 2 / 16, -3 / 16], [-3 / 8, 1 / 8, 2 / 8]])
    smooth = loss.softmax_loss(x, y, 0.3)
    soft = loss.softmax_loss(x, np.array([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]]))
    assert_allclose(smooth[0], soft[0])
    assert_allclose(smooth[1], soft[1])
    assert loss.softmax_loss(np.array([[0.0, -np.inf]]), np.array([0]))[0] == 0  # a class masked out
    value, dx = loss.svm_loss(np.array([[1.0, 3, 1.5], [9, 2, 8]]), np.array([0, 0]))
    assert_allclose(value, (3 + 1.5) / 2)
    assert_allclose(dx, [[-1, 0.5, 0.5], [0, 0, 0]])
    value, dx = loss.binary_cross_entropy_loss(np.log([[1.0, 3]]), np.array([[1.0, 0.5]]))
    assert_allclose(value, (math.log(2) - 0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4)) / 2)
    assert_allclose(dx, [[-0.25, 0.125]])


def test_batchnorm_by_hand():
    x = np.array([[1.0, 10], [3, 10]])
    gamma, beta = np.array([2.0, 3]), np.array([-1.0, 7])
    out, mean, var = norm.batchnorm_forward(x, gamma, beta, eps=3.0, relu=True)
    assert_array_equal(mean, [2, 10])
    assert_array_equal(var, [1, 0])
    assert_array_equal(out, [[0, 7], [0, 7]])
    assert_array_equal(norm.batchnorm_inference(x, gamma, beta, mean, var, 3.0), [[-2, 7], [0, 7]])
    assert_array_equal(norm.batchnorm_forward(x[:0], gamma, beta)[1:], np.zeros((2, 2)))


def test_groupnorm_by_hand_and_its_special_cases():
    x, gamma, beta = normal(3, 4, 5, 2), normal(4), normal(4, seed=1)
    for groups in (1, 2, 4):
        out, mean, var = norm.groupnorm_forward(x, gamma, beta, groups)
        for n, g in np.ndindex(3, groups):
            channels = slice(g * 4 // groups, (g + 1) * 4 // groups)
            values = x[n, channels]
            assert_allclose([mean[n, g], var[n, g]], [values.mean(), ((values - values.mean()) ** 2).mean()])
            xhat = (values - values.mean()) / math.sqrt(values.var() + 1e-5)
            expected = gamma[channels, None, None] * xhat + beta[channels, None, None]
            assert_allclose(out[n, channels], expected, atol=1e-12)


@pytest.mark.parametrize("clip", [math.inf, 1.5])
@pytest.mark.parametrize("inside", [False, True])
def test_update_rules_by_hand(inside, clip):
    w, dw, s = np.array([2.0, -1.0]), np.array([3.0, 0.5]), np.array([0.25, 4.0])
    g = np.array([min(2 * 3, clip) + 0.1 * 2 + 0.3, 2 * 0.5 - 0.1 - 0.3])
    penalties = {"weight_decay": 0.1, "l1": 0.3, "grad_scale": 2.0, "clip_value": clip}
    root = (lambda a: np.sqrt(a + 1e-2)) if inside else (lambda a: np.sqrt(a) + 1e-2)
    eps = {"eps": 1e-2, "eps_inside": inside}

    assert_allclose(optim.sgd_update(w, dw, 0.5, **penalties), [w - 0.5 * g])
    v = 0.8 * s + g
    assert_allclose(optim.momentum_update(w, dw, s, 0.5, 0.8, **penalties), [w - 0.5 * v, v])
    nesterov = optim.momentum_update(w, dw, s, 0.5, 0.8, nesterov=True, **penalties)
    assert_allclose(nesterov, [w - 0.5 * (g + 0.8 * v), v])
    for name in (False, True):  # the two forms differ by a factor of -lr in v only
        w_next, v_next = optim.momentum_update(w, dw, -0.5 * s, 0.5, 0.8, name, lr_in_velocity=True, **penalties)
        expected = optim.momentum_update(w, dw, s, 0.5, 0.8, name, **penalties)
        assert_allclose([w_next, v_next / -0.5], expected)
    g2 = s + g**2
    assert_allclose(optim.adagrad_update(w, dw, s, 0.5, **eps, **penalties), [w - 0.5 * g / root(g2), g2])
    g2 = 0.7 * s + 0.3 * g**2
    assert_allclose(optim.rmsprop_update(w, dw, s, 0.5, 0.7, **eps, **penalties), [w - 0.5 * g / root(g2), g2])
    m, v = 0.9 * dw + 0.1 * g, 0.8 * s + 0.2 * g**2
    w_next = w - 0.5 * (m / (1 - 0.9**3)) / root(v / (1 - 0.8**3))
    assert_allclose(optim.adam_update(w, dw, dw, s, 3, 0.5, 0.9, 0.8, **eps, **penalties), [w_next, m, v])
    plain = optim.adam_update(w, dw, dw, s, 3, 0.5, l1=0.3)
    decayed = optim.adam_update(w, dw, dw, s, 3, 0.5, l1=0.3, weight_decay=0.1, decoupled=True)
    assert_allclose(decayed, [plain[0] - 0.5 * 0.1 * w, *plain[1:]])
    assert optim.squared_norm(np.array([[3.0, 4.0]], np.float32)) == 25.0
    assert [optim.clip_scale(np.array([[3.0, 4.0]], np.float32), norm) for norm in (2.0, 5.0, 6.0)] == [0.4, 1, 1]


# ---------------------------------------------------------------------------------------------- numerical gradients


def numerical_gradients(f, inputs, dout, h=1e-6):
    """d sum(f(*inputs) dout) / d input, by central differences, for every element of every input."""
    gradients = []
    for x in inputs:
        gradient = np.empty_like(x)
        for i in np.ndindex(x.shape):
            saved = x[i]
            x[i] = saved + h
            above = (f(*inputs) * dout).sum()
            x[i] = saved - h
            gradient[i] = (above - (f(*inputs) * dout).sum()) / (2 * h)
            x[i] = saved
        gradients.append(gradient)
    return gradients


def check_gradients(forward, backward, *shapes):
    """backward(dout, *inputs) against central differences of forward(*inputs), for random inputs of the shapes."""
    inputs = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]
    dout = normal(*np.shape(forward(*inputs)), seed=9)
    expected = numerical_gradients(forward, inputs, dout)
    for gradient, numerical in zip(backward(dout, *inputs), expected, strict=True):
        assert_allclose(gradient, numerical, rtol=1e-6, atol=2e-8)


IMAGES, VECTORS = (2, 4, 3, 2), (5, 4)  # the shapes of small batches with 4 channels, or of 4 features


@pytest.mark.parametrize(
    "geometry", [((2, 1), (1, 1), (1, 2), 2), ((1, 2), (0, 1), (1, 1), 1), ((1, 1), (1, 1), (2, 1), 4)]
)  # stride, pad, dilation, groups
def test_conv_gradients(geometry):
    def backward(dout, x, w, b):
        dx = conv.conv_backward_input(dout, w, x.shape, *geometry)
        return dx, conv.conv_backward_filter(dout, x, w.shape, *geometry), conv.conv_backward_bias(dout)

    w_shape = (8, 4 // geometry[-1], 2, 2)
    check_gradients(lambda x, w, b: conv.conv_forward(x, w, b, *geometry), backward, IMAGES, w_shape, (8,))


def test_affine_gradients():
    def backward(dout, x, w, b):
        dx, dw = linear.affine_backward_input(dout, w), linear.affine_backward_weight(dout, x)
        return dx, dw, linear.affine_backward_bias(dout)

    check_gradients(linear.affine_forward, backward, (3, 5), (5, 4), (4,))


@pytest.mark.parametrize("geometry", [((2, 2), (2, 1), (0, 0)), ((3, 2), (1, 1), (1, 1))])
def test_pool_gradients(geometry):
    def max_backward(dout, x):
        return [pool.max_pool_backward(dout, x, *geometry)]

    def avg_backward(dout, x):
        return [pool.avg_pool_backward(dout, x.shape, *geometry)]

    check_gradients(lambda x: pool.max_pool_forward(x, *geometry), max_backward, IMAGES)
    check_gradients(lambda x: pool.avg_pool_forward(x, *geometry), avg_backward, IMAGES)
    global_backward = pool.global_avg_pool_backward
    check_gradients(pool.global_avg_pool_forward, lambda dout, x: [global_backward(dout, x.shape)], IMAGES)


ELEMENTWISE = [
    ("relu",),
    ("leaky_relu", 0.2),
    ("elu", 1.7),
    ("gelu", "none"),
    ("gelu", "tanh"),
    ("sigmoid",),
    ("tanh",),
]


def elementwise(name, *args):
    """forward(x) and backward(dout, x) of an activation."""
    forward, backward = (getattr(activation, f"{name}_{way}") for way in ("forward", "backward"))
    saves_output = name in ("sigmoid", "tanh")
    return lambda x: forward(x, *args), lambda dout, x: backward(dout, forward(x) if saves_output else x, *args)


@pytest.mark.parametrize("name_and_args", ELEMENTWISE, ids=str)
def test_activation_gradients_and_nan(name_and_args):
    forward, backward = elementwise(*name_and_args)
    check_gradients(forward, lambda dout, x: [backward(dout, x)], VECTORS)
    x, dout = np.array([1.0, np.nan, -1.0, 2.0, -2.0]), np.array([1.0, 1.0, np.nan, 1.0, 1.0])
    assert_array_equal(np.isnan(forward(x)), np.isnan(x))
    assert_array_equal(np.isnan(backward(dout, x)), np.isnan(x + dout))


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu"])
def test_the_derivative_at_0_is_the_left_one(name):
    low = {"relu": 0, "leaky_relu": 0.1, "elu": 1}[name]
    assert_array_equal(elementwise(name)[1](np.ones(2), np.array([0.0, -0.0])), [low, low])


@pytest.mark.parametrize("shape, slopes", [(IMAGES, 4), (IMAGES, 1), (VECTORS, 4)])
def test_prelu_gradients(shape, slopes):
    check_gradients(activation.prelu_forward, activation.prelu_backward, shape, (slopes,))


def test_maxout_gradients():
    def backward(dout, x):
        return [activation.maxout_backward(dout, x, 2)]

    check_gradients(lambda x: activation.maxout_forward(x, 2), backward, IMAGES)


@pytest.mark.parametrize("shape, relu", [*product([IMAGES, VECTORS], [False, True])])
def test_batchnorm_gradients(shape, relu):
    def backward(dout, x, gamma, beta):
        _, mean, var = norm.batchnorm_forward(x, gamma, beta, 1e-3)
        return norm.batchnorm_backward(dout, x, gamma, beta, mean, var, 1e-3, relu)

    check_gradients(lambda *inputs: norm.batchnorm_forward(*inputs, 1e-3, relu)[0], backward, shape, (4,), (4,))

    given = normal(4), normal(4, seed=1) ** 2, 1e-3, relu
    check_gradients(
        lambda *inputs: norm.batchnorm_inference(*inputs, *given),
        lambda dout, *inputs: norm.batchnorm_inference_backward(dout, *inputs, *given),
        *(shape, (4,), (4,)),
    )


@pytest.mark.parametrize("shape, groups", [(IMAGES, 1), (IMAGES, 2), (IMAGES, 4), (VECTORS, 1), (VECTORS, 2)])
def test_groupnorm_gradients(shape, groups):
    def backward(dout, x, gamma, beta):
        _, mean, var = norm.groupnorm_forward(x, gamma, beta, groups, 1e-3)
        return norm.groupnorm_backward(dout, x, gamma, mean, var, groups, 1e-3)

    check_gradients(lambda *inputs: norm.groupnorm_forward(*inputs, groups, 1e-3)[0], backward, shape, (4,), (4,))


LABELS, SOFT = np.array([3, 0, 1, 1, 2]), np.abs(normal(*VECTORS, seed=4))  # the soft targets need not add up to 1


@pytest.mark.parametrize(
    "function, args",
    [
        (loss.softmax_loss, (LABELS,)),
        (loss.softmax_loss, (LABELS, 0.2)),
        (loss.softmax_loss, (SOFT, 0.2)),
        (loss.svm_loss, (LABELS, 0.7)),
        (loss.binary_cross_entropy_loss, (np.minimum(SOFT, 1),)),
    ],
)
def test_loss_gradients(function, args):
    def backward(dout, x):
        return [dout * function(x, *args)[1]]

    check_gradients(lambda x: np.float64(function(x, *args)[0]), backward, VECTORS)


# ------------------------------------------------------------------------- the contract, function by function


X, Y = (4, 6, 5), (6, 3, 3)  # one image before and after the convolutions below, without the batch axis
GEOMETRY = (2, 2), (1, 1), (1, 2), 2  # stride, pad, dilation, groups
POOL = (2, 3), (2, 2), (1, 0)  # size, stride, pad; Z is the result
Z = (4, 4, 2)
W = (3, 5)

# Each function of the floor: its arguments for a batch of N, where a(...) makes an array of the shape.
FLOOR = {
    conv.conv_forward: lambda a, N: (a(N, *X), a(6, 2, 3, 2), a(6), *GEOMETRY),
    conv.conv_moments_forward: lambda a, N: (a(N, *X), a(6, 2, 3, 2), a(6), *GEOMETRY),
    conv.conv_backward_input: lambda a, N: (a(N, *Y), a(6, 2, 3, 2), (N, *X), *GEOMETRY),
    conv.conv_backward_filter: lambda a, N: (a(N, *Y), a(N, *X), (6, 2, 3, 2), *GEOMETRY),
    conv.conv_backward_bias: lambda a, N: (a(N, *Y),),
    conv.im2col: lambda a, N: (a(N, *X), (3, 2), *GEOMETRY[:3]),
    conv.col2im: lambda a, N: (a(N, 24, 9), (N, *X), (3, 2), *GEOMETRY[:3]),
    linear.affine_forward: lambda a, N: (a(N, 4), a(4, 3), a(3)),
    linear.affine_backward_input: lambda a, N: (a(N, 3), a(4, 3)),
    linear.affine_backward_weight: lambda a, N: (a(N, 3), a(N, 4)),
    linear.affine_backward_bias: lambda a, N: (a(N, 3),),
    pool.max_pool_forward: lambda a, N: (a(N, *X), *POOL),
    pool.max_pool_backward: lambda a, N: (a(N, *Z), a(N, *X), *POOL),
    pool.avg_pool_forward: lambda a, N: (a(N, *X), *POOL),
    pool.avg_pool_backward: lambda a, N: (a(N, *Z), (N, *X), *POOL),
    pool.global_avg_pool_forward: lambda a, N: (a(N, *X),),
    pool.global_avg_pool_backward: lambda a, N: (a(N, 4), (N, *X)),
    activation.relu_forward: lambda a, N: (a(N, *X),),
    activation.relu_backward: lambda a, N: (a(N, *X), a(N, *X)),
    activation.leaky_relu_forward: lambda a, N: (a(N, *X),),
    activation.leaky_relu_backward: lambda a, N: (a(N, *X), a(N, *X)),
    activation.prelu_forward: lambda a, N: (a(N, *X), a(4)),
    activation.prelu_backward: lambda a, N: (a(N, *X), a(N, *X), a(4)),
    activation.elu_forward: lambda a, N: (a(N, *X),),
    activation.elu_backward: lambda a, N: (a(N, *X), a(N, *X)),
    activation.gelu_forward: lambda a, N: (a(N, *X),),
    activation.gelu_backward: lambda a, N: (a(N, *X), a(N, *X)),
    activation.sigmoid_forward: lambda a, N: (a(N, *X),),
    activation.sigmoid_backward: lambda a, N: (a(N, *X), a(N, *X)),
    activation.tanh_forward: lambda a, N: (a(N, *X),),
    activation.tanh_backward: lambda a, N: (a(N, *X), a(N, *X)),
    activation.maxout_forward: lambda a, N: (a(N, *X), 2),
    activation.maxout_backward: lambda a, N: (a(N, 2, 6, 5), a(N, *X), 2),
    activation.add_forward: lambda a, N: (a(N, *X), a(N, *X), True),
    norm.batchnorm_forward: lambda a, N: (a(N, *X), a(4), a(4)),
    norm.batchnorm_backward: lambda a, N: (a(N, *X), a(N, *X), a(4), a(4), a(4), a(4) ** 2, 1e-5, True),
    norm.batchnorm_inference: lambda a, N: (a(N, *X), a(4), a(4), a(4), a(4) ** 2),
    norm.batchnorm_add_forward: lambda a, N: (a(N, *X), a(N, *X), a(4), a(4)),
    norm.batchnorm_add_backward: lambda a, N: (a(N, *X), a(N, *X), a(N, *X), a(4), a(4), a(4) ** 2),
    norm.batchnorm_add_inference: lambda a, N: (a(N, *X), a(N, *X), a(4), a(4), a(4), a(4) ** 2),
    norm.batchnorm_add_inference_backward: lambda a, N: (a(N, *X), a(N, *X), a(N, *X), a(4), a(4), a(4) ** 2),
    norm.batchnorm_inference_backward: lambda a, N: (a(N, *X), a(N, *X), a(4), a(4), a(4), a(4) ** 2),
    norm.moving_average: lambda a, N: (a(N, *X), a(N, *X), 0.9),
    norm.groupnorm_forward: lambda a, N: (a(N, *X), a(4), a(4), 2),
    norm.groupnorm_backward: lambda a, N: (a(N, *X), a(N, *X), a(4), a(N, 2), a(N, 2) ** 2, 2),
    dropout.dropout_mask: lambda a, N: ((N, *X), 0.7, 5, a(1).dtype),
    dropout.dropout_forward: lambda a, N: (a(N, *X), 0.7, 5),
    dropout.dropout_backward: lambda a, N: (a(N, *X), 0.7, 5),
    dropout.mask_multiply: lambda a, N: (a(N, *X), a(N, *X)),
    loss.softmax_loss: lambda a, N: (a(N, 4), np.arange(N) % 4, 0.1),
    loss.svm_loss: lambda a, N: (a(N, 4), np.arange(N) % 4),
    loss.binary_cross_entropy_loss: lambda a, N: (a(N, 4), a(N, 4) > 0),
    optim.sgd_update: lambda a, N: (a(*W), a(*W), 0.1, 0.2, 0.3, 0.4),
    optim.momentum_update: lambda a, N: (a(*W), a(*W), a(*W), 0.1),
    optim.adagrad_update: lambda a, N: (a(*W), a(*W), a(*W) ** 2, 0.1),
    optim.rmsprop_update: lambda a, N: (a(*W), a(*W), a(*W) ** 2, 0.1),
    optim.adam_update: lambda a, N: (a(*W), a(*W), a(*W), a(*W) ** 2, 2, 0.1),
    optim.squared_norm: lambda a, N: (a(N, *X),),
    optim.clip_scale: lambda a, N: (a(N, *X), 2.0),
}
MODULES = [conv, linear, pool, activation, norm, dropout, loss, optim]
FUNCTIONS = pytest.mark.parametrize("function", FLOOR, ids=lambda f: f.__name__)
NO_OUT = [optim.squared_norm, optim.clip_scale]
NOT_IN_PLACE = [activation.maxout_forward, activation.maxout_backward, dropout.dropout_mask, *NO_OUT]
PAIRS = [norm.batchnorm_add_backward, norm.batchnorm_add_inference_backward]  # out is (dx, dadd)
NOT_IN_PLACE += [f for f in FLOOR if f.__module__ in {m.__name__ for m in (conv, linear, pool, loss)}]


def arguments(function, dtype, N=7, layout=np.ascontiguousarray):
    seeds = iter(range(10))
    return FLOOR[function](lambda *shape: layout(normal(*shape, seed=next(seeds)).astype(dtype)), N)


def strided_and_read_only(a):
    """The same values: axes in reverse order in memory, every other element of a reversed buffer; not writeable."""
    buffer = np.full([2 * n for n in reversed(a.shape)], np.nan, a.dtype)
    view = buffer[(slice(None, None, -2),) * a.ndim].T
    view[...] = a
    view.flags.writeable = False
    return view


def results(result):
    return [np.asarray(r) for r in (result if isinstance(result, tuple) else (result,))]


def test_every_function_of_the_floor_is_listed():
    public = {f for m in MODULES for f in vars(m).values() if getattr(f, "__module__", None) == m.__name__}
    assert {f for f in public if not f.__name__.startswith("_")} == set(FLOOR)


@FUNCTIONS
def test_dtype_strides_and_read_only_inputs(function):
    exact = results(function(*arguments(function, np.float64)))
    for dtype, layout in product((np.float32, np.float64), (np.ascontiguousarray, strided_and_read_only)):
        got = results(function(*arguments(function, dtype, layout=layout)))
        tolerance = 1e-4 if dtype == np.float32 else 1e-12  # sums of at most some hundred terms of about 1
        for result, expected in zip(got, exact, strict=True):
            assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
            assert result.dtype == dtype or result.ndim == 0  # losses and squared_norm are Python floats
            assert result.flags.c_contiguous and result.flags.writeable


@FUNCTIONS
def test_out_is_written_and_returned(function):
    if function in NO_OUT:
        pytest.skip("has no out")
    expected, args = results(function(*arguments(function, np.float32))), arguments(function, np.float32)
    several = (0, 2) if function in PAIRS else (0, 1)
    first, last = {loss.__name__: (1, 2), optim.__name__: (0, 3)}.get(function.__module__, several)
    buffers = tuple(np.full_like(r, np.nan) for r in expected[first:last])
    together = function.__module__ == optim.__name__ or function in PAIRS
    got = function(*args, out=buffers if together else buffers[0])
    for result, value in zip(results(got), expected, strict=True):
        assert_array_equal(result, value)
    assert all(result is buffer for result, buffer in zip(results(got)[first:last], buffers, strict=True))


@pytest.mark.parametrize("function", [f for f in FLOOR if f not in NOT_IN_PLACE], ids=lambda f: f.__name__)
def test_out_may_be_the_first_argument(function):
    expected, args = results(function(*arguments(function, np.float32))), arguments(function, np.float32)
    out = (None, args[0]) if function in PAIRS else args[0]
    if function.__module__ == optim.__name__:
        out = args[0], *(a for a in args[2:] if isinstance(a, np.ndarray))
    got = results(function(*args, out=out))
    assert got[function in PAIRS] is args[0]
    for result, value in zip(got, expected, strict=True):
        assert_array_equal(result, value)


@FUNCTIONS
def test_empty_batch(function):
    whole, empty = (results(function(*arguments(function, np.float32, N))) for N in (7, 0))
    for result, like in zip(empty, whole, strict=True):
        assert result.shape == tuple(0 if size == 7 else size for size in like.shape)
        assert np.isfinite(result).all()


@pytest.mark.parametrize("function", [f for f in FLOOR if f is not dropout.dropout_mask], ids=lambda f: f.__name__)
def test_nan_in_nan_out(function):
    args = arguments(function, np.float32)
    args[0][...] = np.nan
    assert np.isnan(results(function(*args))[0]).any()
