"""The update rules of the optimizers.

Sources: momentum: Polyak 1964; Nesterov's: Sutskever, Martens, Dahl, Hinton 2013, section 2; Adagrad: Duchi, Hazan,
Singer 2011; RMSProp: Tieleman & Hinton, lecture 6.5, 2012; Adam: Kingma & Ba 2014, algorithm 1; AdamW: Loshchilov &
Hutter 2019, algorithm 2.

w, dw and the state have one shape, any. In every rule g = clip(grad_scale dw) + weight_decay w + l1 sign(w), where
clip(a) is a brought into [-clip_value, clip_value], and root(a) = sqrt(a) + eps, or sqrt(a + eps) with `eps_inside`.
`out`: a tuple of buffers, one for each result.
"""

import math

import numpy as np

from fastcnn.reference._arrays import deliver


def sgd_update(w, dw, lr, weight_decay=0.0, l1=0.0, grad_scale=1.0, clip_value=math.inf, out=None):
    """w' = w - lr g. Returns (w',)."""
    g = _gradient(w, dw, weight_decay, l1, grad_scale, clip_value)
    return _deliver_all((w - lr * g,), out, w.dtype)


def momentum_update(
    w, dw, v, lr, rho=0.9, nesterov=False, lr_in_velocity=False, weight_decay=0.0, l1=0.0, grad_scale=1.0,
    clip_value=math.inf, out=None,
):  # fmt: skip
    """v' = rho v + g, w' = w - lr v', or with `nesterov` w' = w - lr (g + rho v'). Returns (w', v').

    `lr_in_velocity` (CS231n): v' = rho v - lr g, w' = w + v', or with `nesterov` w' = w + rho v' - lr g.
    """
    g = _gradient(w, dw, weight_decay, l1, grad_scale, clip_value)
    if lr_in_velocity:
        v = rho * v - lr * g
        w = w + rho * v - lr * g if nesterov else w + v
    else:
        v = rho * v + g
        w = w - lr * (g + rho * v) if nesterov else w - lr * v
    return _deliver_all((w, v), out, w.dtype)


def adagrad_update(
    w, dw, g2, lr, eps=1e-8, eps_inside=False, weight_decay=0.0, l1=0.0, grad_scale=1.0, clip_value=math.inf, out=None
):
    """g2' = g2 + g^2, w' = w - lr g / root(g2'). Returns (w', g2')."""
    g = _gradient(w, dw, weight_decay, l1, grad_scale, clip_value)
    g2 = g2 + g * g
    return _deliver_all((w - lr * g / _root(g2, eps, eps_inside), g2), out, w.dtype)


def rmsprop_update(
    w, dw, g2, lr, decay=0.99, eps=1e-8, eps_inside=False, weight_decay=0.0, l1=0.0, grad_scale=1.0,
    clip_value=math.inf, out=None,
):  # fmt: skip
    """g2' = decay g2 + (1 - decay) g^2, w' = w - lr g / root(g2'). Returns (w', g2')."""
    g = _gradient(w, dw, weight_decay, l1, grad_scale, clip_value)
    g2 = decay * g2 + (1 - decay) * g * g
    return _deliver_all((w - lr * g / _root(g2, eps, eps_inside), g2), out, w.dtype)


def adam_update(
    w,
    dw,
    m,
    v,
    t,
    lr,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    eps_inside=False,
    weight_decay=0.0,
    decoupled=False,
    l1=0.0,
    grad_scale=1.0,
    clip_value=math.inf,
    out=None,
):
    """m' = beta1 m + (1 - beta1) g, v' = beta2 v + (1 - beta2) g^2, w' = w - lr mhat / root(vhat).

    mhat = m' / (1 - beta1^t), vhat = v' / (1 - beta2^t); t counts steps from 1. `decoupled` (AdamW): g is without
    weight decay, and w' = w - lr (mhat / root(vhat) + weight_decay w). Returns (w', m', v').
    """
    g = _gradient(w, dw, 0.0 if decoupled else weight_decay, l1, grad_scale, clip_value)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    mhat, vhat = m / (1 - beta1**t), v / (1 - beta2**t)
    step = mhat / _root(vhat, eps, eps_inside)
    if decoupled:
        step = step + weight_decay * w
    return _deliver_all((w - lr * step, m, v), out, w.dtype)


def squared_norm(x):
    """The sum of squares of x, a Python float accumulated in float64."""
    return float(np.square(x, dtype=np.float64).sum())


def clip_scale(x, max_norm):
    """min(1, max_norm / ||x||): the `grad_scale` that brings a gradient x down to a Euclidean norm of max_norm."""
    norm = math.sqrt(squared_norm(x))
    return 1.0 if norm <= max_norm else max_norm / norm


def _gradient(w, dw, weight_decay, l1, grad_scale, clip_value):
    """g: the gradient of the scaled loss, clipped, with its L2 and L1 penalties."""
    return np.clip(grad_scale * dw, -clip_value, clip_value) + weight_decay * w + l1 * np.sign(w)


def _root(a, eps, eps_inside):
    """The denominator of the adaptive rules."""
    return np.sqrt(a + eps) if eps_inside else np.sqrt(a) + eps


def _deliver_all(results, out, dtype):
    """`deliver` for a tuple of results and a tuple of buffers; none is written before all are computed."""
    return tuple(deliver(r, buffer, dtype) for r, buffer in zip(results, out or [None] * len(results)))
