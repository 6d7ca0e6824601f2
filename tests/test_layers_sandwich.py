"""Sandwiches equal the layers they are made of."""

import numpy as np
import pytest
from layers_support import floor_in_use, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn import layers as L

X, W, B = spread(2, 3, 6, 6), spread(4, 3, 3, 3, seed=1), spread(4, seed=2)
GAMMA, BETA = spread(4, seed=3), spread(4, seed=4)
CONV, POOL = {"stride": 1, "pad": 1}, {"pool_height": 2, "pool_width": 2, "stride": 2}


def composed(x, *steps):
    """Run (forward, backward, arguments) one after the other; the output, and a function from dout to gradients."""
    caches = []
    for forward, _, arguments in steps:
        x, cache = forward(x, *arguments)
        caches.append(cache)

    def backward(dout):
        learned = []
        for (_, back, _), cache in zip(reversed(steps), reversed(caches), strict=True):
            dout, *others = result if isinstance(result := back(dout, cache), tuple) else (result,)
            learned = others + learned
        return dout, *learned

    return x, backward


CONV_STEP = (L.conv_forward, L.conv_backward, (W, B, CONV))
RELU_STEP = (L.relu_forward, L.relu_backward, ())
POOL_STEP = (L.max_pool_forward, L.max_pool_backward, (POOL,))
AFFINE_STEP = (L.affine_forward, L.affine_backward, (spread(108, 4, seed=1), B))


def batchnorm_step(spatial, param):
    forward, backward = (
        (L.spatial_batchnorm_forward, L.spatial_batchnorm_backward)
        if spatial
        else (L.batchnorm_forward, L.batchnorm_backward)
    )
    return forward, backward, (GAMMA, BETA, param)


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("dtype, rtol", [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_the_same_as_their_parts(mode, dtype, rtol):
    param, other = ({"mode": mode, "running_mean": BETA, "running_var": BETA**2} for _ in range(2))
    images, rows = spread(2, 4, 3, 3), spread(5, 4)
    for x, forward, backward, arguments, steps in [
        (X, L.affine_relu_forward, L.affine_relu_backward, AFFINE_STEP[2], [AFFINE_STEP, RELU_STEP]),
        (X, L.conv_relu_forward, L.conv_relu_backward, CONV_STEP[2], [CONV_STEP, RELU_STEP]),
        (X, L.conv_relu_pool_forward, L.conv_relu_pool_backward, (*CONV_STEP[2], POOL),
         [CONV_STEP, RELU_STEP, POOL_STEP]),
        (X, L.affine_bn_relu_forward, L.affine_bn_relu_backward, (*AFFINE_STEP[2], GAMMA, BETA, param),
         [AFFINE_STEP, batchnorm_step(False, other), RELU_STEP]),
        (X, L.conv_bn_relu_forward, L.conv_bn_relu_backward, (W, B, GAMMA, BETA, CONV, param),
         [CONV_STEP, batchnorm_step(True, other), RELU_STEP]),
        (images, L.spatial_batchnorm_relu_forward, L.spatial_batchnorm_relu_backward, (GAMMA, BETA, param),
         [batchnorm_step(True, other), RELU_STEP]),
        (rows, L.batchnorm_relu_forward, L.batchnorm_relu_backward, (GAMMA, BETA, param),
         [batchnorm_step(False, other), RELU_STEP]),
    ]:  # fmt: skip
        arguments, *step_arguments = (
            [a.astype(dtype) if isinstance(a, np.ndarray) else a for a in group]
            for group in (arguments, *(s[2] for s in steps))
        )
        steps = [(*step[:2], given) for step, given in zip(steps, step_arguments, strict=True)]
        expected, back = composed(x.astype(dtype), *steps)
        out, cache = forward(x.astype(dtype), *arguments)
        assert_allclose(out, expected, rtol=rtol, atol=rtol)
        dout = spread(*out.shape, seed=9, dtype=dtype)
        for one, two in zip(backward(dout, cache), back(dout), strict=True):
            assert_allclose(one, two, rtol=rtol, atol=100 * rtol)
        for name in ("running_mean", "running_var"):
            assert_allclose(param[name], other[name], rtol=rtol, atol=rtol)


def test_without_bias_and_without_dx():
    out, cache = L.conv_bn_relu_forward(X, W, None, GAMMA, BETA, CONV, {"mode": "train"})
    assert_allclose(out, L.conv_bn_relu_forward(X, W, B, GAMMA, BETA, CONV, {"mode": "train"})[0], atol=1e-10)
    dx, dw, db, _, _ = L.conv_bn_relu_backward(out, cache)
    nothing, same, _, _, _ = L.conv_bn_relu_backward(out, cache, need_dx=False)
    assert db is None and nothing is None and dx.shape == X.shape
    assert_array_equal(dw, same)


def test_keywords_of_conv_relu():
    out, _ = L.conv_relu_forward(X, W, None, stride=2)
    assert_array_equal(out, L.conv_relu_forward(X, W, None, {"stride": 2, "pad": 0})[0])


def test_a_bad_sandwich_leaves_the_statistics():
    param = {"mode": "train"}
    with pytest.raises(ValueError, match="^out: expected shape"):
        L.conv_bn_relu_forward(X, W, B, GAMMA, BETA, CONV, param, out=np.zeros((2, 4, 6, 5)))
    with pytest.raises(ValueError, match="^gamma: expected shape"):
        L.affine_bn_relu_forward(X, *AFFINE_STEP[2], GAMMA[:3], BETA, param)
    assert param == {"mode": "train"}
