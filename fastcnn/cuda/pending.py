"""Numbers that stay on the GPU until somebody reads them: to wait for one is to wait for all kernels before it."""

import numbers
import operator

import numpy as np
from numba.core import types

from fastcnn.cuda.arrays import to_host
from fastcnn.cuda.jit import SIMULATED, current_stream, use_stream


class Pending:
    """A number that kernels compute, or have computed; to read it is to wait for them.

    It is read by `float`, formatting, comparison, arithmetic and NumPy, once: it is remembered. Kernels take it from
    where it is (`value_of`), and wait for nobody.

    Parameters
    ----------
    array : one-dimensional float64 device array, written on the current stream; its first element is the number
    check : function of the other elements, as floats, called when the number is read; it may raise
    """

    def __init__(self, array, check=None):
        self._array, self._check, self._stream, self._number = array, check, current_stream(), None

    @property
    def argument(self):
        """What a kernel takes for it: the array."""
        return self._array

    def __float__(self):
        if self._number is None:
            with use_stream(self._stream):
                number, *others = to_host(self._array).tolist()
            if self._check:
                self._check(*others)
            self._number = number
        return self._number

    def __array__(self, dtype=None, copy=None):
        return np.asarray(float(self), dtype)

    def __repr__(self):
        return repr(float(self))

    def __format__(self, specification):
        return format(float(self), specification)

    def __hash__(self):
        return hash(float(self))


def _reading(operation):
    """The method that reads the number, and the other operand where that is one, too, and computes with floats."""

    def method(self, *others):
        return operation(float(self), *(float(other) if isinstance(other, Pending) else other for other in others))

    return method


def _reflected(operation):
    return lambda a, b: operation(b, a)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _operation = getattr(operator, _name)
    setattr(Pending, f"__{_name}__", _reading(_operation))
    setattr(Pending, f"__r{_name}__", _reading(_reflected(_operation)))
for _name in ("lt", "le", "eq", "ne", "gt", "ge", "neg", "pos", "abs"):
    setattr(Pending, f"__{_name}__", _reading(getattr(operator, _name)))
for _name in ("bool", "int", "round", "trunc", "floor", "ceil"):
    setattr(Pending, f"__{_name}__", _reading(getattr(float, f"__{_name}__")))
numbers.Real.register(Pending)


def argument(number):
    """A number, or one that may still be on the device, as an argument of a kernel that calls `value_of`."""
    return number.argument if isinstance(number, Pending) else float(number)


if SIMULATED:

    def value_of(number):
        """The number itself, or the first element of an array."""
        return number[0] if isinstance(number, np.ndarray) else number

else:
    from numba.cuda.extending import intrinsic

    @intrinsic
    def value_of(typingctx, number):
        """The number itself, or the first element of an array."""

        def codegen(context, builder, signature, args):
            if not isinstance(number, types.Array):
                return args[0]
            return builder.load(context.make_array(number)(context, builder, args[0]).data)

        return (number.dtype if isinstance(number, types.Array) else number)(number), codegen
