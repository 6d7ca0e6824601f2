"""Max, average and global-average pooling."""

from fastcnn.layers import checks
from fastcnn.layers.backend import floor


def max_pool_forward(x, pool_param=None, *, pool_height=None, pool_width=None, stride=None, pad=None, out=None):
    """The maximum of each window; a window with a NaN in it gives NaN.

    Parameters
    ----------
    x : (N, C, H, W) array
    pool_param : dict, optional
        ``{'pool_height', 'pool_width', 'stride'}`` and, if wanted, ``'pad'``; other keys are ignored.
    pool_height, pool_width : int, optional
        Size of the window. Keywords win over `pool_param`.
    stride, pad : int or pair (vertical, horizontal), optional
        Without `pool_param`, stride defaults to the size of the window. pad, 0 by default, is at most half the window;
        padding never is the maximum.
    out : (N, C, H', W') array, optional

    Returns
    -------
    out : (N, C, H', W') array
        H' = 1 + (H + 2 pad - pool_height) // stride, W' alike.
    cache : (x, pool_param)

    Raises
    ------
    TypeError, ValueError
        For an x that is not floating-point or not (N, C, H, W), and parameters out of range or missing.
    """
    param = _parameters(pool_param, pool_height=pool_height, pool_width=pool_width, stride=stride, pad=pad)
    (x,) = checks.floats(x=x)
    checks.rank("x", x, "(N, C, H, W)")
    dims, windows = _geometry(x.shape, param)
    direct = checks.buffer(out, dims, x.dtype, (x,))
    cache = (*checks.keep(out, x), param)
    return checks.deliver(floor("pool", x).max_pool_forward(x, *windows, out=direct), direct, out), cache


def max_pool_backward(dout, cache, *, out=None):
    """dx of `max_pool_forward`: dout goes to the first maximum of each window, in row-major order."""
    x, param = cache
    dout, x = checks.floats(dout=dout, x=x)
    dims, windows = _geometry(x.shape, param)
    checks.shape("dout", dout, dims)
    direct = checks.buffer(out, x.shape, x.dtype, (dout, x))
    return checks.deliver(floor("pool", x).max_pool_backward(dout, x, *windows, out=direct), direct, out)


def avg_pool_forward(x, pool_param=None, *, pool_height=None, pool_width=None, stride=None, pad=None, out=None):
    """The mean of each window; padding counts as zeros.

    Arguments, results and errors are those of `max_pool_forward`; the cache is (shape of x, pool_param).
    """
    param = _parameters(pool_param, pool_height=pool_height, pool_width=pool_width, stride=stride, pad=pad)
    (x,) = checks.floats(x=x)
    checks.rank("x", x, "(N, C, H, W)")
    dims, windows = _geometry(x.shape, param)
    direct = checks.buffer(out, dims, x.dtype, (x,))
    result = floor("pool", x).avg_pool_forward(x, *windows, out=direct)
    return checks.deliver(result, direct, out), (x.shape, param)


def avg_pool_backward(dout, cache, *, out=None):
    """dx of `avg_pool_forward`: dout is spread evenly over each window."""
    x_shape, param = cache
    (dout,) = checks.floats(dout=dout)
    dims, windows = _geometry(x_shape, param)
    checks.shape("dout", dout, dims)
    direct = checks.buffer(out, x_shape, dout.dtype, (dout,))
    return checks.deliver(floor("pool", dout).avg_pool_backward(dout, x_shape, *windows, out=direct), direct, out)


def global_avg_pool_forward(x, *, out=None):
    """The mean of each channel of each image: x (N, C, H, W) gives out (N, C) and, as the cache, the shape of x."""
    (x,) = checks.floats(x=x)
    checks.rank("x", x, "(N, C, H, W)")
    checks.window(x.shape[2:], (1, 1), (1, 1), (0, 0))
    direct = checks.buffer(out, x.shape[:2], x.dtype, (x,))
    return checks.deliver(floor("pool", x).global_avg_pool_forward(x, out=direct), direct, out), x.shape


def global_avg_pool_backward(dout, cache, *, out=None):
    """dx of `global_avg_pool_forward`: dout (N, C) is spread evenly over each channel."""
    (dout,) = checks.floats(dout=dout)
    checks.shape("dout", dout, cache[:2])
    direct = checks.buffer(out, cache, dout.dtype, (dout,))
    return checks.deliver(floor("pool", dout).global_avg_pool_backward(dout, cache, out=direct), direct, out)


def _parameters(pool_param, **keywords):
    param = checks.parameters("pool_param", pool_param, {}, **keywords)
    if pool_param is None and "stride" not in param:
        param["stride"] = param.get("pool_height"), param.get("pool_width")
    return param


def _geometry(x_shape, param):
    """The shape of the output, and the three pairs that describe the windows."""
    height = checks.integer("pool_height", checks.required("pool_param", param, "pool_height"), 1)
    width = checks.integer("pool_width", checks.required("pool_param", param, "pool_width"), 1)
    stride = checks.pair("stride", checks.required("pool_param", param, "stride"), 1)
    pad = checks.pair("pad", param.get("pad", 0), 0)
    if 2 * pad[0] > height or 2 * pad[1] > width:
        raise ValueError(f"pad: expected at most half the window {(height, width)}, got {pad}")
    dims = *x_shape[:2], *checks.window(x_shape[2:], (height, width), stride, pad)
    return dims, ((height, width), stride, pad)
