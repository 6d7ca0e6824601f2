"""Losses and their gradients.

Sources: softmax cross-entropy: Bishop, "Pattern recognition and machine learning" (2006), section 4.3.4; label
smoothing: Szegedy et al., "Rethinking the Inception architecture" (2016), section 7; multi-class hinge: Weston &
Watkins 1999, in the form of Stanford's CS231n; binary cross-entropy: Bishop, section 4.3.2.

Each returns the loss, a Python float, and dx of x's shape and dtype, both computed in float64; the loss of an empty
batch is 0.
"""

import numpy as np

from fastcnn.reference._arrays import deliver
from fastcnn.reference.activation import sigmoid_forward


def softmax_loss(x, y, label_smoothing=0.0, out=None):
    """loss = -1/N sum_n sum_c q[n, c] log softmax(x)[n, c]; dx = (softmax(x) sum_c q - q) / N.

    x (N, C); y (N,) labels, or (N, C) probabilities; q = (1 - label_smoothing) y + label_smoothing / C.
    """
    N, C = x.shape
    y = np.eye(C)[y] if y.ndim == 1 else y.astype(np.float64)
    q = (1 - label_smoothing) * y + label_smoothing / C
    z = x.astype(np.float64) - x.max(axis=1, keepdims=True)  # softmax ignores a shift, exp then cannot overflow
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    q_log_p = np.multiply(q, log_p, out=np.zeros((N, C)), where=q != 0)  # 0 log 0 = 0
    dx = (np.exp(log_p) * q.sum(axis=1, keepdims=True) - q) / max(N, 1)
    return float(-q_log_p.sum() / max(N, 1)), deliver(dx, out, x.dtype)


def svm_loss(x, y, margin=1.0, out=None):
    """loss = 1/N sum_n sum_{j != y} h[n, j], h[n, j] = max(0, x[n, j] - x[n, y] + margin); x (N, C), y (N,) labels.

    dx[n, j] = 1/N where h[n, j] > 0, and dx[n, y] is minus their sum.
    """
    N = x.shape[0]
    label = (np.arange(N), y)
    z = x.astype(np.float64)
    h = np.maximum(z - z[label][:, None] + margin, 0)
    h[label] = 0
    dx = np.sign(h)  # 1 where h > 0; a NaN stays
    dx[label] = -dx.sum(axis=1)
    return float(h.sum() / max(N, 1)), deliver(dx / max(N, 1), out, x.dtype)


def binary_cross_entropy_loss(x, y, out=None):
    """loss = the mean of -y log s - (1 - y) log(1 - s), s = sigmoid(x); dx = (s - y) / size; x logits, y in [0, 1].

    Written as max(0, x) - x y + log(1 + exp(-|x|)), which neither overflows nor takes log 0; x and y of any one shape.
    """
    z, size = x.astype(np.float64), max(x.size, 1)
    loss = np.maximum(z, 0) - z * y + np.log1p(np.exp(-np.abs(z)))
    return float(loss.sum() / size), deliver((sigmoid_forward(z) - y) / size, out, x.dtype)
