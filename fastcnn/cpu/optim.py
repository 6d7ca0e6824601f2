"""Update rules: one fused pass over parameters, gradients and state, in place where `out` is the inputs themselves.

The gradient that enters each rule is g = clip(grad_scale dw) + weight_decay w + l1 sign(w), where clip(a) is a brought
into [-clip_value, clip_value]. Sources: Sutskever et al. (2013) for momentum and its Nesterov form; Duchi et al. (2011)
Adagrad; Tieleman and Hinton (2012) RMSProp; Kingma and Ba (2014) Adam; Loshchilov and Hutter (2019) AdamW.
"""

import math

import numpy as np

from fastcnn.common import optim as formula
from fastcnn.cpu.apart import get, put
from fastcnn.cpu.arrays import flat, output
from fastcnn.cpu.elementwise import blocks, part
from fastcnn.cpu.jit import jit, parallel

gradient = jit(formula.gradient)


def sgd_update(w, dw, lr, weight_decay=0.0, l1=0.0, grad_scale=1.0, clip_value=math.inf, out=None):
    """w' = w - lr g. Returns (w',)."""
    return _update(_sgd, (w,), dw, (lr, weight_decay, l1, grad_scale, clip_value), (), out)


def momentum_update(
    w, dw, v, lr, rho=0.9, nesterov=False, lr_in_velocity=False, weight_decay=0.0, l1=0.0, grad_scale=1.0,
    clip_value=math.inf, out=None,
):  # fmt: skip
    """v' = rho v + g, w' = w - lr v' (Nesterov: w - lr (g + rho v')).

    `lr_in_velocity`: v' = rho v - lr g, w' = w + v' (Nesterov: w + rho v' - lr g). Returns (w', v').
    """
    gain, step = (-lr, 1.0) if lr_in_velocity else (1.0, -lr)
    return _update(_momentum, (w, v), dw, (rho, gain, step, weight_decay, l1, grad_scale, clip_value), (nesterov,), out)


def adagrad_update(
    w, dw, g2, lr, eps=1e-8, eps_inside=False, weight_decay=0.0, l1=0.0, grad_scale=1.0, clip_value=math.inf, out=None
):
    """G' = G + g^2, w' = w - lr g / (sqrt(G') + eps), or sqrt(G' + eps) with `eps_inside`. Returns (w', G')."""
    numbers = (1.0, 1.0, lr, eps, weight_decay, l1, grad_scale, clip_value)
    return _update(_scaled, (w, g2), dw, numbers, (eps_inside,), out)


def rmsprop_update(
    w, dw, g2, lr, decay=0.99, eps=1e-8, eps_inside=False, weight_decay=0.0, l1=0.0, grad_scale=1.0,
    clip_value=math.inf, out=None,
):  # fmt: skip
    """G' = decay G + (1 - decay) g^2, w' = w - lr g / (sqrt(G') + eps), or sqrt(G' + eps). Returns (w', G')."""
    numbers = (decay, 1 - decay, lr, eps, weight_decay, l1, grad_scale, clip_value)
    return _update(_scaled, (w, g2), dw, numbers, (eps_inside,), out)


def adam_update(
    w, dw, m, v, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_inside=False, weight_decay=0.0, decoupled=False, l1=0.0,
    grad_scale=1.0, clip_value=math.inf, out=None,
):  # fmt: skip
    """Adam's step number t >= 1; `decoupled` weight decay (AdamW): w -= lr weight_decay w. Returns (w', m', v').

    m' = beta1 m + (1 - beta1) g, v' = beta2 v + (1 - beta2) g^2, w' = w - lr mhat / (sqrt(vhat) + eps) with
    mhat = m' / (1 - beta1^t), vhat = v' / (1 - beta2^t); sqrt(vhat + eps) with `eps_inside`.
    """
    coupled, shrink = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    numbers = (
        beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1**t), 1 / (1 - beta2**t), eps, shrink, coupled, l1,
        grad_scale, clip_value,
    )  # fmt: skip
    return _update(_adam, (w, m, v), dw, numbers, (eps_inside,), out)


def squared_norm(x):
    """Sum of squares in float64, as a float."""
    x = flat(x)
    parts = np.empty(blocks(x.size))
    _squares(parts.size, x, parts)
    return float(parts.sum())


def clip_scale(x, max_norm):
    """The `grad_scale` that makes the norm of x at most max_norm."""
    norm = math.sqrt(squared_norm(x))
    return 1.0 if norm <= max_norm else max_norm / norm


def _update(kernel, arrays, dw, numbers, switches, out):
    """kernel(w, state..., dw, numbers..., switches..., outputs...) on flat arrays, numbers in their dtype."""
    w = arrays[0]
    out = tuple(output(o, w.shape, w.dtype) for o in (out or [None] * len(arrays)))
    inputs = [flat(a) for a in (*arrays, dw)]
    kernel(blocks(w.size), *inputs, *(w.dtype.type(v) for v in numbers), *switches, *(o.reshape(-1) for o in out))
    return out


@parallel
def _sgd(block, w, dw, lr, weight_decay, l1, grad_scale, clip_value, out):
    old, d, y = part(w, block), part(dw, block), part(out, block)
    for i in range(y.size):
        value = get(old, i)
        put(y, i, value - lr * gradient(value, get(d, i), weight_decay, l1, grad_scale, clip_value))


@parallel
def _momentum(block, w, v, dw, rho, gain, step, weight_decay, l1, grad_scale, clip_value, nesterov, out, v_out):
    old, velocity, d = part(w, block), part(v, block), part(dw, block)
    y, u = part(out, block), part(v_out, block)
    for i in range(y.size):
        value = get(old, i)
        g = gain * gradient(value, get(d, i), weight_decay, l1, grad_scale, clip_value)
        moved = rho * get(velocity, i) + g
        put(u, i, moved)
        put(y, i, value + step * (g + rho * moved if nesterov else moved))


@parallel
def _scaled(block, w, g2, dw, decay, gain, lr, eps, weight_decay, l1, grad_scale, clip_value, eps_inside, out, g2_out):
    old, squares, d = part(w, block), part(g2, block), part(dw, block)
    y, s = part(out, block), part(g2_out, block)
    for i in range(y.size):
        value = get(old, i)
        g = gradient(value, get(d, i), weight_decay, l1, grad_scale, clip_value)
        square = decay * get(squares, i) + gain * g * g
        put(s, i, square)
        put(y, i, value - lr * g / root(square, eps, eps_inside))


@parallel
def _adam(
    block, w, m, v, dw, beta1, rest1, beta2, rest2, lr, correction, eps, shrink, weight_decay, l1, grad_scale,
    clip_value, eps_inside, out, m_out, v_out,
):  # fmt: skip
    old, old_first, old_second, d = part(w, block), part(m, block), part(v, block), part(dw, block)
    y, new_first, new_second = part(out, block), part(m_out, block), part(v_out, block)
    for i in range(y.size):
        value = get(old, i)
        g = gradient(value, get(d, i), weight_decay, l1, grad_scale, clip_value)
        first = beta1 * get(old_first, i) + rest1 * g
        second = beta2 * get(old_second, i) + rest2 * g * g
        put(new_first, i, first)
        put(new_second, i, second)
        put(y, i, value - (shrink * value + lr * first / root(second * correction, eps, eps_inside)))


@jit
def root(square, eps, eps_inside):
    """sqrt(square + eps) or sqrt(square) + eps."""
    return np.sqrt(square + eps) if eps_inside else np.sqrt(square) + eps


@parallel
def _squares(block, x, parts):
    total, here = np.float64(0), part(x, block)
    for i in range(here.size):
        total += np.float64(here[i]) * np.float64(here[i])
    parts[block] = total
