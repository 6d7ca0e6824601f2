"""One entry per op: its inputs, shapes, error limits, FLOPs and bytes.

Validation, tests and benchmarks all read this list, so an op added here is validated, tested and timed without further
ado. An op is a function of that name in the file of its family on every floor.
"""

import dataclasses
import importlib
from collections.abc import Callable

import numpy as np

from fastcnn import shapes
from fastcnn.common.convolution import ALGORITHMS, CHOICES, DISTINCT, TENSOR_CORES, WINOGRAD, applies
from fastcnn.common.device import is_device
from fastcnn.common.geometry import output_shape

LEVELS = ("quick", "normal", "thorough")
FLOORS = ("cpu", "cuda", "reference")


@dataclasses.dataclass(frozen=True)
class Limit:
    """Largest accepted relative error ||k - r|| / ||r|| of each result, and why it is that."""

    float32: float
    float64: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Op:
    """An op of the floors.

    Parameters
    ----------
    name, family : the function, and the file that it stands in
    cases : tuple of (level, dict); a level includes the cases of those before it; `algo` in a case is how to compute
    inputs : function (rng, **case) -> dict of arguments by name, arrays in float64;
        for a derivative: function (arguments of the forward op, its results, dout) -> dict
    limit : Limit
    limits : Limit by `algo`, for cases that name one
    derivative_of : the forward op whose gradient this is, or None
    wrt : for a derivative, and for a loss: the forward arguments that its results are the gradients of, in order
    flops : function (arguments) -> floating-point operations
    in_place : names of the arguments that `out` may be; None for a buffer that may be none of them
    buffers : which of the results `out` takes buffers for: (0,) one array; more, or an update rule, a tuple of arrays
    """

    name: str
    family: str
    cases: tuple
    inputs: Callable
    limit: Limit
    derivative_of: str | None = None
    wrt: tuple = ()
    flops: Callable = lambda arguments: 0
    in_place: tuple = ()
    buffers: tuple = (0,)
    limits: dict = dataclasses.field(default_factory=dict)

    def out(self, arrays):
        """The argument `out` made of these arrays, one for each of `buffers`."""
        return tuple(arrays) if self.family == "optim" or len(self.buffers) > 1 else arrays[0]

    def function(self, floor):
        """The op on the floor of that name."""
        return getattr(importlib.import_module(f"fastcnn.{floor}.{self.family}"), self.name)

    def arguments(self, rng, case, dtype=np.float64):
        """Fresh random arguments for a case, arrays in `dtype`; consistent ones for a derivative."""
        if self.derivative_of:
            forward = OPS[self.derivative_of]
            given = forward.arguments(rng, case)
            results = as_tuple(forward.function("reference")(**given))
            arguments = self.inputs(given, results, rng.standard_normal(results[0].shape))
        else:
            arguments = self.inputs(rng, **case)
        return {name: cast(value, dtype) for name, value in arguments.items()}

    def cases_of(self, level):
        """The cases of a level and of those below it."""
        return [case for name, case in self.cases if LEVELS.index(name) <= LEVELS.index(level)]

    def by_algorithm(self, level, floor="cpu"):
        """{algo: (limit, cases)} of a level; for an op whose cases name no algorithm, that of None.

        Without algorithms that the floor does not tell apart from others.
        """
        found = {}
        for case in self.cases_of(level):
            algo = case.get("algo")
            if algo is None or algo in DISTINCT.get(floor, CHOICES):
                found.setdefault(algo, (self.limits.get(algo, self.limit), []))[1].append(case)
        return found


class Floor:
    """How to call ops on one floor: on the GPU's, arrays travel there and back.

    Parameters
    ----------
    name : "reference", "cpu" or "cuda"
    """

    def __init__(self, name):
        self.name = name
        self._arrays = importlib.import_module("fastcnn.cuda.arrays") if name == "cuda" else None

    def function(self, op):
        """The op's function, on arrays of the floor."""
        return op.function(self.name)

    def call(self, op, arguments):
        """Call the op on host arrays; its results as host arrays."""
        return self.get(self.function(op)(**{name: self.put(value) for name, value in arguments.items()}))

    def put(self, value):
        """An argument as the floor takes it: host arrays in its memory, all else as it is."""
        return self._arrays.to_device(value) if self._arrays and isinstance(value, np.ndarray) else value

    def transposed(self, value):
        """A view of an array of the floor with its axes in reverse order."""
        return self._arrays.transposed(value) if self._arrays else value.T

    def get(self, results):
        """Results on the host."""
        if not self._arrays:
            return results
        if isinstance(results, tuple):
            return tuple(map(self.get, results))
        return self._arrays.to_host(results) if is_device(results) else float(results)


def as_tuple(results):
    """What an op returned, as a tuple."""
    return results if isinstance(results, tuple) else (results,)


def cast(value, dtype):
    """`value`, in `dtype` if it is an array of floating-point numbers; a dtype itself becomes `dtype`."""
    if isinstance(value, np.dtype):
        return np.dtype(dtype)
    floating = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(dtype) if floating else value


def bytes_moved(arguments, results):
    """The least traffic of a call: each input array read once, each output array written once."""
    arrays = (*arguments.values(), *as_tuple(results))
    return sum(array.nbytes for array in arrays if getattr(array, "shape", ()) and hasattr(array, "nbytes"))


def _cases(quick, normal=(), thorough=()):
    levels = zip(LEVELS, (quick, normal, thorough))
    return tuple((level, case) for level, cases in levels for case in cases)


def _elements(name, factor=1):
    return lambda arguments: factor * arguments[name].size


# ---- convolution

_SUMS = Limit(1e-6, 5e-15, "products summed in blocks of 256, then block by block")
_MOVES = Limit(0, 0, "copies numbers, computes none")


def _conv_case(x, w, stride=1, pad=0, dilation=1, groups=1, relu=False, bias=True, add=False):
    pair = {"stride": stride, "pad": pad, "dilation": dilation}
    pair = {name: value if isinstance(value, tuple) else (value, value) for name, value in pair.items()}
    return dict(x=x, w=w, groups=groups, relu=relu, bias=bias, add=add, **pair)


def _layers(network, batch):
    return [
        _conv_case((batch, s.channels, s.height, s.width), (s.filters, s.channels, s.kernel, s.kernel), s.stride, s.pad)
        for s in shapes.load(network)
    ]


def _tiled_cases(algo):
    """Images, channels and filters on either side of the blocks of one of Winograd's algorithms."""
    m, taps, stride = WINOGRAD[algo]
    most, kernel = taps - 1, (taps, taps)
    tall, wide = stride * 7 * m + taps, stride * 8 * m + most
    return [
        _conv_case((1, 1, 1, 1), (1, 1, *kernel), stride, pad=taps // 2),
        _conv_case((3, 17, tall, wide), (9, 17, *kernel), stride, add=True, relu=True),
        _conv_case((2, 33, stride * 2 * m + 1, stride * 9 * m - 1), (65, 33, *kernel), stride, (most, 0), bias=False),
        _conv_case((49, 2, stride * m, stride * m), (15, 2, *kernel), stride, (taps // 2, most)),
    ]


_GEOMETRIES = _cases(
    quick=[
        _conv_case((2, 3, 9, 8), (5, 3, 3, 3), pad=1, relu=True),
        _conv_case((3, 63, 7, 5), (42, 3, 1, 1), groups=21, relu=True, add=True),
        _conv_case((2, 4, 11, 10), (6, 2, 3, 2), stride=(2, 1), pad=(1, 0), dilation=(1, 2), groups=2),
        _conv_case((2, 3, 8, 11), (9, 3, 5, 5), pad=2),
        _conv_case((2, 3, 11, 8), (9, 3, 3, 3), stride=2, pad=1, relu=True),
        _conv_case((2, 16, 10, 9), (16, 1, 3, 3), pad=1, groups=16, bias=False),
    ],
    normal=[
        _conv_case((1, 1, 1, 1), (1, 1, 1, 1)),
        _conv_case((2, 3, 5, 7), (4, 3, 2, 2), stride=(4, 3)),  # stride > kernel: pixels that no window sees
        _conv_case((0, 3, 6, 6), (4, 3, 3, 3), pad=1),
        _conv_case((3, 5, 9, 34), (10, 1, 3, 5), stride=(2, 1), pad=(1, 2), groups=5),
        _conv_case((1, 1023, 3, 3), (7, 1023, 3, 3), pad=1),
        _conv_case((130, 5, 4, 4), (9, 5, 3, 3), pad=1),
        _conv_case((1, 2, 3, 60), (300, 2, 3, 3), pad=2),
        _conv_case((2, 3, 23, 21), (8, 3, 7, 7), stride=2, pad=3),
        _conv_case((1, 2, 3, 2), (3, 2, 5, 5), stride=(1, 3), pad=(4, 3), dilation=(2, 1)),
        *_layers("lenet", 4),
        *_layers("resnet20", 2),
    ],
    thorough=[
        *_layers("resnet20", 32),
        *_layers("vgg11_cifar", 8),
        *_layers("resnet18_cifar", 4),
        *_layers("resnet18", 1),
        *_layers("resnet50", 1),
        *_layers("vgg16", 1)[2:],
    ],
)


def _applies(algo, case):
    return applies(algo, case["w"], case["stride"], case["pad"], case["dilation"], case["groups"])


# Every geometry by every algorithm that takes it, each judged by a limit of its own.
_CONV_CASES = tuple(
    (level, {**case, "algo": algo})
    for algo in ("auto", *ALGORITHMS, *TENSOR_CORES)
    for level, case in (*_GEOMETRIES, *_cases((), _tiled_cases(algo) if algo in WINOGRAD else ()))
    if _applies(algo, case)
)
_TILES = "transforms of {0} x {0} tiles: the larger, the more their terms cancel"
_CONV_LIMITS = {
    "auto": Limit(2e-5, 1e-13, "that of the least accurate algorithm it may choose"),
    "tf32": Limit(2e-3, 5e-15, "factors rounded to 10 bits of fraction; float64 is not"),
    "bf16": Limit(2e-2, 5e-15, "factors rounded to 7 bits of fraction; float64 is not"),
    "winograd_f2x3": Limit(2e-6, 1e-14, _TILES.format(4)),
    "winograd_f4x3": Limit(5e-6, 2.5e-14, _TILES.format(6)),
    "winograd_f6x3": Limit(2e-5, 1e-13, _TILES.format(8)),
    "winograd_f2x5": Limit(5e-6, 2.5e-14, _TILES.format(6)),
    "winograd_f4x5": Limit(2e-5, 1e-13, _TILES.format(8)),
    "winograd_f2x3s2": Limit(2e-6, 1e-14, _TILES.format(5)),
    "winograd_f4x3s2": Limit(5e-6, 2.5e-14, _TILES.format(9)),
}
# A mean's terms cancel, so that it is less accurate than they are.
_MOMENTS_LIMITS = {
    algo: Limit(2 * limit.float32, 2 * limit.float64, limit.reason) for algo, limit in _CONV_LIMITS.items()
}


def _conv_inputs(rng, x, w, bias, add, **options):
    given = dict(x=rng.standard_normal(x), w=rng.standard_normal(w), b=rng.standard_normal(w[0]) if bias else None)
    windows = output_shape(x[2:], w[2:], options["stride"], options["pad"], options["dilation"])
    given["add"] = rng.standard_normal((x[0], w[0], *windows)) if add else None
    return dict(**given, **options)


def _conv_moments_inputs(rng, relu, add, **case):
    given = _conv_inputs(rng, add=False, **case)
    del given["add"]
    return given


def _geometry(given, *names):
    return {name: given[name] for name in ("stride", "pad", "dilation", *names)}


def _masked(given, results, dout):
    return dout * (results[0] > 0) if given["relu"] else dout


def _conv_flops(arguments):
    w = arguments["w"].shape if "w" in arguments else arguments["w_shape"]
    if "dout" in arguments:
        n, _, height, width = arguments["dout"].shape
    else:
        n = arguments["x"].shape[0]
        height, width = output_shape(arguments["x"].shape[2:], w[2:], *_geometry(arguments).values())
    return 2 * n * height * width * int(np.prod(w))


def _window_case(case):
    return {"x": case["x"], "kernel": case["w"][2:], **_geometry(case)}


_WINDOW_CASES = tuple((level, _window_case(case)) for level, case in _GEOMETRIES if level != "thorough")


def _window_inputs(rng, x, **options):
    return dict(x=rng.standard_normal(x), **options)


_CONV = [
    Op("conv_forward", "conv", _CONV_CASES, _conv_inputs, _SUMS, flops=_conv_flops, limits=_CONV_LIMITS),
    Op(
        "conv_moments_forward", "conv", _CONV_CASES, _conv_moments_inputs,
        Limit(2e-6, 1e-14, "as conv_forward, then sums about a pivot"), flops=_conv_flops, limits=_MOMENTS_LIMITS,
    ),
    Op(
        "conv_backward_input", "conv", _CONV_CASES,
        lambda i, r, g: dict(dout=_masked(i, r, g), w=i["w"], x_shape=i["x"].shape, **_geometry(i, "groups", "algo")),
        _SUMS, "conv_forward", ("x",), _conv_flops, limits=_CONV_LIMITS,
    ),
    Op(
        "conv_backward_filter", "conv", _CONV_CASES,
        lambda i, r, g: dict(dout=_masked(i, r, g), x=i["x"], w_shape=i["w"].shape, **_geometry(i, "groups", "algo")),
        _SUMS, "conv_forward", ("w",), _conv_flops, limits=_CONV_LIMITS,
    ),
    Op(
        "conv_backward_bias", "conv", tuple(c for c in _GEOMETRIES if c[1]["bias"]),
        lambda i, r, g: dict(dout=_masked(i, r, g)),
        Limit(1e-6, 1e-14, "summed in float64, rounded once; positive and negative terms cancel"),
        "conv_forward", ("b",), _elements("dout"),
    ),
    Op("im2col", "conv", _WINDOW_CASES, _window_inputs, _MOVES),
    Op(
        "col2im", "conv", _WINDOW_CASES,
        lambda i, r, g: dict(cols=g, x_shape=i["x"].shape, **{k: v for k, v in i.items() if k != "x"}),
        Limit(5e-7, 1e-15, "a few dozen additions per pixel"), "im2col", ("x",), _elements("cols"),
    ),
]  # fmt: skip


# ---- affine

_AFFINE_CASES = _cases(
    quick=[dict(n=3, d=17, m=5, relu=True), dict(n=1, d=1, m=1, relu=False)],
    normal=[
        dict(n=0, d=4, m=3, relu=False),
        dict(n=65, d=1023, m=49, relu=False),
        dict(n=7, d=300, m=193, relu=True),
        dict(n=128, d=1568, m=10, relu=False),
    ],
    thorough=[dict(n=128, d=4096, m=1000, relu=False), dict(n=1, d=25088, m=512, relu=True)],
)


def _affine_flops(arguments):
    shapes_ = [a.shape for a in arguments.values() if getattr(a, "ndim", 0) == 2]
    return 2 * shapes_[0][0] * shapes_[0][1] * shapes_[1][1 if "x" in arguments else 0]


_AFFINE = [
    Op(
        "affine_forward", "linear", _AFFINE_CASES,
        lambda rng, n, d, m, relu: dict(
            x=rng.standard_normal((n, d)), w=rng.standard_normal((d, m)), b=rng.standard_normal(m), relu=relu
        ),
        _SUMS, flops=_affine_flops,
    ),
    Op(
        "affine_backward_input", "linear", _AFFINE_CASES, lambda i, r, g: dict(dout=_masked(i, r, g), w=i["w"]),
        _SUMS, "affine_forward", ("x",), _affine_flops,
    ),
    Op(
        "affine_backward_weight", "linear", _AFFINE_CASES, lambda i, r, g: dict(dout=_masked(i, r, g), x=i["x"]),
        _SUMS, "affine_forward", ("w",), _affine_flops,
    ),
    Op(
        "affine_backward_bias", "linear", _AFFINE_CASES, lambda i, r, g: dict(dout=_masked(i, r, g)),
        Limit(1e-6, 1e-14, "summed in float64, rounded once; positive and negative terms cancel"),
        "affine_forward", ("b",), _elements("dout"),
    ),
]  # fmt: skip


# ---- pooling


def _pool_case(x, size, stride, pad=0):
    pair = {"size": size, "stride": stride, "pad": pad}
    return dict(x=x, **{name: value if isinstance(value, tuple) else (value, value) for name, value in pair.items()})


_POOL_CASES = _cases(
    quick=[_pool_case((2, 3, 8, 6), 2, 2), _pool_case((2, 3, 9, 7), 3, 2, 1)],
    normal=[
        _pool_case((1, 1, 1, 1), 1, 1),
        _pool_case((0, 2, 4, 4), 2, 2),
        _pool_case((2, 2, 11, 13), (2, 3), (3, 4)),
        _pool_case((3, 5, 7, 40), (3, 5), (1, 2), (1, 2)),
        _pool_case((1, 2, 5, 1023), (5, 2), 2),
        _pool_case((3, 2, 7, 67), 2, 2),
    ],
    thorough=[_pool_case((16, 64, 32, 32), 2, 2), _pool_case((2, 64, 112, 112), 3, 2, 1)],
)
_GLOBAL_CASES = _cases(
    quick=[dict(x=(2, 5, 7, 3))],
    normal=[dict(x=(0, 2, 3, 3)), dict(x=(3, 63, 1, 1))],
    thorough=[dict(x=(32, 512, 7, 7))],
)
_AVERAGES = Limit(1e-6, 1e-14, "a sum over the window whose terms may cancel, one division")
_SPREADS = Limit(3e-7, 1e-15, "one division, then one addition per window")


def _distinct(rng, x, **options):
    """Values far enough apart that a small step changes no maximum."""
    size = int(np.prod(x))
    return dict(x=(rng.permutation(size).reshape(x) - size / 2) / max(size, 1) * 4, **options)


_POOL = [
    Op("max_pool_forward", "pool", _POOL_CASES, _distinct, _MOVES, flops=_elements("x")),
    Op(
        "max_pool_backward", "pool", _POOL_CASES, lambda i, r, g: dict(dout=g, **i),
        Limit(2e-7, 1e-15, "additions where windows overlap"), "max_pool_forward", ("x",), _elements("x"),
    ),
    Op("avg_pool_forward", "pool", _POOL_CASES, _window_inputs, _AVERAGES, flops=_elements("x")),
    Op(
        "avg_pool_backward", "pool", _POOL_CASES,
        lambda i, r, g: dict(dout=g, x_shape=i["x"].shape, size=i["size"], stride=i["stride"], pad=i["pad"]),
        _SPREADS, "avg_pool_forward", ("x",), _elements("dout"),
    ),
    Op("global_avg_pool_forward", "pool", _GLOBAL_CASES, _window_inputs, _AVERAGES, flops=_elements("x")),
    Op(
        "global_avg_pool_backward", "pool", _GLOBAL_CASES, lambda i, r, g: dict(dout=g, x_shape=i["x"].shape),
        _SPREADS, "global_avg_pool_forward", ("x",), _elements("dout"),
    ),
]  # fmt: skip


# ---- activations

_SHAPES = _cases(
    quick=[dict(shape=(3, 7)), dict(shape=(1023,))],
    normal=[dict(shape=(0, 4)), dict(shape=(1,)), dict(shape=(2, 63, 5, 3)), dict(shape=(5, 2049))],
    thorough=[dict(shape=(32, 64, 32, 32))],
)
_ROUNDING = Limit(2e-7, 5e-16, "one or two roundings per element")
_FORMULA = Limit(5e-7, 2e-15, "an exponential and a few roundings per element")


def _off_zero(rng, shape, **options):
    """Values of either sign, none so near zero that a small step crosses it."""
    x = 2 * rng.standard_normal(shape)
    return dict(x=x + 1e-3 * np.sign(x), **options)


def _activation(name, limit, saved="x", flops=1, cases=_SHAPES, **options):
    """The entries of an activation; `saved`: whether its derivative takes the input x or the output y."""

    def backward(given, results, dout):
        value = given["x"] if saved == "x" else results[0]
        return {"dout": dout, saved: value, **{k: v for k, v in given.items() if k != "x"}}

    return [
        Op(
            f"{name}_forward", "activation", cases, lambda rng, **case: _off_zero(rng, **case, **options), limit,
            flops=_elements("x", flops), in_place=("x",),
        ),
        Op(
            f"{name}_backward", "activation", cases, backward, limit, f"{name}_forward", ("x",),
            _elements("dout", flops + 1), in_place=("dout",),
        ),
    ]  # fmt: skip


_CHANNEL_CASES = _cases(
    quick=[dict(shape=(3, 8)), dict(shape=(2, 6, 5, 3))],
    normal=[dict(shape=(0, 4, 2, 2)), dict(shape=(1, 2, 1, 1)), dict(shape=(7, 1022)), dict(shape=(2, 62, 33))],
    thorough=[dict(shape=(16, 64, 32, 32))],
)

_ONE_SLOPE = _cases([dict(shape=(3, 5, 2), slopes=1)])
_ACTIVATION = [
    *_activation("relu", _ROUNDING),
    *_activation("leaky_relu", _ROUNDING, slope=0.1),
    *_activation("elu", _FORMULA, flops=10, alpha=1.3),
    *_activation("gelu", _FORMULA, flops=20, cases=_SHAPES + _cases([dict(shape=(63, 7), approximate="tanh")])),
    *_activation("sigmoid", _FORMULA, "y", flops=10),
    *_activation("tanh", _FORMULA, "y", flops=10),
    Op(
        "add_forward", "activation", _SHAPES,
        lambda rng, shape: dict(a=rng.standard_normal(shape), b=rng.standard_normal(shape), relu=len(shape) == 2),
        _ROUNDING, flops=_elements("a", 2), in_place=("a",),
    ),
    Op(
        "prelu_forward", "activation", _CHANNEL_CASES + _ONE_SLOPE,
        lambda rng, shape, slopes=None: _off_zero(rng, shape, slope=rng.uniform(0, 0.5, slopes or shape[1])),
        _ROUNDING, flops=_elements("x"), in_place=("x",),
    ),
    Op(
        "prelu_backward", "activation", _CHANNEL_CASES + _ONE_SLOPE, lambda i, r, g: dict(dout=g, **i),
        Limit(1e-6, 1e-14, "dslope is a float64 sum of products rounded to the dtype"),
        "prelu_forward", ("x", "slope"), _elements("dout", 3), in_place=("dout",),
    ),
    Op("maxout_forward", "activation", _CHANNEL_CASES, lambda rng, shape: _distinct(rng, shape, pieces=2), _MOVES),
    Op(
        "maxout_backward", "activation", _CHANNEL_CASES, lambda i, r, g: dict(dout=g, **i), _MOVES,
        "maxout_forward", ("x",),
    ),
]  # fmt: skip

# ---- normalisation

_NORM_CASES = _cases(
    quick=[dict(shape=(5, 7), relu=False), dict(shape=(4, 6, 5, 3), relu=True)],
    normal=[
        dict(shape=(1023, 63), relu=True),
        dict(shape=(3, 130, 4), relu=False),
        dict(shape=(5, 1, 1, 1), relu=False),
        dict(shape=(1, 2, 1, 1), relu=False),
        dict(shape=(0, 3, 2, 2), relu=False),
        dict(shape=(0, 3), relu=False),
        dict(shape=(9, 4, 1, 1), relu=True),
        dict(shape=(67, 70, 3, 3), relu=True),
        dict(shape=(2, 9, 13, 7), relu=True),
        dict(shape=(3, 2, 41, 53), relu=False),
    ],
    thorough=[
        dict(shape=(64, 64, 32, 32), relu=True),
        dict(shape=(128, 64, 8, 8), relu=True),
        dict(shape=(128, 4096), relu=False),
    ],
)
_GROUP_CASES = _cases(
    quick=[
        dict(shape=(4, 6, 5, 3), groups=3),
        dict(shape=(5, 12), groups=1),
        dict(shape=(1, 24, 18, 20), groups=1),
    ],
    normal=[
        dict(shape=(2, 63, 7, 5), groups=21),
        dict(shape=(3, 1023), groups=1),
        dict(shape=(2, 8, 6, 4), groups=8),
        dict(shape=(4, 64), groups=16),
        dict(shape=(0, 4, 2, 2), groups=2),
        dict(shape=(2, 6, 11, 13), groups=2),
        dict(shape=(70, 4, 5, 5), groups=2),
    ],
    thorough=[dict(shape=(16, 64, 32, 32), groups=32), dict(shape=(1024, 768), groups=1)],
)
_STATISTICS = Limit(2e-6, 2e-14, "statistics in float64; x - mean loses what rounding the mean to the dtype loses")


def _norm_inputs(rng, shape, **options):
    channels = shape[1]
    return dict(
        x=rng.standard_normal(shape) * 2 + 3,
        gamma=rng.uniform(0.5, 1.5, channels),
        beta=rng.standard_normal(channels) + 0.01,
        eps=1e-5,
        **options,
    )


def _inference_inputs(rng, shape, **options):
    channels = shape[1]
    statistics = dict(mean=rng.standard_normal(channels) + 3, var=rng.uniform(1, 5, channels))
    return {**_norm_inputs(rng, shape, **options), **statistics}


def _with_add(inputs):
    """The same inputs, and `add`."""

    def with_add(rng, shape, **options):
        return dict(**inputs(rng, shape, **options), add=rng.standard_normal(shape))

    return with_add


def _without(given, *names):
    return {name: value for name, value in given.items() if name not in names}


_NORM = [
    Op("batchnorm_forward", "norm", _NORM_CASES, _norm_inputs, _STATISTICS, flops=_elements("x", 8), in_place=("x",)),
    Op(
        "batchnorm_backward", "norm", _NORM_CASES, lambda i, r, g: dict(dout=g, **i, mean=r[1], var=r[2]),
        _STATISTICS, "batchnorm_forward", ("x", "gamma", "beta"), _elements("x", 12), in_place=("dout",),
    ),
    Op(
        "batchnorm_inference", "norm", _NORM_CASES, _inference_inputs, _STATISTICS,
        flops=_elements("x", 3), in_place=("x",),
    ),
    Op(
        "batchnorm_inference_backward", "norm", _NORM_CASES, lambda i, r, g: dict(dout=g, **i),
        _STATISTICS, "batchnorm_inference", ("x", "gamma", "beta"), _elements("x", 6), in_place=("dout",),
    ),
    Op(
        "batchnorm_add_forward", "norm", _NORM_CASES, _with_add(_norm_inputs), _STATISTICS,
        flops=_elements("x", 9), in_place=("x",),
    ),
    Op(
        "batchnorm_add_backward", "norm", _NORM_CASES,
        lambda i, r, g: dict(dout=g, **_without(i, "add", "beta"), y=r[0], mean=r[1], var=r[2]), _STATISTICS,
        "batchnorm_add_forward", ("x", "add", "gamma", "beta"), _elements("x", 12), (None, "dout"), (0, 1),
    ),
    Op(
        "batchnorm_add_inference", "norm", _NORM_CASES, _with_add(_inference_inputs), _STATISTICS,
        flops=_elements("x", 4), in_place=("x",),
    ),
    Op(
        "batchnorm_add_inference_backward", "norm", _NORM_CASES,
        lambda i, r, g: dict(dout=g, **_without(i, "add", "beta"), y=r[0]), _STATISTICS,
        "batchnorm_add_inference", ("x", "add", "gamma", "beta"), _elements("x", 6), (None, "dout"), (0, 1),
    ),
    Op("groupnorm_forward", "norm", _GROUP_CASES, _norm_inputs, _STATISTICS, flops=_elements("x", 8), in_place=("x",)),
    Op(
        "groupnorm_backward", "norm", _GROUP_CASES,
        lambda i, r, g: dict(dout=g, **_without(i, "beta"), mean=r[1], var=r[2]),
        _STATISTICS, "groupnorm_forward", ("x", "gamma", "beta"), _elements("x", 12), in_place=("dout",),
    ),
    Op(
        "moving_average", "norm", _SHAPES,
        lambda rng, shape: dict(old=rng.standard_normal(shape), new=rng.standard_normal(shape), momentum=0.9),
        Limit(2e-7, 1e-15, "three roundings per element"), flops=_elements("old", 3), in_place=("old",),
    ),
]  # fmt: skip


# ---- dropout

_MASK_CASES = _SHAPES + _cases(quick=[dict(shape=(2, 1027))])  # a whole run of random words, and a few more
_MASKS = Limit(2e-7, 5e-16, "one product per element; which elements are kept must agree exactly")


def _dropout_inputs(rng, shape):
    return dict(x=rng.standard_normal(shape), p=0.6, key=int(rng.integers(0, 2**63)) * 2 + 1)


_DROPOUT = [
    Op(
        "dropout_forward", "dropout", _MASK_CASES, _dropout_inputs, _MASKS, flops=_elements("x"), in_place=("x",),
    ),
    Op(
        "dropout_backward", "dropout", _MASK_CASES, lambda i, r, g: dict(dout=g, p=i["p"], key=i["key"]),
        _MASKS, "dropout_forward", ("x",), _elements("dout"), in_place=("dout",),
    ),
    Op(
        "dropout_mask", "dropout", _MASK_CASES,
        lambda rng, shape: dict(shape=shape, p=0.6, key=int(rng.integers(0, 2**63)), dtype=np.dtype(np.float64)),
        _MASKS,
    ),
    Op(
        "mask_multiply", "dropout", _MASK_CASES,
        lambda rng, shape: dict(x=rng.standard_normal(shape), mask=(rng.random(shape) < 0.5) / 0.5),
        _MASKS, flops=_elements("x"), in_place=("x",),
    ),
]  # fmt: skip


# ---- losses

_SCORE_CASES = _cases(
    quick=[dict(n=5, c=10)],
    normal=[dict(n=0, c=3), dict(n=1, c=2), dict(n=63, c=1023)],
    thorough=[dict(n=128, c=1000)],
)
_SOFT_CASES = _cases(
    quick=[dict(n=5, c=10, soft=True)], normal=[dict(n=0, c=3, soft=True), dict(n=63, c=1023, soft=True)]
)
_LOSS = Limit(1e-6, 1e-14, "exponentials and sums in float64, rounded once")


def _scores(rng, n, c, soft=False, **options):
    y = rng.dirichlet(np.ones(c), n) if soft else rng.integers(0, c, n).astype(np.intp)
    return dict(x=3 * rng.standard_normal((n, c)), y=y, **options)


_LOSSES = [
    Op("softmax_loss", "loss", _SCORE_CASES + _SOFT_CASES,
       lambda rng, **case: _scores(rng, label_smoothing=0.1, **case), _LOSS,
       wrt=("x",), flops=_elements("x", 12), buffers=(1,)),
    Op("svm_loss", "loss", _SCORE_CASES, _scores, _LOSS, wrt=("x",), flops=_elements("x", 4), buffers=(1,)),
    Op("binary_cross_entropy_loss", "loss", _SHAPES,
       lambda rng, shape: dict(x=3 * rng.standard_normal(shape), y=rng.random(shape)), _LOSS,
       wrt=("x",), flops=_elements("x", 20), buffers=(1,)),
]  # fmt: skip


# ---- update rules

_UPDATE = Limit(1e-6, 5e-15, "a dozen roundings per element, a square root and a division")


def _update(name, *state, variants=(), **options):
    """The entry of an update rule; `variants`: other options, each tried on a small case."""

    def inputs(rng, shape, **variant):
        arrays = {key: rng.standard_normal(shape) for key in ("w", "dw")}
        arrays |= {key: rng.random(shape) if key in ("g2", "v") else rng.standard_normal(shape) for key in state}
        common = dict(lr=0.05, weight_decay=0.01, l1=0.002, grad_scale=0.7, clip_value=0.8)
        return {**arrays, **common, **options, **variant}

    arrays = ("w", *state)
    cases = _SHAPES + _cases([dict(shape=(3, 7), **variant) for variant in variants])
    return Op(
        name, "optim", cases, inputs, _UPDATE,
        flops=_elements("w", 12), in_place=arrays, buffers=tuple(range(len(arrays))),
    )  # fmt: skip


_OPTIM = [
    _update("sgd_update"),
    _update(
        "momentum_update", "v", rho=0.9, nesterov=True,
        variants=[dict(nesterov=False), dict(lr_in_velocity=True), dict(nesterov=False, lr_in_velocity=True)],
    ),
    _update("adagrad_update", "g2", eps=0.01, variants=[dict(eps_inside=True)]),
    _update("rmsprop_update", "g2", eps=0.01, decay=0.95, variants=[dict(eps_inside=True)]),
    _update("adam_update", "m", "v", t=3, eps=0.01, decoupled=True, variants=[dict(decoupled=False, eps_inside=True)]),
    Op("squared_norm", "optim", _SHAPES, lambda rng, shape: dict(x=rng.standard_normal(shape)),
       Limit(1e-12, 1e-14, "products and sums in float64"), flops=_elements("x", 2), buffers=()),
    Op("clip_scale", "optim", _SHAPES, lambda rng, shape: dict(x=rng.standard_normal(shape), max_norm=10.0),
       Limit(1e-12, 1e-14, "as squared_norm, a root and a quotient"), flops=_elements("x", 2), buffers=()),
]  # fmt: skip

# ---- augmentation

_IMAGES = _cases(
    quick=[dict(x=(3, 3, 7, 9), integer=True), dict(x=(2, 1, 5, 4))],
    normal=[dict(x=(0, 3, 4, 4), integer=True), dict(x=(1, 4, 1, 1)), dict(x=(5, 2, 33, 17), integer=True)],
    thorough=[dict(x=(128, 3, 32, 32), integer=True), dict(x=(8, 3, 224, 224), integer=True)],
)
_WARPS = tuple(
    (level, dict(case, size=size, map=map_))
    for level, case in _IMAGES
    for map_, size in (("affine", (11, 6)), ("shift", case["x"][2:]), ("shrink", (3, 2)))
)
_PIXELS = Limit(1e-6, 5e-15, "a dozen roundings per pixel; the mean that is subtracted cancels some digits")


def _images(rng, shape, integer=False):
    """Images with values from 0 to 255, and the scale and shift that standardise them."""
    x = rng.integers(0, 256, shape, np.uint8) if integer else rng.uniform(0, 255, shape)
    return dict(x=x, scale=rng.uniform(0.01, 0.02, shape[1]), shift=rng.uniform(-2, -1, shape[1]))


def _warp_inputs(rng, x, size, map, integer=False):
    maps = rng.uniform(-1, 1, (x[0], 2, 3)) + [[0, 0, x[2] / 2], [0, 0, x[3] / 2]]
    if map == "shift":
        mirrored = rng.random(x[0]) < 0.5
        maps[:, :, :2] = [[1, 0], [0, 1]]
        maps[:, :, 2] = rng.integers(-1, 2, (x[0], 2))
        maps[mirrored, 1, 1] = -1
        maps[mirrored, 1, 2] += x[3] - 1
    elif map == "shrink":
        maps[:, :, :2] *= 4
    return dict(maps=maps, size=size, fill=rng.uniform(0, 255, x[1]), **_images(rng, x, integer))


def _color_inputs(rng, x, integer=False):
    mixes = {name: rng.uniform(-0.5, 1, (x[0], x[1], x[1])) for name in ("mix", "mean_mix")}
    return dict(**mixes, **_images(rng, x, integer))


def _noise_inputs(rng, x, integer=False):
    keys = rng.integers(0, 2**64, x[0], np.uint64)
    return dict(std=rng.uniform(1, 50, x[0]), keys=keys, **_images(rng, x, integer))


def _erase_inputs(rng, x, integer=False):
    ends = [np.sort(rng.integers(0, length + 1, (x[0], 2)), axis=1) for length in x[2:]]
    ends[0][:1], ends[1][:1] = (0, 1), (0, x[3])  # one box that is not empty
    return dict(x=rng.standard_normal(x), boxes=np.concatenate(ends, axis=1), fill=rng.standard_normal(x[1]))


def _mix_inputs(rng, x, integer=False):
    return dict(x=rng.standard_normal(x), partner=rng.permutation(x[0]), weight=rng.random(x[0]))


_AUGMENT = [
    Op("warp_images", "augment", _WARPS, _warp_inputs, _PIXELS, flops=_elements("x", 12)),
    Op("color_images", "augment", _IMAGES, _color_inputs, _PIXELS, flops=_elements("x", 10)),
    Op("noise_images", "augment", _IMAGES, _noise_inputs, _PIXELS, flops=_elements("x", 40)),
    Op("erase_boxes", "augment", _IMAGES, _erase_inputs, _MOVES, in_place=("x",)),
    Op("mix_images", "augment", _IMAGES, _mix_inputs, _PIXELS, flops=_elements("x", 3)),
]

OPS = {
    op.name: op for op in (*_CONV, *_AFFINE, *_POOL, *_ACTIVATION, *_NORM, *_DROPOUT, *_LOSSES, *_OPTIM, *_AUGMENT)
}  # fmt: skip
