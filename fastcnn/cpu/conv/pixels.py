"""Moving pixels between images and panels: runs of an output row, for many channels at once.

A *run* is a stretch of output columns in one row. `gather_run` collects what lies under one tap of a filter for the
columns of a run, `scatter_run` puts results at equal distances, `spread_run` fills what is between with zeros.
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn.cpu.jit import jit
from fastcnn.cpu.vectors import Vectors, either, pointers, vector_arrays


@jit
def find_runs(first, count, out_h, out_w, panel):
    """The runs of columns first .. first + count: rows (column within the block, length, image, oh, ow).

    A run ends with its output row and with its panel of `panel` columns.
    """
    runs = np.empty((count // out_w + count // panel + 4, 5), np.intp)
    found, column = 0, 0
    while column < count:
        place = first + column
        ow = place % out_w
        length = min(out_w - ow, panel - column % panel, count - column)
        runs[found, 0] = column
        runs[found, 1] = length
        runs[found, 2] = place // (out_h * out_w)
        runs[found, 3] = place // out_w % out_h
        runs[found, 4] = ow
        found += 1
        column += length
    return runs[:found]


def _make_gather(stride):
    """`gather_run` for a stride of 1 or 2, where vector loads reach all pixels."""

    @intrinsic
    def gather(typingctx, x, start, x_step, channels, first, last, count, out, place, out_step):
        def codegen(context, builder, signature, args):
            emit = Vectors(context, builder, signature.args[0].dtype)
            source, target = pointers(context, builder, signature, args, 0, 7)
            start, x_step, channels, first, last, count, place, out_step = (args[i] for i in (*range(1, 7), 8, 9))
            # In elements from the run's start; with a stride of 2, those between two pixels are read as well.
            low = builder.mul(first, emit.index(stride))
            high = builder.sub(builder.mul(last, emit.index(stride)), emit.index(stride - 1))

            def masks_at(i):
                begin = [
                    builder.add(builder.mul(i, emit.index(stride)), emit.index(v * emit.lanes)) for v in range(stride)
                ]
                masks = [
                    builder.and_(
                        emit.first_lanes(builder.sub(high, b)), builder.not_(emit.first_lanes(builder.sub(low, b)))
                    )
                    for b in begin
                ]
                return begin, masks, emit.first_lanes(builder.sub(count, i))

            def move(c, i, begin, masks, mask):
                here = builder.add(start, builder.mul(c, x_step))
                if masks is None:
                    parts = [emit.load(source, builder.add(here, b)) for b in begin]
                else:
                    parts = [emit.masked_load(source, builder.add(here, b), m) for b, m in zip(begin, masks)]
                value = parts[0] if stride == 1 else emit.shuffle(*parts, range(0, 2 * emit.lanes, 2))
                there = builder.add(place, builder.add(i, builder.mul(c, out_step)))
                if mask is None:
                    emit.store(value, target, there)
                else:
                    emit.masked_store(value, target, there, mask)

            none, lanes = emit.index(0), emit.index(emit.lanes)
            short = builder.icmp_signed("<=", count, lanes)
            with builder.if_else(short) as (one_vector, more):
                with one_vector:
                    at_once = masks_at(none)
                    with cgutils.for_range(builder, channels) as c:
                        move(c.index, none, *at_once)
                with more:  # along memory; whole vectors without padding, but for the last one, need no mask
                    inside = builder.and_(
                        builder.icmp_signed("<=", first, none), builder.icmp_signed(">=", last, count)
                    )
                    whole = builder.sub(
                        builder.sub(count, emit.index(1)), builder.srem(builder.sub(count, emit.index(1)), lanes)
                    )
                    whole = builder.select(inside, whole, none)
                    with cgutils.for_range(builder, channels) as c:
                        with cgutils.for_range_slice(builder, none, whole, lanes, inc=True) as (i, _):
                            move(c.index, i, masks_at(i)[0], None, None)
                        with cgutils.for_range_slice(builder, whole, count, lanes, inc=True) as (i, _):
                            move(c.index, i, *masks_at(i))
            return context.get_dummy_value()

        if not vector_arrays(x, out) or x.dtype != out.dtype:
            return None
        index = types.intp
        return types.void(x, index, index, index, index, index, index, out, index, index), codegen

    def gather_python(x, start, x_step, channels, first, last, count, out, place, out_step):
        for c in range(channels):
            out[place + c * out_step :][:count] = 0
            for i in range(max(first, 0), min(last, count)):
                out[place + c * out_step + i] = x[start + c * x_step + i * stride]

    return either(gather, gather_python)


_gather_1, _gather_2 = _make_gather(1), _make_gather(2)


@jit
def gather_run(x, start, x_step, channels, stride, first, last, count, out, place, out_step):
    """``out[place + c out_step + i] = x[start + c x_step + i stride]`` for c < channels, i < count.

    Pixels i outside first <= i < last are zeros and not read. x and out are one-dimensional.
    """
    if stride == 1:
        _gather_1(x, start, x_step, channels, first, last, count, out, place, out_step)
    elif stride == 2:
        _gather_2(x, start, x_step, channels, first, last, count, out, place, out_step)
    else:
        for c in range(channels):
            for i in range(count):
                inside = first <= i < last
                out[place + c * out_step + i] = x[start + c * x_step + i * stride] if inside else 0


@intrinsic
def _scatter_2(typingctx, source, start, count, out, place):
    """``out[place + 2 i] = source[start + i]`` for i < count."""

    def codegen(context, builder, signature, args):
        emit = Vectors(context, builder, signature.args[0].dtype)
        source, target = pointers(context, builder, signature, args, 0, 3)
        start, count, place = args[1], args[2], args[4]
        odd = emit.constant_mask([i % 2 == 0 for i in range(emit.lanes)])
        with cgutils.for_range_slice(builder, emit.index(0), count, emit.index(emit.lanes), inc=True) as (i, _):
            left = builder.sub(count, i)
            value = emit.masked_load(source, builder.add(start, i), emit.first_lanes(left))
            for half in range(2):
                spread = emit.shuffle(value, value, [half * emit.lanes // 2 + j // 2 for j in range(emit.lanes)])
                there = builder.add(builder.mul(i, emit.index(2)), emit.index(half * emit.lanes))
                rest = builder.sub(builder.mul(left, emit.index(2)), emit.index(half * emit.lanes))
                mask = builder.and_(odd, emit.first_lanes(rest))
                emit.masked_store(spread, target, builder.add(place, there), mask)
        return context.get_dummy_value()

    if not vector_arrays(source, out) or source.dtype != out.dtype:
        return None
    return types.void(source, types.intp, types.intp, out, types.intp), codegen


def _scatter_2_python(source, start, count, out, place):
    for i in range(count):
        out[place + 2 * i] = source[start + i]


scatter_2 = either(_scatter_2, _scatter_2_python)


@jit(inline=True)
def scatter_run(source, start, count, out, place, stride):
    """``out[place + i stride] = source[start + i]`` for i < count."""
    if stride == 2:
        scatter_2(source, start, count, out, place)
    else:
        for i in range(count):
            out[place + i * stride] = source[start + i]


@intrinsic
def _spread_2(typingctx, source, start, count, out, place, width):
    """``out[place + 2 i] = source[start + i]`` for i < count; zeros elsewhere in out[place : place + width]."""

    def codegen(context, builder, signature, args):
        emit = Vectors(context, builder, signature.args[0].dtype)
        source, target = pointers(context, builder, signature, args, 0, 3)
        start, count, place, width = args[1], args[2], args[4], args[5]
        zero, pair = emit.splat(0), emit.index(2 * emit.lanes)

        def halves(value, j):
            for half in range(2):
                first = half * emit.lanes // 2
                order = [first + i // 2 if i % 2 == 0 else emit.lanes for i in range(emit.lanes)]
                there = builder.add(j, emit.index(half * emit.lanes))
                yield emit.shuffle(value, zero, order), there

        # Pairs of vectors that are all there: both in the output and in the source.
        least = builder.mul(count, emit.index(2))
        least = builder.select(builder.icmp_signed("<", width, least), width, least)
        whole = builder.sub(least, builder.srem(least, pair))
        with cgutils.for_range_slice(builder, emit.index(0), whole, pair, inc=True) as (j, _):
            value = emit.load(source, builder.add(start, builder.sdiv(j, emit.index(2))))
            for spread, there in halves(value, j):
                emit.store(spread, target, builder.add(place, there))
        with cgutils.for_range_slice(builder, whole, width, pair, inc=True) as (j, _):
            i = builder.sdiv(j, emit.index(2))
            value = emit.masked_load(source, builder.add(start, i), emit.first_lanes(builder.sub(count, i)))
            for spread, there in halves(value, j):
                mask = emit.first_lanes(builder.sub(width, there))
                emit.masked_store(spread, target, builder.add(place, there), mask)
        return context.get_dummy_value()

    if not vector_arrays(source, out) or source.dtype != out.dtype:
        return None
    index = types.intp
    return types.void(source, index, index, out, index, index), codegen


def _spread_2_python(source, start, count, out, place, width):
    out[place : place + width] = 0
    out[place : place + 2 * count : 2] = source[start : start + count]


spread_2 = either(_spread_2, _spread_2_python)


@jit(inline=True)
def spread_run(source, start, count, out, place, stride, width):
    """`scatter_run`, and zeros elsewhere in out[place : place + width]."""
    if stride == 2:
        spread_2(source, start, count, out, place, width)
    else:
        for i in range(width):
            out[place + i] = 0
        scatter_run(source, start, count, out, place, stride)
