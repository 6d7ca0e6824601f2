"""The other innermost loop: dot products of rows that lie along memory, for products A B^T with a long inner axis.

`dot_tile` needs no packing in columns: the accumulators are vectors of partial sums, added up at the end. That costs
some 100 cycles, so rows should be long.
"""

from numba import types
from numba.extending import intrinsic

from fastcnn.cpu.microkernel import VECTOR_BYTES, lanes
from fastcnn.cpu.vectors import Vectors, either, pointers, vector_arrays

# Rows of A and of B in a tile: accumulators, B's vectors and one of A fit the vector registers.
A_ROWS, B_ROWS = (4, 6) if VECTOR_BYTES == 64 else (3, 4)


@intrinsic
def _dot_tile(typingctx, count, a, a_start, a_step, b, b_start, b_step, c, c_start):
    """c[c_start + i B_ROWS + j] += sum_q a[a_start + i a_step + q] b[b_start + j b_step + q], i < A_ROWS, j < B_ROWS.

    q goes over `count` whole vectors. The tile in c is filled up to whole vectors, with any numbers.
    """

    def codegen(context, builder, signature, args):
        emit = Vectors(context, builder, signature.args[1].dtype)
        a, b, c = pointers(context, builder, signature, args, 1, 4, 7)
        count, a_start, a_step, b_start, b_step, c_start = (args[i] for i in (0, 2, 3, 5, 6, 8))
        zero = emit.splat(0)

        def rows(start, step, number):
            return [builder.add(start, builder.mul(step, emit.index(i))) for i in range(number)]

        a_rows, b_rows = rows(a_start, a_step, A_ROWS), rows(b_start, b_step, B_ROWS)
        before = builder.block
        head, body, done = (builder.append_basic_block(f"dots.{name}") for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        v = builder.phi(emit.size)
        v.add_incoming(emit.index(0), before)
        sums = [builder.phi(emit.type) for _ in range(A_ROWS * B_ROWS)]
        for phi in sums:
            phi.add_incoming(zero, before)
        builder.cbranch(builder.icmp_signed("<", v, count), body, done)

        builder.position_at_end(body)
        q = builder.mul(v, emit.index(emit.lanes))
        b_vectors = [emit.load(b, builder.add(row, q)) for row in b_rows]
        following = []
        for row in a_rows:
            a_vector = emit.load(a, builder.add(row, q))
            following += [emit.muladd(a_vector, b_j, sums[len(following) + j]) for j, b_j in enumerate(b_vectors)]
        v.add_incoming(builder.add(v, emit.index(1)), body)
        for phi, value in zip(sums, following):
            phi.add_incoming(value, body)
        builder.branch(head)

        builder.position_at_end(done)
        for k, total in enumerate(emit.totals(sums)):
            place = builder.add(c_start, emit.index(k * emit.lanes))
            emit.store(builder.fadd(emit.load(c, place), total), c, place)
        return context.get_dummy_value()

    if not vector_arrays(a, b, c) or not a.dtype == b.dtype == c.dtype:
        return None
    index = types.intp
    return types.void(index, a, index, index, b, index, index, c, index), codegen


def _dot_tile_python(count, a, a_start, a_step, b, b_start, b_step, c, c_start):
    size = count * lanes(a.dtype)
    for i in range(A_ROWS):
        for j in range(B_ROWS):
            c[c_start + i * B_ROWS + j] += a[a_start + i * a_step :][:size] @ b[b_start + j * b_step :][:size]


dot_tile = either(_dot_tile, _dot_tile_python)
