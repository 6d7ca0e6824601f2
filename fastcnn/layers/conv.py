"""2-D convolution, im2col and col2im."""

import numpy as np

from fastcnn.layers import checks
from fastcnn.layers.algorithm import checked, geometry_of, preferred
from fastcnn.layers.backend import floor


def conv_forward(x, w, b, conv_param=None, *, stride=None, pad=None, dilation=None, groups=None, algo=None, out=None):
    """2-D convolution (cross-correlation) with zero padding.

    Parameters
    ----------
    x : (N, C, H, W) array
    w : (F, C/groups, HH, WW) array
    b : (F,) array or None
    conv_param : dict, optional
        ``{'stride', 'pad'}``, and, if wanted, ``'dilation'``, ``'groups'``, ``'algo'``; other keys are ignored.
    stride, pad, dilation : int or pair (vertical, horizontal), optional
        Defaults 1, 0, 1. Keywords win over `conv_param`.
    groups : int, optional
        Default 1; C and F are divisible by it.
    algo : {"auto", "accurate", "direct", "im2col", "winograd_f4x3", ...}, optional
        How it is computed, all names: `fastcnn.use_conv_algorithm`, which also says what is used where a call names
        none, by default "auto": the fastest by estimate. "accurate" never uses Winograd's transforms, whose relative
        errors in float32 may reach 5e-6 (tiles of 8 x 8: 2e-5) where those of the others stay below 1e-6.
        `fastcnn.conv_algorithm` explains a choice.
    out : (N, F, H', W') array, optional

    Returns
    -------
    out : (N, F, H', W') array
        H' = 1 + (H + 2 pad - dilation (HH - 1) - 1) // stride, W' alike.
    cache : (x, w, b, conv_param)

    Raises
    ------
    TypeError, ValueError
        For arrays that are not floating-point, shapes that do not fit, parameters out of range or missing, or an
        algorithm that does not compute such a convolution.
    """
    return convolve(
        x, w, b, conv_param, False, out, stride=stride, pad=pad, dilation=dilation, groups=groups, algo=algo
    )


def convolve(x, w, b, conv_param, relu, out, **keywords):
    """`conv_forward`, with `relu` followed by max(0, out) in the same pass."""
    param = checks.parameters("conv_param", conv_param, {"stride": 1, "pad": 0}, **keywords)
    x, w, b = checks.floats(x=x, w=w, b=b)
    dims, geometry = _geometry(x, w, b, param)
    direct = checks.buffer(out, dims, x.dtype, (x, w, b))
    cache = (*checks.keep(out, x, w, b), param)
    result = floor("conv", x).conv_forward(x, w, b, **geometry, relu=relu, out=direct)
    return checks.deliver(result, direct, out), cache


def conv_backward(dout, cache, *, algo=None, need_dx=True, out=None):
    """Gradients of `conv_forward`.

    Parameters
    ----------
    dout : (N, F, H', W') array
    cache : (x, w, b, conv_param)
    algo : optional, as for `conv_forward`
        By default what the forward pass was told by name, else what the surrounding `fastcnn.use_conv_algorithm` says.
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
        For a dout that does not fit the cache, or an algorithm that does not compute such a convolution.
    """
    x, w, b, param = cache
    if algo is not None:
        param = {**param, "algo": algo}
    dout, x, w = checks.floats(dout=dout, x=x, w=w)
    dims, geometry = _geometry(x, w, b, param)
    checks.shape("dout", dout, dims)
    direct = checks.buffer(out, x.shape, x.dtype, (dout, x, w))
    conv = floor("conv", x)
    dx = conv.conv_backward_input(dout, w, x.shape, **geometry, out=direct) if need_dx else None
    dw = conv.conv_backward_filter(dout, x, w.shape, **geometry)
    db = None if b is None else conv.conv_backward_bias(dout)
    return checks.deliver(dx, direct, out) if need_dx else None, dw, db


def im2col(x, kernel, stride=1, pad=0, dilation=1, *, out=None):
    """The windows of an image as columns.

    Parameters
    ----------
    x : (N, C, H, W) array
    kernel, stride, pad, dilation : int or pair (vertical, horizontal)
    out : array of the result's shape, optional

    Returns
    -------
    (N, C HH WW, H' W') array
        ``cols[n, (c HH + i) WW + j, p W' + q] = x[n, c, p stride + i dilation - pad, q stride + j dilation - pad]``.
    """
    (x,) = checks.floats(x=x)
    checks.rank("x", x, "(N, C, H, W)")
    dims, windows = _column_geometry(x.shape, kernel, stride, pad, dilation)
    direct = checks.buffer(out, dims, x.dtype, (x,))
    return checks.deliver(floor("conv", x).im2col(x, *windows, out=direct), direct, out)


def col2im(cols, x_shape, kernel, stride=1, pad=0, dilation=1, *, out=None):
    """The transpose of `im2col`: each pixel is the sum of the entries of cols (N, C HH WW, H' W') it was copied to.

    Arguments are as for `im2col`; x_shape = (N, C, H, W) is the shape of the result.
    """
    (cols,) = checks.floats(cols=cols)
    if len(x_shape) != 4:
        raise ValueError(f"x_shape: expected (N, C, H, W), got {x_shape}")
    x_shape = tuple(checks.integer("x_shape", size, 0) for size in x_shape)
    dims, windows = _column_geometry(x_shape, kernel, stride, pad, dilation)
    checks.shape("cols", cols, dims)
    direct = checks.buffer(out, x_shape, cols.dtype, (cols,))
    return checks.deliver(floor("conv", cols).col2im(cols, x_shape, *windows, out=direct), direct, out)


def _geometry(x, w, b, param):
    """The shape of the output, and what the floor's functions are to be told."""
    dims, geometry = geometry_of(x.shape, w.shape, param)
    if b is not None:
        checks.shape("b", b, dims[1:2])
    algo = param.get("algo")
    geometry["algo"] = preferred() if algo is None else checked(algo, w.shape, geometry, not isinstance(x, np.ndarray))
    return dims, geometry


def _column_geometry(x_shape, kernel, stride, pad, dilation):
    """The shape of the columns, and the four pairs that describe the windows."""
    N, C = x_shape[:2]
    kernel, stride = checks.pair("kernel", kernel, 1), checks.pair("stride", stride, 1)
    pad, dilation = checks.pair("pad", pad, 0), checks.pair("dilation", dilation, 1)
    H_out, W_out = checks.window(x_shape[2:], kernel, stride, pad, dilation)
    return (N, C * kernel[0] * kernel[1], H_out * W_out), (kernel, stride, pad, dilation)
