"""Eight numbers at once as a value in kernels: an octet, which the compiler keeps in a vector register.

For loops that the compiler does not turn into vector code by itself. Under NUMBA_DISABLE_JIT an octet is an array of
eight elements. Arrays are C-contiguous and taken as flat; indices are trusted.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, models, register_model

from fastcnn.cpu.moves import pointer_to, transposed

OCTET = 8


class OctetType(types.Type):
    """Eight numbers of one type, or eight truth values."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(f"Octet({dtype})")


@register_model(OctetType)
class _OctetModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        bits = {types.boolean: ir.IntType(1), types.int32: ir.IntType(32)}
        scalar = bits.get(fe_type.dtype) or dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(scalar, OCTET))


def _place(context, builder, signature, args):
    """The address of the octet at args[1] of the array args[0], and its alignment."""
    pointer = pointer_to(context, builder, signature.args[0], args[0], args[1])
    kind = context.get_value_type(OctetType(signature.args[0].dtype))
    return builder.bitcast(pointer, kind.as_pointer()), signature.args[0].dtype.bitwidth // 8


def _in_all_lanes(builder, scalar):
    kind = ir.VectorType(scalar.type, OCTET)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(ir.IntType(32), OCTET), None))


@intrinsic
def _load(typingctx, array, i):
    """array[i : i + 8]."""

    def codegen(context, builder, signature, args):
        pointer, align = _place(context, builder, signature, args)
        return builder.load(pointer, align=align)

    return OctetType(array.dtype)(array, types.intp), codegen


@intrinsic
def _store(typingctx, array, i, octet):
    """array[i : i + 8] = octet."""

    def codegen(context, builder, signature, args):
        pointer, align = _place(context, builder, signature, args)
        builder.store(args[2], pointer, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, octet), codegen


@intrinsic
def _spread(typingctx, value):
    """A number eight times; a whole number as an int32."""
    whole = isinstance(value, types.Integer)

    def codegen(context, builder, signature, args):
        return _in_all_lanes(builder, builder.trunc(args[0], ir.IntType(32)) if whole else args[0])

    return (OctetType(types.int32)(types.intp) if whole else OctetType(value)(value)), codegen


@intrinsic
def _plus(typingctx, a, b):
    """a + b."""

    def codegen(context, builder, signature, args):
        return builder.fadd(*args)

    return a(a, b), codegen


@intrinsic
def _times(typingctx, a, factor):
    """a times a number of its type."""

    def codegen(context, builder, signature, args):
        return builder.fmul(args[0], _in_all_lanes(builder, args[1]))

    return a(a, a.dtype), codegen


@intrinsic
def _replaces_each(typingctx, value, best):
    """`common.activation.replaces` for each pair."""

    def codegen(context, builder, signature, args):
        value, best = args
        return builder.and_(builder.fcmp_unordered(">", value, best), builder.fcmp_ordered("ord", best, best))

    return OctetType(types.boolean)(value, best), codegen


@intrinsic
def _equals(typingctx, octet, value):
    """Where an octet of whole numbers is `value`."""

    def codegen(context, builder, signature, args):
        return builder.icmp_signed("==", args[0], _in_all_lanes(builder, builder.trunc(args[1], ir.IntType(32))))

    return OctetType(types.boolean)(octet, types.intp), codegen


@intrinsic
def _choose(typingctx, condition, a, b):
    """a where the condition holds, else b."""

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return a(condition, a, b), codegen


@intrinsic
def _only(typingctx, condition, a):
    """a where the condition holds, else 0."""

    def codegen(context, builder, signature, args):
        return builder.select(args[0], args[1], ir.Constant(args[1].type, None))

    return a(condition, a), codegen


@intrinsic
def _gather_part(typingctx, source, s, step, planes, pixels, octets, i):
    """octets[i + 8 p + lane] = source[s + lane step + p] for lane < planes and p < pixels, both at most 8.

    Other elements up to octets[i + 64] become 0.
    """

    def codegen(context, builder, signature, args):
        source, s, step, planes, pixels, octets, i = args
        kind, align, mask, size = _part(context, builder, signature.args[0].dtype, pixels)
        rows = []
        for lane in range(OCTET):
            offset = builder.add(s, builder.mul(step, size(lane)))
            place = builder.bitcast(pointer_to(context, builder, signature.args[0], source, offset), kind.as_pointer())
            arguments = [place, align, mask(lane, planes), ir.Constant(kind, None)]
            rows.append(_masked(builder, "load", arguments, kind))
        for p, octet in enumerate(transposed(builder, rows)):
            place = pointer_to(context, builder, signature.args[5], octets, builder.add(i, size(p * OCTET)))
            builder.store(octet, builder.bitcast(place, kind.as_pointer()), align=align.constant)
        return context.get_dummy_value()

    return types.void(source, *[types.intp] * 4, octets, types.intp), codegen


@intrinsic
def _scatter_part(typingctx, octets, i, target, t, step, planes, pixels):
    """target[t + lane step + p] = octets[i + 8 p + lane] for lane < planes and p < pixels; reads octets[i : i + 64]."""

    def codegen(context, builder, signature, args):
        octets, i, target, t, step, planes, pixels = args
        kind, align, mask, size = _part(context, builder, signature.args[0].dtype, pixels)
        rows = []
        for p in range(OCTET):
            place = pointer_to(context, builder, signature.args[0], octets, builder.add(i, size(p * OCTET)))
            rows.append(builder.load(builder.bitcast(place, kind.as_pointer()), align=align.constant))
        for lane, row in enumerate(transposed(builder, rows)):
            offset = builder.add(t, builder.mul(step, size(lane)))
            place = builder.bitcast(pointer_to(context, builder, signature.args[2], target, offset), kind.as_pointer())
            _masked(builder, "store", [row, place, align, mask(lane, planes)], ir.VoidType())
        return context.get_dummy_value()

    return types.void(octets, types.intp, target, *[types.intp] * 4), codegen


def _part(context, builder, dtype, pixels):
    """What both need: the type of an octet, its alignment, a function that makes masks, and one for constants."""
    kind, index = context.get_value_type(OctetType(dtype)), context.get_value_type(types.intp)

    def size(value):
        return ir.Constant(index, value)

    counting = ir.Constant(ir.VectorType(index, OCTET), list(range(OCTET)))
    inside = builder.icmp_signed("<", counting, _in_all_lanes(builder, pixels))

    def mask(lane, planes):
        """The pixels of a plane that exist."""
        nothing = ir.Constant(inside.type, None)
        return builder.select(builder.icmp_signed("<", size(lane), planes), inside, nothing)

    return kind, ir.Constant(ir.IntType(32), dtype.bitwidth // 8), mask, size


def _masked(builder, what, arguments, result):
    """A call of llvm.masked.load or llvm.masked.store: memory outside the mask is not touched."""
    kind = result if what == "load" else arguments[0].type
    name = f"v{OCTET}{'f32' if kind.element == ir.FloatType() else 'f64'}"
    signature = ir.FunctionType(result, [a.type for a in arguments])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.masked.{what}.{name}.p0{name}")
    return builder.call(function, arguments)


def _load_python(array, i):
    return array.reshape(-1)[i : i + OCTET].copy()


def _store_python(array, i, octet):
    array.reshape(-1)[i : i + OCTET] = octet


def _spread_python(value):
    return np.full(OCTET, value, np.int32 if isinstance(value, int) else value.dtype)


def _plus_python(a, b):
    return a + b


def _times_python(a, factor):
    return a * factor


def _replaces_each_python(value, best):
    return (value > best) | ((value != value) & (best == best))


def _equals_python(octet, value):
    return octet == value


def _choose_python(condition, a, b):
    return np.where(condition, a, b)


def _only_python(condition, a):
    return np.where(condition, a, a.dtype.type(0))


def _gather_part_python(source, s, step, planes, pixels, octets, i):
    block = np.zeros((OCTET, OCTET), source.dtype)
    for lane in range(planes):
        block[: min(pixels, OCTET), lane] = source.reshape(-1)[s + lane * step :][: min(pixels, OCTET)]
    octets[i : i + OCTET * OCTET] = block.reshape(-1)


def _scatter_part_python(octets, i, target, t, step, planes, pixels):
    block = octets[i : i + OCTET * OCTET].reshape(OCTET, OCTET)[:pixels]
    for lane in range(planes):
        target.reshape(-1)[t + lane * step :][: len(block)] = block[:, lane]


# With JIT disabled kernels call the stand-ins.
load = _load_python if config.DISABLE_JIT else _load
store = _store_python if config.DISABLE_JIT else _store
spread = _spread_python if config.DISABLE_JIT else _spread
plus = _plus_python if config.DISABLE_JIT else _plus
times = _times_python if config.DISABLE_JIT else _times
replaces_each = _replaces_each_python if config.DISABLE_JIT else _replaces_each
equals = _equals_python if config.DISABLE_JIT else _equals
choose = _choose_python if config.DISABLE_JIT else _choose
only = _only_python if config.DISABLE_JIT else _only
gather_part = _gather_part_python if config.DISABLE_JIT else _gather_part
scatter_part = _scatter_part_python if config.DISABLE_JIT else _scatter_part
