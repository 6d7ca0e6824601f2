"""Winograd's transforms as LLVM vector code: a lane is a tile, a channel or a filter.

A two-dimensional transform M d M^T is done in two steps. *Down* the image, rows are combined as they lie, so that the
lanes are neighbouring pixels (`make_rows_in`). *Across*, short stretches are loaded for each lane, transposed in
registers and combined (`make_lanes_in`). Transforms of numbers that lie lane by lane already do both steps at once
(`make_planes_in`, `make_planes_out`, `make_tiles_out`).

Arrays are one-dimensional and C-contiguous, positions are trusted; no element outside of what is described is touched,
except that `make_lanes_in` reads less than `SLACK` elements after a lane's, and `make_rows_in` stores whole vectors.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn.cpu.microkernel import ROWS, lanes
from fastcnn.cpu.vectors import Vectors, either, pointers, vector_arrays

SLACK = 8


class _Transforms(Vectors):
    """Emits products with small constant matrices."""

    def total(self, terms):
        """The sum of coefficient times vector over `terms`; those that need no multiplication go first."""
        terms = sorted((t for t in terms if t[0] != 0), key=lambda t: t[0] != 1)
        (factor, vector), *rest = terms
        sum_ = vector if factor == 1 else self.builder.fmul(self.splat(factor), vector)
        for factor, vector in rest:
            if factor == 1:
                sum_ = self.builder.fadd(sum_, vector)
            elif factor == -1:
                sum_ = self.builder.fsub(sum_, vector)
            else:
                sum_ = self.muladd(self.splat(factor), vector, sum_)
        return sum_

    def combine(self, matrix, inputs):
        """matrix @ inputs, sharing the work between points +p and -p: neighbouring columns or rows."""
        pairs = _pairs(matrix.T)
        if pairs:
            sums, differences = {}, {}
            for j in pairs:
                sums[j] = self.builder.fadd(inputs[j], inputs[j + 1])
                differences[j] = self.builder.fsub(inputs[j], inputs[j + 1])
            singles = [j for j in range(matrix.shape[1]) if j not in pairs and j - 1 not in pairs]
            return [
                self.total(
                    [(row[j], inputs[j]) for j in singles]
                    + [(row[j], (sums if row[j] == row[j + 1] else differences)[j]) for j in pairs]
                )
                for row in matrix
            ]
        outputs, pairs = [], _pairs(matrix)
        for i, row in enumerate(matrix):
            if i - 1 in pairs:
                continue
            if i not in pairs:
                outputs.append(self.total(list(zip(row, inputs))))
                continue
            same = row == matrix[i + 1]
            factor = row[~same][-1]
            sum_ = self.total(list(zip(np.where(same, row, 0), inputs)))
            difference = self.total(list(zip(np.where(same, 0, row / factor), inputs)))
            outputs.append(self.total([(1, sum_), (factor, difference)]))
            outputs.append(self.total([(1, sum_), (-factor, difference)]))
        return outputs

    def combine_both(self, matrix, inputs):
        """matrix @ inputs @ matrix^T, for columns x columns vectors in row-major order."""
        rows, columns = matrix.shape
        down = [self.combine(matrix, inputs[j::columns]) for j in range(columns)]
        return [v for i in range(rows) for v in self.combine(matrix, [down[j][i] for j in range(columns)])]

    def store_panels(self, vector, pointer, offset, panel_step):
        """Store the lanes in pieces of ROWS, `panel_step` apart: as A panels of `cpu.gemm` want them."""
        if self.lanes <= ROWS:
            self.store(vector, pointer, offset)
            return
        for i in range(0, self.lanes, ROWS):
            self.store(self.shuffle(vector, vector, range(i, i + ROWS)), pointer, offset)
            offset = self.builder.add(offset, panel_step)


def _pairs(matrix):
    """The rows i that row i + 1 repeats with some, not all, of the signs reversed."""
    found = []
    for i, (row, following) in enumerate(zip(matrix, matrix[1:])):
        same, opposite = (row == following) & (row != 0), (row == -following) & (row != 0)
        if np.all(same | opposite | ((row == 0) & (following == 0))) and same.any() and opposite.any():
            if not found or found[-1] < i - 1:
                found.append(i)
    return found


def make_rows_in(matrix):
    """A function (x, start, step, top, bottom, first, last, count, out, place, out_step) that combines rows:

    ``out[place + i out_step + c] = sum_k matrix[i, k] x[start + k step + c]`` for c < count, where what lies outside
    of the rows top <= k < bottom and the columns first <= c < last counts as zeros and is not read. Vectors are
    stored whole: up to `lanes` elements after a row are overwritten.
    """
    rows, columns = matrix.shape

    @intrinsic
    def rows_in(typingctx, x, start, step, top, bottom, first, last, count, out, place, out_step):
        def codegen(context, builder, signature, args):
            emit = _Transforms(context, builder, signature.args[0].dtype)
            source, target = pointers(context, builder, signature, args, 0, 8)
            start, step, top, bottom, first, last, count, place, out_step = (args[i] for i in (*range(1, 8), 9, 10))
            inside = [
                builder.and_(builder.icmp_signed("<=", top, k), builder.icmp_signed("<", k, bottom))
                for k in map(emit.index, range(columns))
            ]
            lanes, zero = emit.index(emit.lanes), ir.Constant(emit.scalar, 0)
            all_inside = functools.reduce(builder.and_, inside)
            first = builder.select(builder.icmp_signed(">", first, emit.index(0)), first, emit.index(0))
            last = builder.select(builder.icmp_signed("<", last, count), last, count)
            length = builder.sub(last, first)
            whole = builder.sub(length, builder.srem(length, lanes))
            whole = builder.select(all_inside, builder.add(first, whole), first)

            def move(c, load):
                inputs = []
                for k in range(columns):
                    inputs.append(load(k, builder.add(start, builder.add(builder.mul(emit.index(k), step), c))))
                for i, value in enumerate(emit.combine(matrix, inputs)):
                    emit.store(value, target, builder.add(place, builder.add(builder.mul(emit.index(i), out_step), c)))

            with cgutils.for_range_slice(builder, first, whole, lanes, inc=True) as (c, _):
                move(c, lambda k, offset: emit.load(source, offset))
            with cgutils.for_range_slice(builder, whole, last, lanes, inc=True) as (c, _):
                mask = emit.first_lanes(builder.sub(last, c))
                masks = [builder.select(row, mask, emit.no_lanes()) for row in inside]
                move(c, lambda k, offset: emit.masked_load(source, offset, masks[k]))
            last = builder.select(builder.icmp_signed(">", last, emit.index(0)), last, emit.index(0))
            for begin, end in (
                (emit.index(0), builder.select(builder.icmp_signed("<", first, count), first, count)),
                (last, count),
            ):
                with cgutils.for_range_slice(builder, begin, end, emit.index(1), inc=True) as (c, _):
                    for i in range(rows):
                        offset = builder.add(place, builder.add(builder.mul(emit.index(i), out_step), c))
                        builder.store(zero, builder.gep(target, [offset]))
            return context.get_dummy_value()

        if not vector_arrays(x, out) or x.dtype != out.dtype:
            return None
        index = types.intp
        return types.void(x, *[index] * 7, out, index, index), codegen

    def rows_in_python(x, start, step, top, bottom, first, last, count, out, place, out_step):
        inputs, first, last = np.zeros((columns, count), x.dtype), max(first, 0), min(last, count)
        for k in range(max(top, 0), min(bottom, columns) if first < last else 0):
            inputs[k, first:last] = x[start + k * step + first :][: last - first]
        for i, row in enumerate(matrix.astype(x.dtype) @ inputs):
            whole = -(-count // lanes(x.dtype)) * lanes(x.dtype)
            out[place + i * out_step :][:whole] = np.pad(row, (0, whole - count))

    return either(rows_in, rows_in_python)


def make_lanes_in(matrix, panels=False):
    """A function (source, start, step, positions, p, out, place, out_step, panel_step) that transforms across lanes.

    Lane l has the rows ``d_i = source[start + positions[p + l] + i step :]``, i < rows of the matrix, and gets
    ``out[place + (i rows + j) out_step + l] = (matrix @ d_i)[j]``; with `panels`, lane l stands in piece l // ROWS,
    `panel_step` apart.
    """
    rows, columns = matrix.shape

    @intrinsic
    def lanes_in(typingctx, source, start, step, positions, p, out, place, out_step, panel_step):
        def codegen(context, builder, signature, args):
            emit = _Transforms(context, builder, signature.args[0].dtype)
            source, positions, target = pointers(context, builder, signature, args, 0, 3, 5)
            start, step, p, place, out_step, panel_step = (args[i] for i in (1, 2, 4, 6, 7, 8))
            places = [
                builder.load(builder.gep(positions, [builder.add(p, emit.index(lane))])) for lane in range(emit.lanes)
            ]
            starts = [builder.add(start, offset) for offset in places]
            for _ in range(rows):
                inputs = []
                while len(inputs) < columns:
                    j = emit.index(len(inputs))
                    width = min(emit.lanes, SLACK, 2 ** int(np.ceil(np.log2(columns - len(inputs)))))
                    parts = [emit.load(source, builder.add(s, j), width) for s in starts]
                    inputs += emit.transpose(parts, width)
                for value in emit.combine(matrix, inputs[:columns]):
                    if panels:
                        emit.store_panels(value, target, place, panel_step)
                    else:
                        emit.store(value, target, place)
                    place = builder.add(place, out_step)
                starts = [builder.add(s, step) for s in starts]
            return context.get_dummy_value()

        if not vector_arrays(source, out, positions) or source.dtype != out.dtype or positions.dtype != types.intp:
            return None
        index = types.intp
        return types.void(source, index, index, positions, index, out, index, index, index), codegen

    def lanes_in_python(source, start, step, positions, p, out, place, out_step, panel_step):
        exact = matrix.astype(source.dtype)
        for lane in range(lanes(source.dtype)):
            at = _panel_offset(lane, panel_step) if panels else lane
            for i in range(rows):
                d = source[start + positions[p + lane] + i * step :][:columns]
                for j, value in enumerate(exact @ d):
                    out[place + (i * rows + j) * out_step + at] = value

    return either(lanes_in, lanes_in_python)


def make_planes_in(matrix):
    """A function (source, start, out, place, out_step, panel_step): matrix d matrix^T for d that lies lane by lane.

    d_ij is the vector at ``source[start + (i columns + j) lanes]``; vector (i, j) of the result goes to
    ``out[place + (i rows + j) out_step]``, in pieces of ROWS `panel_step` apart.
    """
    rows, columns = matrix.shape

    @intrinsic
    def planes_in(typingctx, source, start, out, place, out_step, panel_step):
        def codegen(context, builder, signature, args):
            emit = _Transforms(context, builder, signature.args[0].dtype)
            source, target = pointers(context, builder, signature, args, 0, 2)
            start, place, out_step, panel_step = (args[i] for i in (1, 3, 4, 5))
            inputs = [
                emit.load(source, builder.add(start, emit.index(k * emit.lanes))) for k in range(columns * columns)
            ]
            for value in emit.combine_both(matrix, inputs):
                emit.store_panels(value, target, place, panel_step)
                place = builder.add(place, out_step)
            return context.get_dummy_value()

        if not vector_arrays(source, out) or source.dtype != out.dtype:
            return None
        return types.void(source, types.intp, out, types.intp, types.intp, types.intp), codegen

    def planes_in_python(source, start, out, place, out_step, panel_step):
        width, exact = lanes(source.dtype), matrix.astype(source.dtype)
        for lane in range(width):
            d = source[start + lane :: width][: columns * columns].reshape(columns, columns)
            for k, value in enumerate((exact @ d @ exact.T).flat):
                out[place + k * out_step + _panel_offset(lane, panel_step)] = value

    return either(planes_in, planes_in_python)


def make_planes_out(matrix):
    """A function (source, start, step, out, place): matrix d matrix^T, with d_k the vector at source[start + k step].

    Vector k of the result goes to ``out[place + k lanes]``.
    """
    rows, columns = matrix.shape

    @intrinsic
    def planes_out(typingctx, source, start, step, out, place):
        def codegen(context, builder, signature, args):
            emit = _Transforms(context, builder, signature.args[0].dtype)
            source, target = pointers(context, builder, signature, args, 0, 3)
            start, step, place = args[1], args[2], args[4]
            for k, value in enumerate(emit.combine_both(matrix, _strided(emit, source, start, step, columns))):
                emit.store(value, target, builder.add(place, emit.index(k * emit.lanes)))
            return context.get_dummy_value()

        if not vector_arrays(source, out) or source.dtype != out.dtype:
            return None
        return types.void(source, types.intp, types.intp, out, types.intp), codegen

    def planes_out_python(source, start, step, out, place):
        width, exact = lanes(source.dtype), matrix.astype(source.dtype)
        for lane in range(width):
            d = source[start + lane :: step][: columns * columns].reshape(columns, columns)
            out[place + lane :: width][: rows * rows] = (exact @ d @ exact.T).reshape(-1)

    return either(planes_out, planes_out_python)


def make_tiles_out(matrix):
    """A function (source, start, step, out, place, out_step): matrix d matrix^T for lanes that are neighbouring tiles.

    d_k is the vector at ``source[start + k step]``; row i of the tiles goes to ``out[place + i out_step]``, the tiles
    side by side.
    """
    rows, columns = matrix.shape

    @intrinsic
    def tiles_out(typingctx, source, start, step, out, place, out_step):
        def codegen(context, builder, signature, args):
            emit = _Transforms(context, builder, signature.args[0].dtype)
            source, target = pointers(context, builder, signature, args, 0, 3)
            start, step, place, out_step = args[1], args[2], args[4], args[5]
            values = emit.combine_both(matrix, _strided(emit, source, start, step, columns))
            for i in range(rows):
                emit.store(emit.interleave(values[i * rows : (i + 1) * rows]), target, place)
                place = builder.add(place, out_step)
            return context.get_dummy_value()

        if not vector_arrays(source, out) or source.dtype != out.dtype:
            return None
        return types.void(source, types.intp, types.intp, out, types.intp, types.intp), codegen

    def tiles_out_python(source, start, step, out, place, out_step):
        exact = matrix.astype(source.dtype)
        for lane in range(lanes(source.dtype)):
            d = source[start + lane :: step][: columns * columns].reshape(columns, columns)
            for i, row in enumerate(exact @ d @ exact.T):
                out[place + i * out_step + lane * rows :][:rows] = row

    return either(tiles_out, tiles_out_python)


def _strided(emit, source, start, step, columns):
    """The vectors at start, start + step, ..., columns x columns of them."""
    inputs = []
    for _ in range(columns * columns):
        inputs.append(emit.load(source, start))
        start = emit.builder.add(start, step)
    return inputs


def _panel_offset(lane, panel_step):
    return lane // ROWS * panel_step + lane % ROWS
