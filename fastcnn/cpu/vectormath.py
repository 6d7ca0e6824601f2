"""Exponentials and their kin as straight code without branches or calls, so that loops over them become vector code.

The compiler calls libm once per element. Here a function is a reduction of its argument, a polynomial and a
multiplication by a power of two, made of instructions that exist for vectors of any width. All take and give one
float32 or float64; a NaN gives a NaN. Errors in units in the last place, by test: exp and expm1 2, the others 4.

Source of the reduction: Cody and Waite, "Software Manual for the Elementary Functions" (1980), chapters 6 and 8.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from fastcnn.cpu.jit import jit

_FORMATS = {32: (23, 127), 64: (52, 1023)}  # bits of the type: bits of the mantissa, bias of the exponent


def _polynomial(single, double):
    """A function of x: the polynomial with these coefficients, lowest power first, for float32 and for float64."""

    @intrinsic
    def polynomial(typingctx, x):
        def codegen(context, builder, signature, args):
            kind, bits = args[0].type, signature.args[0].bitwidth
            last, *rest = [ir.Constant(kind, float(c)) for c in reversed(single if bits == 32 else double)]
            for coefficient in rest:
                last = _muladd(builder, bits, last, args[0], coefficient)
            return last

        return x(x), codegen

    def polynomial_python(x):
        coefficients = [type(x)(c) for c in (single if x.itemsize == 4 else double)]
        total = coefficients[-1]
        for coefficient in coefficients[-2::-1]:
            total = total * x + coefficient
        return total

    return polynomial_python if config.DISABLE_JIT else polynomial


def _muladd(builder, bits, a, b, c):
    name, kind = f"llvm.fmuladd.f{bits}", a.type
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, [a, b, c])


@intrinsic
def _muladd_of(typingctx, a, b, c):
    """a b + c, which fast-math neither splits nor merges with its neighbours."""

    def codegen(context, builder, signature, args):
        return _muladd(builder, signature.args[0].bitwidth, *args)

    return a(a, a, a), codegen


@intrinsic
def _nearest(typingctx, x):
    """The nearest whole number, as a float."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        name = f"llvm.rint.f{signature.args[0].bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), name), args)

    return x(x), codegen


@intrinsic
def _scale(typingctx, x, n):
    """x 2^n for a whole number n (a float), where x and the result are normal numbers."""

    def codegen(context, builder, signature, args):
        bits = signature.args[0].bitwidth
        whole = ir.IntType(bits)
        power = builder.fptosi(args[1], ir.IntType(32))  # vectors of float64 to int64 need AVX-512
        power = builder.sext(power, whole) if bits == 64 else power
        shifted = builder.shl(power, ir.Constant(whole, _FORMATS[bits][0]))
        return builder.bitcast(builder.add(builder.bitcast(args[0], whole), shifted), args[0].type)

    return x(x, x), codegen


@intrinsic
def _order_of(typingctx, x):
    """A whole number for a float, of the same size and ordered like it; compilers vectorise maxima of whole numbers."""

    def codegen(context, builder, signature, args):
        return _flip_negative(builder, builder.bitcast(args[0], ir.IntType(x.bitwidth)))

    return _whole(x)(x), codegen


@intrinsic
def _float_of_order(typingctx, order):
    """The float that `order_of` made this number from."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(_flip_negative(builder, args[0]), context.get_value_type(signature.return_type))

    return (types.float32 if order.bitwidth == 32 else types.float64)(order), codegen


def _whole(x):
    return types.int32 if x.bitwidth == 32 else types.int64


def _flip_negative(builder, bits):
    """All bits but the sign inverted where that is set."""
    sign = builder.ashr(bits, ir.Constant(bits.type, bits.type.width - 1))
    return builder.xor(bits, builder.lshr(sign, ir.Constant(bits.type, 1)))


def _muladd_of_python(a, b, c):
    return a * b + c


def _nearest_python(x):
    return type(x)(round(float(x)))


def _scale_python(x, n):
    return type(x)(math.ldexp(x, int(n)))


def _order_of_python(x):
    whole, all_but_sign = (np.int32, 2**31 - 1) if x.itemsize == 4 else (np.int64, 2**63 - 1)
    bits = x.view(whole)
    return bits if bits >= 0 else bits ^ whole(all_but_sign)


def _float_of_order_python(order):
    return _order_of_python(order).view(np.float32 if order.itemsize == 4 else np.float64)


# With JIT disabled kernels call the stand-ins.
muladd_of = _muladd_of_python if config.DISABLE_JIT else _muladd_of
order_of = _order_of_python if config.DISABLE_JIT else _order_of
float_of_order = _float_of_order_python if config.DISABLE_JIT else _float_of_order
nearest = _nearest_python if config.DISABLE_JIT else _nearest
scale = _scale_python if config.DISABLE_JIT else _scale

# Constants of each type: where e^x leaves the normal numbers; ln 2 in two parts, n times the first being exact.
_lowest = _polynomial((-87,), (-708,))
_minus_ln2_high = _polynomial((-0.693359375,), (-6.93147180369123816490e-01,))
_minus_ln2_low = _polynomial((2.12194440e-4,), (-1.90821492927058770002e-10,))
# e^r and (e^r - 1 - r) / r^2 by their series: |r| <= ln(2) / 2 makes the first term left out less than half a unit.
_exp_series = _polynomial(*([1 / math.factorial(k) for k in range(last + 1)] for last in (7, 13)))
_expm1_series = _polynomial(*([1 / math.factorial(k) for k in range(2, last + 1)] for last in (7, 13)))
# (atanh(w) / w - 1) / w^2 with w^2 <= 1/9, in powers of w^2, likewise.
_atanh_series = _polynomial(*([1 / (2 * k + 3) for k in range(last)] for last in (8, 17)))
# e^(z^2) erfc(z) / t for z >= 0 with t = 5 / (5 + 2 z), in powers of 2 t - 1: interpolates at the Chebyshev points.
_scaled_erfc = _polynomial(
    (
        0.4216127259, 0.3218607715, 0.1815658105, 0.06849979497, 0.01134267047, -0.00335325275, -0.001918944466,
        0.000165569994, 0.0002637163238, -1.080285193e-05, -2.806405167e-05,
    ),
    (
        0.42161272812228723, 0.3218607397756594, 0.18156564665922276, 0.06850045809844092, 0.011344620053543768,
        -0.003357217721730853, -0.0019275142232051635, 0.00017568331795414735, 0.00028107762359897705,
        -2.332320957295223e-05, -4.50426936008718e-05, 7.813278685890328e-06, 7.300477745122257e-06,
        -2.702803939135038e-06, -9.393354423390487e-07, 7.870007654306522e-07, 7.652875904611118e-09,
        -1.814211976254914e-07, 4.4859777528788816e-08, 2.94804494217866e-08, -1.4297276763253708e-08,
        -2.5050658726993376e-09, 1.810025166117929e-09,
    ),
)  # fmt: skip


@jit(inline=True)
def _reduced(x):
    """n and r, where x = n ln 2 + r with a whole n and |r| <= ln(2) / 2."""
    n = nearest(x * type(x)(1 / math.log(2)))
    return n, muladd_of(n, _minus_ln2_low(x), muladd_of(n, _minus_ln2_high(x), x))


@jit(inline=True)
def exp(x):
    """e^x for x <= 0; 0 where that is below the normal numbers."""
    n, r = _reduced(x if x > _lowest(x) else _lowest(x))
    y = scale(_exp_series(r), n)
    return y if x > _lowest(x) else (type(x)(0) if x == x else x)


@jit(inline=True)
def expm1(x):
    """e^x - 1 for x <= 0."""
    n, r = _reduced(x if x > type(x)(-80) else type(x)(-80))
    power = scale(type(x)(1), n)
    y = muladd_of(power, muladd_of(r * r, _expm1_series(r), r), power - type(x)(1))
    return y if x == x else x


@jit(inline=True)
def sigmoid(x):
    """1 / (1 + e^-x), from e^-|x| so that nothing overflows."""
    small = exp(-abs(x))
    return (small if x < 0 else type(x)(1)) / (type(x)(1) + small)


@jit(inline=True)
def tanh(x):
    """tanh x = -m / (m + 2) with m = e^(-2 x) - 1, for |x|."""
    m = expm1(type(x)(-2) * abs(x))
    y = -m / (m + type(x)(2))
    return -y if x < 0 else y


@jit(inline=True)
def log1p(x):
    """log(1 + x) for 0 <= x <= 1, as 2 atanh(x / (2 + x))."""
    w = x / (type(x)(2) + x)
    square = w * w
    return type(x)(2) * muladd_of(w * square, _atanh_series(square), w)


@jit(inline=True)
def normal(x):
    """The normal distribution function Phi(x) and its density phi(x).

    Phi(x) = erfc(-x / sqrt 2) / 2 is accurate on the left, too, where it is nearly 0.
    """
    distance = type(x)(40) if abs(x) > type(x)(40) else abs(x)  # beyond, the density is 0
    square = distance * distance
    rounded_off = muladd_of(distance, distance, -square)
    density = exp(type(x)(-0.5) * square)
    density = muladd_of(density, type(x)(-0.5) * rounded_off, density)
    t = type(x)(2.5) / (type(x)(2.5) + type(x)(math.sqrt(0.5)) * distance)
    tail = type(x)(0.5) * density * t * _scaled_erfc(type(x)(2) * t - type(x)(1))
    return tail if x < 0 else type(x)(1) - tail, density * type(x)(1 / math.sqrt(2 * math.pi))
