"""What the tests of the convolution algorithms share: all passes against the reference in float64."""

import numpy as np

from fastcnn.catalogue import OPS
from fastcnn.common.geometry import output_shape
from fastcnn.cpu import conv
from fastcnn.reference import conv as reference

PASSES = ("conv_forward", "conv_backward_input", "conv_backward_filter")


def around(*sizes):
    """The sizes and their neighbours, from 1 on, each once."""
    return sorted({n for size in sizes for n in (size - 1, size, size + 1) if n > 0})


def limit(algo, dtype, op="conv_forward"):
    """The largest relative error that the catalogue grants an algorithm."""
    return getattr(OPS[op].limits.get(algo, OPS[op].limit), np.dtype(dtype).name)


def error(got, exact, squares):
    """The error relative to what a result's norm is expected to be, for few results may cancel.

    `squares` are the same sums of squares: of independent terms of either sign, the variances.
    """
    assert got.shape == exact.shape
    scale = max(np.linalg.norm(exact), np.sqrt(np.sum(squares)))
    return np.linalg.norm(got - exact) / scale if got.size and scale else np.linalg.norm(got)


def check_passes(algo, x_shape, w_shape, stride=(1, 1), pad=(0, 0), dilation=(1, 1), groups=1, dtype=np.float32):
    """Forward with each epilogue and without, moments, both gradients: within the algorithm's limit, and complete."""
    geometry, most = (stride, pad, dilation, groups), limit(algo, dtype)
    rng = np.random.default_rng([*x_shape, *w_shape, *pad])
    shape = (x_shape[0], w_shape[0], *output_shape(x_shape[2:], w_shape[2:], stride, pad, dilation))
    x, w, b, add, dout = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, w_shape[:1], shape, shape))
    x_, w_, b_, add_, dout_ = (array.astype(np.float64) for array in (x, w, b, add, dout))

    def poisoned(shape):
        return np.full(shape, np.nan, dtype)

    exact, squares = (reference.conv_forward(v, u, None, *geometry) for v, u in ((x_, w_), (x_**2, w_**2)))
    for bias, addend, relu in ((None, None, False), (b, None, True), (b, add, False), (None, add, True)):
        out = conv.conv_forward(x, w, bias, *geometry, relu=relu, algo=algo, add=addend, out=poisoned(shape))
        expected = exact + (0 if bias is None else b_[:, None, None]) + (0 if addend is None else add_)
        assert error(out, np.maximum(expected, 0) if relu else expected, squares) <= most

    out, mean, var = conv.conv_moments_forward(x, w, b, *geometry, algo=algo, out=poisoned(shape))
    assert np.array_equal(out, conv.conv_forward(x, w, b, *geometry, algo=algo))
    places = (0, 2, 3)
    if out.size:
        got = out.astype(np.float64)
        eps, largest = np.finfo(dtype).eps, abs(got).max()
        np.testing.assert_allclose(mean, got.mean(places), rtol=0, atol=1e3 * eps * largest)
        # Where only padding is seen all outputs are the bias, which NumPy's mean of them may miss by some roundings.
        roundings = 8 * np.finfo(float).eps * largest
        np.testing.assert_allclose(var, got.var(places), rtol=1e3 * eps, atol=roundings**2)

    dx = conv.conv_backward_input(dout, w, x_shape, *geometry, algo=algo, out=poisoned(x_shape))
    exact, squares = (
        reference.conv_backward_input(g, u, x_shape, *geometry) for g, u in ((dout_, w_), (dout_**2, w_**2))
    )
    assert error(dx, exact, squares) <= most
    dw = conv.conv_backward_filter(dout, x, w_shape, *geometry, algo=algo, out=poisoned(w_shape))
    exact, squares = (
        reference.conv_backward_filter(g, v, w_shape, *geometry) for g, v in ((dout_, x_), (dout_**2, x_**2))
    )
    assert error(dw, exact, squares) <= most
