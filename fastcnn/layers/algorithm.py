"""Which algorithm convolutions use where a call names none, and what "auto" would choose and why."""

import dataclasses
from contextvars import ContextVar

import numpy as np

from fastcnn.common.convolution import CHOICES, TENSOR_CORES, WINOGRAD, applies
from fastcnn.layers import checks
from fastcnn.layers.context import Choice

_current = ContextVar("fastcnn_conv_algorithm", default="auto")


class use_conv_algorithm(Choice):  # lower case: it reads as a statement, `with use_conv_algorithm("accurate"):`
    """Compute convolutions by one algorithm inside a ``with`` block, wherever it applies, and directly elsewhere.

    Parameters
    ----------
    algo : {"auto", "accurate", "direct", "im2col", "depthwise", "winograd_f2x3", "winograd_f4x3", "winograd_f6x3",
           "winograd_f2x5", "winograd_f4x5", "winograd_f2x3s2", "winograd_f4x3s2", "tf32", "bf16"}
        "auto" is the fastest by estimate. "accurate" never transforms: relative errors stay below 1e-6 in float32,
        where Winograd's may reach 2e-6 (tiles of 4 x 4; 5 x 5), 5e-6 (6 x 6; 9 x 9) or 2e-5 (8 x 8).
        "tf32" and "bf16" are for float32 on a GPU: its tensor cores multiply numbers rounded to 10 or 7 bits of
        fraction, with relative errors up to 2e-3 and 2e-2.

    Raises
    ------
    ValueError
        For a name that is no algorithm, when the object is made.

    Examples
    --------
    >>> with use_conv_algorithm("accurate"):
    ...     out, cache = conv_forward(x, w, b, stride=1, pad=1)
    """

    variable = _current

    def __init__(self, algo):
        super().__init__(checks.choice("algo", algo, (*CHOICES, *TENSOR_CORES)))


def preferred():
    """The algorithm for calls that name none, in this thread or task."""
    return _current.get()


@dataclasses.dataclass(frozen=True)
class ConvAlgorithm:
    """What computes a convolution, by pass, with the estimated cost of each candidate in cycles of one core.

    ``str()`` of it is a table to read.
    """

    forward: str
    backward_input: str
    backward_filter: str
    costs: dict

    def __str__(self):
        lines = []
        for name, costs in self.costs.items():
            least = min(costs.values(), default=0) or 1  # an empty batch costs nothing
            others = ", ".join(f"{algo} {cost / least:.2f}" for algo, cost in sorted(costs.items(), key=lambda c: c[1]))
            lines.append(f"{name:<16} {getattr(self, name):<14} " + (f"estimated cost: {others}" if costs else ""))
        return "\n".join(line.rstrip() for line in lines)


def conv_algorithm(x_shape, w_shape, *, stride=1, pad=0, dilation=1, groups=1, algo=None, dtype=np.float32):
    """Which algorithm `conv_forward` and `conv_backward` use for these shapes on the CPU floor, and why.

    Parameters
    ----------
    x_shape : (N, C, H, W)
    w_shape : (F, C/groups, HH, WW)
    stride, pad, dilation : int or pair (vertical, horizontal)
    groups : int
    algo : str, optional
        As for `conv_forward`; by default that of the surrounding `use_conv_algorithm`, or "auto".
    dtype : float32 or float64

    Returns
    -------
    ConvAlgorithm
        With a name for each pass and the estimated costs; the less accurate of two candidates is charged a premium.

    Raises
    ------
    ValueError
        For shapes that do not fit, or an algorithm that does not apply to them.
    """
    from fastcnn.cpu.conv import choose  # here, for importing fastcnn loads no floor

    dtype = checks.floats(dtype=np.empty(0, dtype))[0].dtype
    geometry = geometry_of(x_shape, w_shape, {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups})[1]
    name = preferred() if algo is None else checked(algo, w_shape, geometry)
    choices = choose.explain(name, tuple(x_shape), tuple(w_shape), **geometry, dtype=dtype)
    return ConvAlgorithm(
        **{direction: chosen for direction, (chosen, _) in choices.items()},
        costs={direction: costs for direction, (_, costs) in choices.items()},
    )


def geometry_of(x_shape, w_shape, param):
    """Check the geometry of a convolution; return the output's shape, and stride, pad, dilation, groups by name."""
    stride = checks.pair("stride", checks.required("conv_param", param, "stride"), 1)
    pad = checks.pair("pad", checks.required("conv_param", param, "pad"), 0)
    dilation = checks.pair("dilation", param.get("dilation", 1), 1)
    groups = checks.integer("groups", param.get("groups", 1), 1)
    checks.axes("x", x_shape, "(N, C, H, W)")
    checks.axes("w", w_shape, "(F, C/groups, HH, WW)")
    (N, C), (F, C_group) = x_shape[:2], w_shape[:2]
    if not (F and C_group):
        raise ValueError(f"w: expected at least one filter of at least one channel, got shape {tuple(w_shape)}")
    if C % groups or F % groups:
        raise ValueError(f"groups: expected a divisor of C = {C} and F = {F}, got {groups}")
    if C_group * groups != C:
        raise ValueError(
            f"w: expected shape (F, {C // groups}, HH, WW) for x {tuple(x_shape)} and groups {groups}, got "
            f"{tuple(w_shape)}"
        )
    dims = N, F, *checks.window(x_shape[2:], w_shape[2:], stride, pad, dilation)
    return dims, {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}


def checked(algo, w_shape, geometry, on_gpu=False):
    """`algo`, if there is such an algorithm and it applies to a geometry of checked pairs."""
    checks.choice("algo", algo, (*CHOICES, *TENSOR_CORES))
    if algo in TENSOR_CORES and not on_gpu:
        raise ValueError(
            f"algo: {algo!r} is computed by the tensor cores of a GPU, and the arrays are in the memory of the host; "
            "fastcnn.to_device copies them"
        )
    pairs = (geometry[name] for name in ("stride", "pad", "dilation"))
    if not applies(algo, w_shape, *pairs, geometry["groups"]):
        given = ", ".join(f"{name} {value}" for name, value in geometry.items())
        raise ValueError(f"algo: {algo!r} computes {_able(algo)}, got w {tuple(w_shape)} and {given}")
    return algo


def _able(algo):
    """The convolutions that an algorithm takes, in words."""
    if algo not in WINOGRAD:
        return "filters of one channel, groups = C"
    _, taps, stride = WINOGRAD[algo]
    return f"filters of {taps} x {taps} pixels with stride {stride}, dilation 1, groups 1 and less padding than that"
