"""Update rules: one fused pass over parameters, gradients and state, in place where `out` is the inputs themselves.

The gradient that enters each rule is g = clip(grad_scale dw) + weight_decay w + l1 sign(w), where clip(a) is a brought
into [-clip_value, clip_value], and grad_scale is a number, or one that is still on the device (`clip_scale`). Sources:
Sutskever et al. (2013) for momentum and its Nesterov form; Duchi et al. (2011) Adagrad; Tieleman and Hinton (2012)
RMSProp; Kingma and Ba (2014) Adam; Loshchilov and Hutter (2019) AdamW.
"""

import math

import numpy as np
from numba import cuda

from fastcnn.common import optim as formula
from fastcnn.cuda.arrays import aligned, empty, flat, output
from fastcnn.cuda.elementwise import split
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.pending import Pending, argument, value_of
from fastcnn.cuda.reduce import THREADS, block_sum, fold, parts_of
from fastcnn.cuda.vectors import LANES, lanes, load_part, load_vector, store_vector

gradient = device(formula.gradient)


def sgd_update(w, dw, lr, weight_decay=0.0, l1=0.0, grad_scale=1.0, clip_value=math.inf, out=None):
    """w' = w - lr g. Returns (w',)."""
    return _update(_sgd, (w,), dw, (lr, weight_decay, l1, clip_value), grad_scale, out)


def momentum_update(
    w, dw, v, lr, rho=0.9, nesterov=False, lr_in_velocity=False, weight_decay=0.0, l1=0.0, grad_scale=1.0,
    clip_value=math.inf, out=None,
):  # fmt: skip
    """v' = rho v + g, w' = w - lr v' (Nesterov: w - lr (g + rho v')).

    `lr_in_velocity`: v' = rho v - lr g, w' = w + v' (Nesterov: w + rho v' - lr g). Returns (w', v').
    """
    gain, step = (-lr, 1.0) if lr_in_velocity else (1.0, -lr)
    function = _nesterov if nesterov else _momentum
    return _update(function, (w, v), dw, (rho, gain, step, weight_decay, l1, clip_value), grad_scale, out)


def adagrad_update(
    w, dw, g2, lr, eps=1e-8, eps_inside=False, weight_decay=0.0, l1=0.0, grad_scale=1.0, clip_value=math.inf, out=None
):
    """G' = G + g^2, w' = w - lr g / (sqrt(G') + eps), or sqrt(G' + eps) with `eps_inside`. Returns (w', G')."""
    numbers = (1.0, 1.0, lr, *_eps(eps, eps_inside), weight_decay, l1, clip_value)
    return _update(_scaled, (w, g2), dw, numbers, grad_scale, out)


def rmsprop_update(
    w, dw, g2, lr, decay=0.99, eps=1e-8, eps_inside=False, weight_decay=0.0, l1=0.0, grad_scale=1.0,
    clip_value=math.inf, out=None,
):  # fmt: skip
    """G' = decay G + (1 - decay) g^2, w' = w - lr g / (sqrt(G') + eps), or sqrt(G' + eps). Returns (w', G')."""
    numbers = (decay, 1 - decay, lr, *_eps(eps, eps_inside), weight_decay, l1, clip_value)
    return _update(_scaled, (w, g2), dw, numbers, grad_scale, out)


def adam_update(
    w, dw, m, v, t, lr, beta1=0.9, beta2=0.999, eps=1e-8, eps_inside=False, weight_decay=0.0, decoupled=False, l1=0.0,
    grad_scale=1.0, clip_value=math.inf, out=None,
):  # fmt: skip
    """Adam's step number t >= 1; `decoupled` weight decay (AdamW): w -= lr weight_decay w. Returns (w', m', v').

    m' = beta1 m + (1 - beta1) g, v' = beta2 v + (1 - beta2) g^2, w' = w - lr mhat / (sqrt(vhat) + eps) with
    mhat = m' / (1 - beta1^t), vhat = v' / (1 - beta2^t); sqrt(vhat + eps) with `eps_inside`.
    """
    coupled, shrink = (0.0, lr * weight_decay) if decoupled else (weight_decay, 0.0)
    corrected = lr / (1 - beta1**t), 1 / (1 - beta2**t)
    numbers = (beta1, 1 - beta1, beta2, 1 - beta2, *corrected, *_eps(eps, eps_inside), shrink, coupled, l1, clip_value)
    return _update(_adam, (w, m, v), dw, numbers, grad_scale, out)


def squared_norm(x):
    """Sum of squares in float64, a number that may still be on the device."""
    result = empty(1, np.float64)
    fold(_squares_of(x), result)
    return Pending(result)


def clip_scale(x, max_norm):
    """The `grad_scale` that makes the norm of x at most max_norm; a number that may still be on the device."""
    result = empty(1, np.float64)
    _clip_scale[1](_squares_of(x), float(max_norm), result)
    return Pending(result)


def _eps(eps, inside):
    """What is added to a square before its root is taken, and what after."""
    return (eps, 0.0) if inside else (0.0, eps)


def _update(function, arrays, dw, numbers, grad_scale, out):
    """Launch a kernel of `_rule`."""
    w = arrays[0]
    out = tuple(output(o, w.shape, w.dtype) for o in (out or [None] * len(arrays)))
    old, new, dw = tuple(map(flat, arrays)), tuple(map(flat, out)), flat(dw)
    if w.size:
        vectors, threads = split(dw, *old, *new)
        numbers = tuple(map(w.dtype.type, numbers))
        function.for_each(threads, old, dw, argument(grad_scale), numbers, np.int32(vectors), new)
    return out


def _squares_of(x):
    """Sums of squares of the parts of x, (1, parts)."""
    x = flat(x)
    parts = parts_of(x.size)
    _squares[parts.shape[1]](x, aligned(x), parts)
    return parts


def _rule(update, count, numbers):
    """The kernel of an update rule: `update(values, k, dw, grad_scale, numbers)` replaces the column values[:, k].

    The rows are the parameters and their state, `count` in all; `numbers` says how many numbers there are.
    """

    def body(old, dw, grad_scale, numbers, vectors, new):
        i, scale = np.int32(cuda.grid(1)), dw.dtype.type(value_of(grad_scale))
        values = cuda.local.array((count, LANES), dw.dtype)
        if i < vectors:
            i *= np.int32(lanes(dw))
            slopes = cuda.local.array(LANES, dw.dtype)
            load_vector(dw, i, slopes)
            for a in range(count):
                load_vector(old[a], i, values[a])
            for k in range(lanes(dw)):
                update(values, k, slopes[k], scale, numbers)
            for a in range(count):
                store_vector(values[a], new[a], i)
        else:
            i += vectors * np.int32(lanes(dw) - 1)
            if i < dw.size:
                for a in range(count):
                    values[a, 0] = old[a][i]
                update(values, 0, dw[i], scale, numbers)
                for a in range(count):
                    new[a][i] = values[a, 0]

    arrays, numbers = f"UniTuple(T[::1], {count})", f"UniTuple(T, {numbers})"
    signatures = [f"{arrays}, T[::1], {scale}, {numbers}, int32, {arrays}" for scale in ("float64", "float64[::1]")]
    function = getattr(update, "py_func", update)
    return kernel(signatures, opcodes=("LDG.E.128", "STG.E.128"), name=f"optim.{function.__name__}")(body)


@device
def sgd(values, k, dw, grad_scale, numbers):
    """w' = w - lr g."""
    lr, weight_decay, l1, clip_value = numbers
    values[0, k] -= lr * gradient(values[0, k], dw, weight_decay, l1, grad_scale, clip_value)


@device
def momentum(values, k, dw, grad_scale, numbers):
    """v' = rho v + gain g, w' = w + step v'."""
    rho, gain, step, weight_decay, l1, clip_value = numbers
    g = gain * gradient(values[0, k], dw, weight_decay, l1, grad_scale, clip_value)
    velocity = rho * values[1, k] + g
    values[0, k] += step * velocity
    values[1, k] = velocity


@device
def nesterov(values, k, dw, grad_scale, numbers):
    """v' = rho v + gain g, w' = w + step (gain g + rho v')."""
    rho, gain, step, weight_decay, l1, clip_value = numbers
    g = gain * gradient(values[0, k], dw, weight_decay, l1, grad_scale, clip_value)
    velocity = rho * values[1, k] + g
    values[0, k] += step * (g + rho * velocity)
    values[1, k] = velocity


@device
def scaled(values, k, dw, grad_scale, numbers):
    """G' = decay G + gain g^2, w' = w - lr g / root(G')."""
    decay, gain, lr, inside, outside, weight_decay, l1, clip_value = numbers
    g = gradient(values[0, k], dw, weight_decay, l1, grad_scale, clip_value)
    square = decay * values[1, k] + gain * g * g
    values[0, k] -= lr * g / root(square, inside, outside)
    values[1, k] = square


@device
def adam(values, k, dw, grad_scale, numbers):
    """m' = beta1 m + rest1 g, v' = beta2 v + rest2 g^2, w' = w - (shrink w + lr m' / root(v' correction))."""
    beta1, rest1, beta2, rest2, lr, correction, inside, outside, shrink, weight_decay, l1, clip_value = numbers
    w = values[0, k]
    g = gradient(w, dw, weight_decay, l1, grad_scale, clip_value)
    first = beta1 * values[1, k] + rest1 * g
    second = beta2 * values[2, k] + rest2 * g * g
    values[0, k] = w - (shrink * w + lr * first / root(second * correction, inside, outside))
    values[1, k] = first
    values[2, k] = second


@device
def root(square, inside, outside):
    """sqrt(square + inside) + outside."""
    return math.sqrt(square + inside) + outside


_sgd, _momentum, _nesterov = _rule(sgd, 1, 4), _rule(momentum, 2, 6), _rule(nesterov, 2, 6)
_scaled, _adam = _rule(scaled, 2, 8), _rule(adam, 3, 12)


@kernel("T[::1], boolean, float64[:, ::1]", opcodes=("LDG.E.128",))
def _squares(x, whole, parts):
    """Threads take vectors in turns, with one load each where x is aligned (`whole`); the sum is the same."""
    thread, values, total = np.int32(cuda.grid(1)), cuda.local.array(LANES, x.dtype), 0.0
    step = np.int32(cuda.gridsize(1) * lanes(x))
    for i in range(thread * np.int32(lanes(x)), np.int32(x.size), step):
        load_part(x, i, whole, values)
        for k in range(lanes(x)):
            total += np.float64(values[k]) * np.float64(values[k]) if i + k < x.size else 0.0
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        parts[0, cuda.blockIdx.x] = total


@kernel("float64[:, ::1], float64, float64[::1]", threads=THREADS)
def _clip_scale(parts, max_norm, result):
    """One block: min(1, max_norm / sqrt(the sum of parts))."""
    total = 0.0
    for i in range(cuda.threadIdx.x, parts.shape[1], cuda.blockDim.x):
        total += parts[0, i]
    norm = math.sqrt(block_sum(total))
    if cuda.threadIdx.x == 0:
        result[0] = 1.0 if norm <= max_norm else max_norm / norm
