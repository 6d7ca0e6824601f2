"""Four floats or two doubles at a time: loads and stores of 16 bytes, the widest that a thread has.

numba's own vector types are put together from single loads; these are one instruction (LDG.E.128, STG.E.128). The
elements stand in a small local array, ``cuda.local.array(LANES, x.dtype)``, which the compiler keeps in registers.
"""

from llvmlite import ir
from numba import types

from fastcnn.cuda.jit import SIMULATED, device

LANES = 4  # of the narrowest dtype


def lanes_of(dtype):
    """Elements of `dtype` in a vector."""
    return 16 // dtype.itemsize


if SIMULATED:

    def lanes(x):
        """Elements of x in a vector."""
        return lanes_of(x.dtype)

    def load_vector(x, i, into):
        """into[k] = x[i + k] for the elements of a vector; x is flat and x[i] stands at a multiple of 16 bytes."""
        for k in range(lanes(x)):
            into[k] = x[i + k]

    def store_vector(values, x, i):
        """x[i + k] = values[k] for the elements of a vector."""
        for k in range(lanes(x)):
            x[i + k] = values[k]

else:
    from numba.cuda.extending import intrinsic

    @intrinsic
    def lanes(typingctx, x):
        """Elements of x in a vector."""

        def codegen(context, builder, signature, args):
            return context.get_constant(types.int64, 128 // signature.args[0].dtype.bitwidth)

        return types.int64(x), codegen

    def _place(context, builder, array_type, array, index):
        """The element type, and the address of a vector in a flat array."""
        vector = ir.VectorType(context.get_data_type(array_type.dtype), 128 // array_type.dtype.bitwidth)
        data = context.make_array(array_type)(context, builder, array).data
        return vector, builder.bitcast(builder.gep(data, [index]), vector.as_pointer(data.type.addrspace))

    def _elements(context, builder, array_type, array):
        """The addresses of the elements of a local array that make a vector."""
        data = context.make_array(array_type)(context, builder, array).data
        size = context.get_value_type(types.intp)
        return [builder.gep(data, [ir.Constant(size, k)]) for k in range(128 // array_type.dtype.bitwidth)]

    @intrinsic
    def load_vector(typingctx, x, i, into):
        """into[k] = x[i + k] for the elements of a vector; x is flat and x[i] stands at a multiple of 16 bytes."""

        def codegen(context, builder, signature, args):
            _, place = _place(context, builder, signature.args[0], args[0], args[1])
            value = builder.load(place, align=16)
            for k, element in enumerate(_elements(context, builder, signature.args[2], args[2])):
                builder.store(builder.extract_element(value, ir.Constant(ir.IntType(32), k)), element)
            return context.get_dummy_value()

        return types.void(x, types.int64, into), codegen

    @intrinsic
    def store_vector(typingctx, values, x, i):
        """x[i + k] = values[k] for the elements of a vector."""

        def codegen(context, builder, signature, args):
            vector, place = _place(context, builder, signature.args[1], args[1], args[2])
            value = ir.Constant(vector, ir.Undefined)
            for k, element in enumerate(_elements(context, builder, signature.args[0], args[0])):
                value = builder.insert_element(value, builder.load(element), ir.Constant(ir.IntType(32), k))
            builder.store(value, place, align=16)
            return context.get_dummy_value()

        return types.void(values, x, types.int64), codegen


@device
def load_part(x, i, whole, into):
    """`load_vector` of what the flat x has of a vector; one by one if not `whole`, where x may stand anywhere."""
    if whole and i + lanes(x) <= x.size:
        load_vector(x, i, into)
    else:
        for k in range(lanes(x)):
            if i + k < x.size:
                into[k] = x[i + k]


@device
def store_part(values, x, i, first, last, whole):
    """x[i + k] = values[k] for those of a vector's elements that stand at first ... last - 1; see `load_part`."""
    if whole and i >= first and i + lanes(x) <= last:
        store_vector(values, x, i)
    else:
        for k in range(lanes(x)):
            if i + k >= first and i + k < last:
                x[i + k] = values[k]
