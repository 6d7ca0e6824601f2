"""The affine (fully connected) layer, and flattening."""

from math import prod

from fastcnn.layers import checks, device
from fastcnn.layers.backend import floor


def affine_forward(x, w, b, *, out=None):
    """out = x w + b, each image unrolled into a row.

    Parameters
    ----------
    x : (N, d1, ..., dk) array
    w : (D, M) array, D = d1 ... dk
    b : (M,) array or None
    out : (N, M) array, optional

    Returns
    -------
    out : (N, M) array
    cache : (x, w, b)

    Raises
    ------
    TypeError, ValueError
        For arrays that are not floating-point, or whose shapes do not fit.
    """
    return affine(x, w, b, out=out)


def affine(x, w, b, relu=False, out=None):
    """`affine_forward`, with `relu` followed by max(0, out) in the same pass."""
    x, w, b = checks.floats(x=x, w=w, b=b)
    dims = _check_shapes(x, w, b)
    direct = checks.buffer(out, dims, x.dtype, (x, w, b))
    cache = checks.keep(out, x, w, b)
    result = floor("linear", x).affine_forward(device.reshape(x, (len(x), len(w))), w, b, relu=relu, out=direct)
    return checks.deliver(result, direct, out), cache


def affine_backward(dout, cache, *, need_dx=True, out=None):
    """Gradients of `affine_forward`.

    Parameters
    ----------
    dout : (N, M) array
    cache : (x, w, b)
    need_dx : bool
        False: dx, which the first layer of a net does not need, is not computed and None.
    out : array of x's shape, optional
        Receives dx.

    Returns
    -------
    dx, dw, db : arrays of the shapes of x, w, b
        db is None where b is.

    Raises
    ------
    TypeError, ValueError
        For a dout that does not fit the cache.
    """
    x, w, b = cache
    dout, x, w = checks.floats(dout=dout, x=x, w=w)
    checks.shape("dout", dout, _check_shapes(x, w, b))
    direct = checks.buffer(out, x.shape, x.dtype, (dout, x, w))
    linear, rows = floor("linear", x), (len(x), len(w))
    dx = None
    if need_dx:
        dx = linear.affine_backward_input(dout, w, out=None if direct is None else direct.reshape(rows))
        dx = dx.reshape(tuple(x.shape))
    dw = linear.affine_backward_weight(dout, device.reshape(x, rows))
    db = None if b is None else linear.affine_backward_bias(dout)
    return checks.deliver(dx, direct, out) if need_dx else None, dw, db


def _check_shapes(x, w, b):
    """The shape of the output."""
    checks.at_least_2d("x", x)
    checks.rank("w", w, "(D, M)")
    D, M = prod(x.shape[1:]), w.shape[1]
    checks.shape("w", w, (D, M))
    if b is not None:
        checks.shape("b", b, (M,))
    return x.shape[0], M


def flatten_forward(x, *, out=None):
    """x (N, d1, ..., dk) as (N, D), D = d1 ... dk: a view where strides allow, unless `out` is given.

    The cache is the shape of x.
    """
    (x,) = checks.floats(x=x)
    checks.at_least_2d("x", x)
    rows = x.shape[0], prod(x.shape[1:])
    checks.buffer(out, rows, x.dtype, (x,))
    return checks.deliver(device.reshape(x, rows), None, out), x.shape


def flatten_backward(dout, cache, *, out=None):
    """dout (N, D) in the shape of x: a view where strides allow, unless `out` is given."""
    (dout,) = checks.floats(dout=dout)
    checks.shape("dout", dout, (cache[0], prod(cache[1:])))
    checks.buffer(out, cache, dout.dtype, (dout,))
    return checks.deliver(device.reshape(dout, cache), None, out)
