"""Dropout: inverted (Srivastava et al. 2014, section 10) and vanilla."""

from typing import NamedTuple

import numpy as np

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor


class KeyedMask(NamedTuple):
    """What a mask of inverted dropout can be made from again."""

    shape: tuple
    p: float
    key: int


def dropout_forward(
    x, dropout_param=None, *, p=None, mode=None, key=None, seed=None, inverted=None, save_mask=None, out=None
):
    """Keep each element with probability p and scale it by 1/p; in test mode, the identity.

    Parameters
    ----------
    x : array of any shape
    dropout_param : dict, optional
        ``{'p', 'mode'}`` and, if wanted, ``'seed'``, ``'key'``, ``'inverted'``, ``'save_mask'``; others are ignored.
    p : float in (0, 1]
        The probability of *keeping*. Keywords win over `dropout_param`.
    mode : {"train", "test"}, optional
        "train" by default, where there is no `dropout_param`.
    key : int in [0, 2**64), optional
        The mask is a function of key and element index (Philox), and NumPy's global stream is left alone.
    seed : optional
        Without a key the mask is ``(np.random.rand(*x.shape) < p) / p``, drawn from NumPy's global stream; with a seed,
        after ``np.random.seed(seed)`` (which also happens in test mode, as in CS231n).
    inverted : bool, optional
        False: vanilla dropout. The mask holds 0 and 1; in test mode out = p x.
    save_mask : bool, optional
        False, with a key: the cache holds a `KeyedMask` in the mask's place, and the backward pass makes the mask anew.
    out : array of x's shape, optional
        May be x itself.

    Returns
    -------
    out : array of x's shape and dtype
        In test mode x itself, unless `out` is given.
    cache : (dropout_param, mask)
        The mask is None in test mode.

    Raises
    ------
    TypeError, ValueError
        For an x that is not floating-point, and parameters out of range or missing.
    """
    param = checks.parameters(
        "dropout_param", dropout_param, {"mode": "train"},
        p=p, mode=mode, key=key, seed=seed, inverted=inverted, save_mask=save_mask,
    )  # fmt: skip
    p = checks.number("p", checks.required("dropout_param", param, "p"), 0, 1, above=0)
    training = checks.choice("mode", checks.required("dropout_param", param, "mode"), ("train", "test")) == "train"
    key = param.get("key")
    if key is not None:
        key = checks.integer("key", key, 0, 2**64 - 1)
    (x,) = checks.floats(x=x)
    direct = checks.buffer(out, x.shape, x.dtype, (x,), in_place=True)

    inverted, save_mask = param.get("inverted", True), param.get("save_mask", True)

    if key is None and "seed" in param:
        np.random.seed(param["seed"])
    if not training:
        return checks.deliver(x if inverted else _scaled(x, p), None, out), (param, None)
    dropout = floor("dropout", x)
    if key is not None and inverted and not save_mask:
        return checks.deliver(dropout.dropout_forward(x, p, key, out=direct), direct, out), (
            param,
            KeyedMask(x.shape, p, key),
        )
    if key is None:
        mask = np.asarray((np.random.rand(*x.shape) < p) / (p if inverted else 1))
        mask = device.to_device(mask.astype(x.dtype)) if device.is_device(x) else mask
    else:
        mask = dropout.dropout_mask(x.shape, p, key, x.dtype)
        mask = mask if inverted else _ones(mask)
    result = dropout.mask_multiply(x, _of_dtype(mask, x.dtype), out=direct)
    return checks.deliver(result, direct, out), (param, mask)


def dropout_backward(dout, cache, *, out=None):
    """dx = dout mask; in test mode dout itself (vanilla: p dout)."""
    param, mask = cache
    (dout,) = checks.floats(dout=dout)
    direct = checks.buffer(out, dout.shape, dout.dtype, (dout,), in_place=True)
    if mask is None:
        return checks.deliver(dout if param.get("inverted", True) else _scaled(dout, param["p"]), None, out)
    checks.shape("dout", dout, mask.shape)
    dropout = floor("dropout", dout)
    if isinstance(mask, KeyedMask):
        result = dropout.dropout_backward(dout, mask.p, mask.key, out=direct)
    else:
        result = dropout.mask_multiply(dout, _of_dtype(mask, dout.dtype), out=direct)
    return checks.deliver(result, direct, out)


def _scaled(x, factor):
    """x times a number."""
    return floor("dropout", x).mask_multiply(x, _full(x, factor)) if device.is_device(x) else x * factor


def _ones(mask):
    """1 where the mask keeps an element, else 0."""
    return floor("activation", mask).relu_backward(_full(mask, 1), mask) if device.is_device(mask) else np.sign(mask)


def _full(x, value):
    return device.arrays().filled(x.shape, value, x.dtype)


def _of_dtype(mask, dtype):
    return mask if mask.dtype == dtype else device.copy(mask, dtype)
