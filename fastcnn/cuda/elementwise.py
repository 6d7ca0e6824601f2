"""Elementwise kernels: a vector of 16 bytes per thread, and one element per thread for what is left."""

from numba import cuda

from fastcnn.cuda.arrays import aligned, flat, output
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.vectors import LANES, lanes, lanes_of, load_vector, store_vector


def split(*arrays):
    """(vectors, threads) of a kernel over flat arrays of one size: whole vectors where all arrays are aligned."""
    first = arrays[0]
    vectors = first.size // lanes_of(first.dtype) if aligned(*arrays) else 0
    return vectors, vectors + first.size - vectors * lanes_of(first.dtype)


def run(function, arrays, numbers=(), out=None):
    """Call a kernel of `unary` or `binary` on arrays of one shape; numbers take their dtype."""
    first = arrays[0]
    out = output(out, first.shape, first.dtype)
    if first.size:
        inputs, target = [flat(a) for a in arrays], flat(out)
        vectors, threads = split(*inputs, target)
        function.for_each(threads, *inputs, tuple(map(first.dtype.type, numbers)), vectors, target)
    return out


def unary(formula, numbers=0):
    """The kernel out = formula(x, *numbers) for each element; the formula is a function of `device`."""

    def body(x, numbers, vectors, out):
        i = cuda.grid(1)
        if i < vectors:
            values = cuda.local.array(LANES, x.dtype)
            load_vector(x, i * lanes(x), values)
            for k in range(lanes(x)):
                values[k] = formula(values[k], *numbers)
            store_vector(values, out, i * lanes(x))
        else:
            i += vectors * (lanes(x) - 1)
            if i < out.size:
                out[i] = formula(x[i], *numbers)

    return _make(body, formula, f"T[::1], UniTuple(T, {numbers}), int64, T[::1]")


def binary(formula, numbers=0):
    """The kernel out = formula(a, b, *numbers) for each element."""

    def body(a, b, numbers, vectors, out):
        i = cuda.grid(1)
        if i < vectors:
            values, others = cuda.local.array(LANES, a.dtype), cuda.local.array(LANES, a.dtype)
            load_vector(a, i * lanes(a), values)
            load_vector(b, i * lanes(a), others)
            for k in range(lanes(a)):
                values[k] = formula(values[k], others[k], *numbers)
            store_vector(values, out, i * lanes(a))
        else:
            i += vectors * (lanes(a) - 1)
            if i < out.size:
                out[i] = formula(a[i], b[i], *numbers)

    return _make(body, formula, f"T[::1], T[::1], UniTuple(T, {numbers}), int64, T[::1]")


def gradient(derivative, numbers=0):
    """The kernel dx = dout derivative(saved, *numbers) for each element."""
    times = device(derivative)

    def formula(dout, saved, *numbers):
        return dout * times(saved, *numbers)

    formula.__name__, formula.__module__ = derivative.__name__, derivative.__module__
    return binary(device(formula), numbers)


def _make(body, formula, signature):
    function = getattr(formula, "py_func", getattr(formula, "fn", formula))
    return kernel(signature, opcodes=("LDG.E.128", "STG.E.128"), name=f"elementwise.{function.__name__}")(body)
