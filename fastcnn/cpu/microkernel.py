"""The innermost loop of every matrix product: a block of the result held in vector registers.

`multiply_tile` computes C += A B for a tile C of ROWS x `columns(dtype)` elements, from packed panels:
``a[p, i]`` (ROWS numbers side by side for each p) and ``b[p, j]``. It is emitted as LLVM vector code, because a loop
over a local accumulator array does not stay in registers. Per step p: one vector load for each of VECTORS vectors of b,
one broadcast for each row of a, and ROWS x VECTORS fused multiply-adds. Narrower tiles, of fewer vectors, are for the
last columns of a matrix.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from fastcnn.cpu.moves import pointer_to


def _block_of_host():
    """(bytes per vector, rows, vectors per row) such that accumulators and operands fit the CPU's vector registers."""
    features = (
        get_host_cpu_features() if config.CPU_FEATURES is None else config.CPU_FEATURES
    )  # as numba's code generator
    have = set(features.split(","))
    if "+avx512f" in have:
        return 64, 8, 3  # 24 accumulators + 3 + 1 of 32 registers
    if "+avx2" in have and "+fma" in have:
        return 32, 4, 3  # 12 accumulators + 3 + 1 of 16 registers
    return 16, 4, 3  # SSE2 and NEON alike


VECTOR_BYTES, ROWS, VECTORS = _block_of_host()


def lanes(dtype):
    """Elements of `dtype` in a vector."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def columns(dtype):
    """Width of a tile, and of a packed panel of b, in elements of `dtype`."""
    return VECTORS * lanes(dtype)


@intrinsic
def _tile_columns(typingctx, array):
    """`columns` of an array's dtype, as a constant of the compiled code."""

    def codegen(context, builder, signature, args):
        width = VECTORS * VECTOR_BYTES * 8 // signature.args[0].dtype.bitwidth
        return context.get_constant(types.intp, width)

    return types.intp(array), codegen


@intrinsic
def _tile_lanes(typingctx, array):
    """`lanes` of an array's dtype, as a constant of the compiled code."""

    def codegen(context, builder, signature, args):
        return context.get_constant(types.intp, VECTOR_BYTES * 8 // signature.args[0].dtype.bitwidth)

    return types.intp(array), codegen


def _emit_tile(context, builder, signature, args, vectors, fresh, c_step=None):
    """The code of the two functions below, which share their first seven arguments.

    `c_step` is the distance of the tile's rows, by default their width.
    """
    k, scalar = args[0], context.get_data_type(signature.args[1].dtype)
    lanes = VECTOR_BYTES * 8 // signature.args[1].dtype.bitwidth
    vector, size = ir.VectorType(scalar, lanes), k.type
    itemsize = signature.args[1].dtype.bitwidth // 8
    muladd = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(vector, [vector] * 3),
        f"llvm.fmuladd.v{lanes}f{itemsize * 8}",  # one instruction where the CPU has it, two where it has not
    )

    def start(position):
        return pointer_to(context, builder, signature.args[position], args[position], args[position + 1])

    def vector_at(pointer, offset):
        return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())

    def constant(value):
        return ir.Constant(size, value)

    def broadcast(value):
        undefined = ir.Constant(vector, ir.Undefined)
        first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))

    def multiply(width):
        """The loop for tiles of `width` vectors."""
        before = builder.block
        head, body, done = (builder.append_basic_block(f"tile.{name}") for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        p = builder.phi(size)
        p.add_incoming(constant(0), before)
        sums = [builder.phi(vector) for _ in range(ROWS * width)]
        for phi in sums:
            phi.add_incoming(ir.Constant(vector, None), before)
        builder.cbranch(builder.icmp_signed("<", p, k), body, done)

        builder.position_at_end(body)
        b_row = builder.gep(b, [builder.mul(p, constant(width * lanes))])
        a_row = builder.gep(a, [builder.mul(p, constant(ROWS))])
        b_vectors = [builder.load(vector_at(b_row, constant(v * lanes)), align=itemsize) for v in range(width)]
        following = []
        for i in range(ROWS):
            a_i = broadcast(builder.load(builder.gep(a_row, [constant(i)])))
            for v in range(width):
                following.append(builder.call(muladd, [a_i, b_vectors[v], sums[i * width + v]]))
        p.add_incoming(builder.add(p, constant(1)), body)
        for phi, value in zip(sums, following):
            phi.add_incoming(value, body)
        builder.branch(head)

        builder.position_at_end(done)
        for i, phi in enumerate(sums):
            # Added at the end, not accumulated upon: a long sum in short blocks has the smaller error.
            step = constant(width * lanes) if c_step is None else c_step
            place = builder.add(builder.mul(step, constant(i // width)), constant(i % width * lanes))
            pointer = vector_at(c, place)
            old = builder.select(fresh, ir.Constant(vector, None), builder.load(pointer, align=itemsize))
            builder.store(builder.fadd(old, phi), pointer, align=itemsize)

    a, b, c = start(1), start(3), start(5)
    end = builder.append_basic_block("tile.end")
    choice = builder.switch(vectors, end)
    for width in range(1, VECTORS + 1):
        block = builder.append_basic_block(f"tile.{width}")
        choice.add_case(constant(width), block)
        builder.position_at_end(block)
        multiply(width)
        builder.branch(end)
    builder.position_at_end(end)
    return context.get_dummy_value()


def _are_panels(a, b, c):
    """Whether these types are those of arrays that tiles can be computed from, and in."""
    return all(isinstance(t, types.Array) and t.ndim == 1 and t.layout == "C" and t.dtype == a.dtype for t in (a, b, c))


@intrinsic
def _multiply_tile(typingctx, k, a, a_start, b, b_start, c, c_start, vectors, fresh):
    """c[c_start:] += a[a_start:] b[b_start:] for one tile; the arrays are one-dimensional and C-contiguous.

    The tile, and the panel of b, are `vectors` (1 to VECTORS) vectors wide; with `fresh`, c is overwritten.
    """

    def codegen(context, builder, signature, args):
        return _emit_tile(context, builder, signature, args, args[7], args[8])

    if not _are_panels(a, b, c):
        return None
    index = types.intp
    return types.void(index, a, index, b, index, c, index, index, types.boolean), codegen


@intrinsic
def _multiply_rows(typingctx, k, a, a_start, b, b_start, c, c_start, c_step, vectors, fresh):
    """`multiply_tile` for a tile whose rows stand `c_step` apart: a part of a wider block."""

    def codegen(context, builder, signature, args):
        return _emit_tile(context, builder, signature, args, args[8], args[9], args[7])

    if not _are_panels(a, b, c):
        return None
    index = types.intp
    return types.void(index, a, index, b, index, c, index, index, index, types.boolean), codegen


def _tile_columns_python(array):
    return columns(array.dtype)


def _tile_lanes_python(array):
    return lanes(array.dtype)


def _multiply_tile_python(k, a, a_start, b, b_start, c, c_start, vectors, fresh):
    width = vectors * lanes(c.dtype)
    a_panel = a[a_start : a_start + k * ROWS].reshape(k, ROWS)
    b_panel = b[b_start : b_start + k * width].reshape(k, width)
    tile = c[c_start : c_start + ROWS * width]
    tile[:] = (a_panel.T @ b_panel).reshape(-1) + (0 if fresh else tile)


def _multiply_rows_python(k, a, a_start, b, b_start, c, c_start, c_step, vectors, fresh):
    width = vectors * lanes(c.dtype)
    tile = np.zeros(ROWS * width, c.dtype)
    _multiply_tile_python(k, a, a_start, b, b_start, tile, 0, vectors, True)
    for i in range(ROWS):
        row = c[c_start + i * c_step :][:width]
        row[:] = tile[i * width : (i + 1) * width] + (0 if fresh else row)


# An intrinsic has no Python body; with JIT disabled kernels call the stand-ins.
tile_lanes = _tile_lanes_python if config.DISABLE_JIT else _tile_lanes
tile_columns = _tile_columns_python if config.DISABLE_JIT else _tile_columns
multiply_rows = _multiply_rows_python if config.DISABLE_JIT else _multiply_rows
multiply_tile = _multiply_tile_python if config.DISABLE_JIT else _multiply_tile
