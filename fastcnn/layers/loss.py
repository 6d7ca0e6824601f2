"""Losses: each returns the loss, a float averaged over the batch, and its gradient dx.

For arrays on a GPU the loss is a number that is still being computed there: `float(loss)` waits for it, and raises the
error that labels or targets out of range are. `out`, where given, receives dx. An empty batch has loss 0. All raise
TypeError for scores that are not floating-point and for labels that are not integers, and ValueError for shapes that do
not fit and for labels out of range.
"""

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor


def softmax_loss(x, y, *, label_smoothing=0.0, out=None):
    """Cross-entropy of softmax(x).

    Parameters
    ----------
    x : (N, C) array
        Scores.
    y : (N,) integer array, labels in [0, C); or (N, C) floating array, soft targets
    label_smoothing : float in [0, 1]
        Targets become (1 - label_smoothing) y + label_smoothing / C (Szegedy et al. 2016, section 7).
    out : (N, C) array, optional

    Returns
    -------
    loss : float
    dx : (N, C) array
    """
    label_smoothing = checks.number("label_smoothing", label_smoothing, 0, 1)
    y = checks.as_array("y", y)
    if y.dtype.kind == "f" and y.ndim == 2:
        x, y = checks.floats(x=x, y=y)
        _check_scores(x)
        checks.shape("y", y, x.shape)
    else:
        (x,) = checks.floats(x=x)
        _check_scores(x)
        y = checks.labels(x, y, *x.shape)
    direct = checks.buffer(out, x.shape, x.dtype, (x, y))
    loss, dx = floor("loss", x).softmax_loss(x, y, label_smoothing=label_smoothing, out=direct)
    return loss, checks.deliver(dx, direct, out)


def svm_loss(x, y, *, margin=1.0, out=None):
    """Multi-class hinge loss: the mean over n of sum_{j != y_n} max(0, x[n, j] - x[n, y_n] + margin).

    x (N, C) scores, y (N,) integer labels in [0, C); returns loss, dx.
    """
    margin = checks.number("margin", margin)
    (x,) = checks.floats(x=x)
    _check_scores(x)
    y = checks.labels(x, checks.as_array("y", y), *x.shape)
    direct = checks.buffer(out, x.shape, x.dtype, (x, y))
    loss, dx = floor("loss", x).svm_loss(x, y, margin=margin, out=direct)
    return loss, checks.deliver(dx, direct, out)


def binary_cross_entropy_loss(x, y, *, out=None):
    """Binary cross-entropy of sigmoid(x), the mean over all elements.

    x : logits of any shape; y : targets in [0, 1] of the same shape, floating, integer or boolean. Returns loss, dx.
    """
    y = checks.as_array("y", y)
    if y.dtype.kind in "biu":
        (x,) = checks.floats(x=x)
        checks.same_memory(x=x, y=y)
        y = device.copy(y, x.dtype)
    x, y = checks.floats(x=x, y=y)
    checks.shape("y", y, x.shape)
    if y.size and not device.is_device(y) and not (y.min() >= 0 and y.max() <= 1):  # written so that NaN fails
        raise ValueError(f"y: expected targets in [0, 1], got {y[~((y >= 0) & (y <= 1))][0]}")
    direct = checks.buffer(out, x.shape, x.dtype, (x, y))
    loss, dx = floor("loss", x).binary_cross_entropy_loss(x, y, out=direct)
    return loss, checks.deliver(dx, direct, out)


def _check_scores(x):
    checks.rank("x", x, "(N, C)")
    if x.shape[1] < 1:
        raise ValueError(f"x: expected scores for at least one class, got {x.shape}")
