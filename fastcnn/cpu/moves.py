"""Moving numbers faster than compiled indexing does: a straight copy, an 8 x 8 transpose, and prefetching.

Indices are trusted: nothing is checked or wrapped around.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

BLOCK = 8  # rows and columns that `transpose_block` takes
CACHE_LINE = 64  # bytes


def pointer_to(context, builder, array_type, array, index):
    """In an intrinsic: the address of element `index` of a C-contiguous array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def _copy_run(typingctx, target, t, source, s, count):
    """target[t : t + count] = source[s : s + count], for arrays of one axis, or C-contiguous ones taken as flat."""

    def codegen(context, builder, signature, args):
        size, itemsize = args[4].type, signature.args[0].dtype.bitwidth // 8
        target, source = (pointer_to(context, builder, signature.args[i], args[i], args[i + 1]) for i in (0, 2))
        raw, flag = ir.IntType(8).as_pointer(), ir.IntType(1)
        copy = builder.module.declare_intrinsic("llvm.memcpy", [raw, raw, size])
        length = builder.mul(args[4], ir.Constant(size, itemsize))
        builder.call(copy, [builder.bitcast(target, raw), builder.bitcast(source, raw), length, ir.Constant(flag, 0)])
        return context.get_dummy_value()

    if not (_flat(target) and _flat(source) and target.dtype == source.dtype):
        return None
    return types.void(target, types.intp, source, types.intp, types.intp), codegen


def transposed(builder, rows):
    """In an intrinsic: the columns of BLOCK vectors of BLOCK elements."""

    def shuffle(a, b, order):
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), order))

    # Each round exchanges the off-diagonal quarters of blocks of 2, 4 and 8 rows.
    for width in (1, 2, 4):
        mixed = list(rows)
        for i in range(BLOCK):
            if i & width == 0:
                low = [j if j & width == 0 else BLOCK + j - width for j in range(BLOCK)]
                high = [j + width if j & width == 0 else BLOCK + j for j in range(BLOCK)]
                mixed[i] = shuffle(rows[i], rows[i + width], low)
                mixed[i + width] = shuffle(rows[i], rows[i + width], high)
        rows = mixed
    return rows


@intrinsic
def _transpose_block(typingctx, source, s, source_step, target, t, target_step):
    """target[t + j target_step + i] = source[s + i source_step + j] for i, j < BLOCK."""

    def codegen(context, builder, signature, args):
        dtype = signature.args[0].dtype
        vector = ir.VectorType(context.get_data_type(dtype), BLOCK)
        align, size = dtype.bitwidth // 8, args[1].type

        def row(array, start, step, i):
            offset = builder.add(args[start], builder.mul(args[step], ir.Constant(size, i)))
            pointer = pointer_to(context, builder, signature.args[array], args[array], offset)
            return builder.bitcast(pointer, vector.as_pointer())

        rows = transposed(builder, [builder.load(row(0, 1, 2, i), align=align) for i in range(BLOCK)])
        for j in range(BLOCK):
            builder.store(rows[j], row(3, 4, 5, j), align=align)
        return context.get_dummy_value()

    if not (_flat(target) and _flat(source) and target.dtype == source.dtype):
        return None
    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), codegen


def _flat(array):
    return isinstance(array, types.Array) and array.layout == "C"


def _copy_run_python(target, t, source, s, count):
    target.reshape(-1)[t : t + count] = source.reshape(-1)[s : s + count]


def _transpose_block_python(source, s, source_step, target, t, target_step):
    source, target = source.reshape(-1), target.reshape(-1)
    for i in range(BLOCK):
        column = target[t + i : t + i + (BLOCK - 1) * target_step + 1 : target_step]
        column[:] = source[s + i * source_step :][:BLOCK]


def _make_prefetch(writing):
    """An intrinsic that starts to load source[s : s + count] into cache, `writing` or not.

    Only a hint: any position is allowed, none is an error.
    """

    @intrinsic
    def prefetch(typingctx, source, s, count):
        def codegen(context, builder, signature, args):
            flag, raw = ir.IntType(32), ir.IntType(8).as_pointer()
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), [raw, flag, flag, flag]), "llvm.prefetch.p0i8"
            )
            size, itemsize = args[1].type, signature.args[0].dtype.bitwidth // 8
            first = builder.bitcast(pointer_to(context, builder, signature.args[0], args[0], args[1]), raw)
            length = builder.mul(args[2], ir.Constant(size, itemsize))
            line = ir.Constant(size, CACHE_LINE)
            with cgutils.for_range_slice(builder, ir.Constant(size, 0), length, line, inc=True) as (offset, _):
                purpose, near, data = ir.Constant(flag, int(writing)), ir.Constant(flag, 2), ir.Constant(flag, 1)
                builder.call(function, [builder.gep(first, [offset]), purpose, near, data])
            return context.get_dummy_value()

        if not _flat(source):
            return None
        return types.void(source, types.intp, types.intp), codegen

    def prefetch_python(source, s, count):
        pass

    return prefetch_python if config.DISABLE_JIT else prefetch


# With JIT disabled kernels call the stand-ins.
prefetch, prefetch_to_write = _make_prefetch(writing=False), _make_prefetch(writing=True)
copy_run = _copy_run_python if config.DISABLE_JIT else _copy_run
transpose_block = _transpose_block_python if config.DISABLE_JIT else _transpose_block
