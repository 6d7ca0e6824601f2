"""Losses."""

import numpy as np
import pytest
from layers_support import assert_gradient, buffers, floor_in_use, layouts, spread  # noqa: F401
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn.layers import binary_cross_entropy_loss, softmax_loss, svm_loss

LABELS = np.array([2, 0, 1, 2, 2])
SOFT = np.abs(spread(5, 3, seed=1))
LOSSES = {
    "softmax": (softmax_loss, LABELS, {}),
    "softmax, smoothed": (softmax_loss, LABELS, {"label_smoothing": 0.1}),
    "softmax, soft targets": (softmax_loss, SOFT / SOFT.sum(axis=1, keepdims=True), {}),
    "svm": (svm_loss, LABELS, {}),
    "svm, margin": (svm_loss, LABELS, {"margin": 0.3}),
    "binary": (binary_cross_entropy_loss, SOFT / 2, {}),
}
each_loss = pytest.mark.parametrize("loss, y, keywords", LOSSES.values(), ids=LOSSES)
each_class_loss = pytest.mark.parametrize("loss", [softmax_loss, svm_loss])


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def test_formulas():
    x, rows = spread(5, 3), np.arange(5)
    assert_allclose(softmax_loss(x, LABELS)[0], -log_softmax(x)[rows, LABELS].mean())
    targets = 0.9 * np.eye(3)[LABELS] + 0.1 / 3
    assert_allclose(softmax_loss(x, LABELS, label_smoothing=0.1)[0], -(targets * log_softmax(x)).sum(axis=1).mean())
    assert_allclose(softmax_loss(x, targets)[0], -(targets * log_softmax(x)).sum(axis=1).mean())
    margins = np.maximum(0, x - x[rows, LABELS][:, None] + 1)
    assert_allclose(svm_loss(x, LABELS)[0], margins.sum() / 5 - 1)
    s, y = 1 / (1 + np.exp(-x)), np.arange(15).reshape(5, 3) % 2
    expected = -(y * np.log(s) + (1 - y) * np.log(1 - s)).mean()
    for targets in (y, y.astype(bool), y.astype(np.float32), y.astype(np.uint8).tolist()):
        assert_allclose(binary_cross_entropy_loss(x, targets)[0], expected)


@each_loss
def test_gradient(loss, y, keywords):
    x = spread(5, 3)
    value, dx = loss(x, y, **keywords)
    assert type(value) is float
    assert_gradient(lambda: np.array(loss(x, y, **keywords)[0]), x, 1.0, dx, rtol=1e-6, atol=1e-8)


@each_loss
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layout_in_memory_and_out(loss, y, keywords, dtype):
    x = spread(5, 3, dtype=dtype)
    y = y.astype(dtype) if y.dtype.kind == "f" else y
    value, dx = loss(x, y, **keywords)
    assert dx.dtype == dtype
    for kind, given in layouts(x).items():
        targets = layouts(y)[kind] if kind != "list" or y.dtype.kind == "f" else y.tolist()
        got = loss(given, targets, **keywords)
        assert_allclose(got[0], value, rtol=1e-12)
        assert_allclose(got[1], dx, rtol=1e-12)
        assert_array_equal(given, x)
    for buffer in buffers(x.shape, dtype).values():
        got = loss(x, y, out=buffer, **keywords)
        assert got[1] is buffer and got[0] == value
        assert_array_equal(buffer, dx)
    for given in (x.copy(), x.copy(order="F")):
        got = loss(given, y, out=given, **keywords)
        assert got[1] is given and got[0] == value
        assert_array_equal(given, dx)


def test_mixed_dtypes():
    x = spread(5, 3, dtype=np.float32)
    for targets in (SOFT, SOFT.astype(np.float32)):
        assert softmax_loss(x, targets)[1].dtype == targets.dtype
        assert binary_cross_entropy_loss(x, targets / 2)[1].dtype == targets.dtype


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i4", ">i4", "<u8", ">i8"])
@each_class_loss
def test_labels_of_any_integer_dtype(loss, dtype):
    x = spread(5, 3)
    assert loss(x, LABELS.astype(dtype))[0] == loss(x, LABELS)[0]
    assert loss(x, LABELS.tolist())[0] == loss(x, LABELS)[0]


@each_loss
def test_empty_batch(loss, y, keywords):
    value, dx = loss(np.zeros((0, 3)), y[:0], **keywords)
    assert value == 0.0 and type(value) is float and dx.shape == (0, 3)


@each_class_loss
@pytest.mark.parametrize(
    "error, y, message",
    [
        (ValueError, [0, 1, 2, 3, 0], r"y: expected labels in \[0, 3\), got 3"),
        (ValueError, [0, 1, -1, 1, 0], r"y: expected labels in \[0, 3\), got -1"),
        (ValueError, np.full(5, 2**64 - 1, np.uint64), r"y: expected labels in \[0, 3\), got 18446744073709551615"),
        (ValueError, LABELS[:4], r"y: expected shape \(5,\), got \(4,\)"),
        (ValueError, LABELS[:, None], r"y: expected shape \(5,\), got \(5, 1\)"),
        (TypeError, LABELS.astype(float), r"y: expected integer labels .*, got float64 \(5,\)"),
        (TypeError, LABELS > 0, "y: expected integer labels .*, got bool"),
        (TypeError, list("abcab"), "y: expected integer labels .*, got <U1"),
    ],
)
def test_bad_labels(loss, error, y, message):
    x, out = spread(5, 3), np.full((5, 3), 7.0)
    with pytest.raises(error, match=f"^{message}"):
        loss(x, y, out=out)
    assert (out == 7).all()


@pytest.mark.parametrize(
    "error, call, message",
    [
        (ValueError, lambda x: softmax_loss(x[0], LABELS), r"x: expected shape \(N, C\), got \(3,\)"),
        (ValueError, lambda x: softmax_loss(x[:, :0], LABELS), "x: expected scores for at least one class"),
        (ValueError, lambda x: softmax_loss(x, SOFT[:, :2]), r"y: expected shape \(5, 3\), got \(5, 2\)"),
        (ValueError, lambda x: softmax_loss(x, LABELS, label_smoothing=1.1), r"label_smoothing: expected .* \[0, 1\]"),
        (TypeError, lambda x: softmax_loss(x.astype(int), LABELS), "x: expected float32 or float64, got int64"),
        (TypeError, lambda x: svm_loss(x, LABELS, margin="1"), "margin: expected a number, got '1'"),
        (TypeError, lambda x: svm_loss(x, SOFT), "y: expected integer labels"),
        (ValueError, lambda x: binary_cross_entropy_loss(x, SOFT[0]), r"y: expected shape \(5, 3\), got \(3,\)"),
        (ValueError, lambda x: binary_cross_entropy_loss(x, SOFT + 1), r"y: expected targets in \[0, 1\], got"),
        (ValueError, lambda x: binary_cross_entropy_loss(x, np.full((5, 3), np.nan)), r"y: .* in \[0, 1\], got nan"),
        (TypeError, lambda x: binary_cross_entropy_loss(x, SOFT.astype(str)), "y: expected float32 or float64"),
        (TypeError, lambda x: softmax_loss(x, LABELS, out=[0]), "out: expected an array of float64, got list"),
    ],
)
def test_bad_arguments(error, call, message):
    with pytest.raises(error, match=f"^{message}"):
        call(spread(5, 3))
