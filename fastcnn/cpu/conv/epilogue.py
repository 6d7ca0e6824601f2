"""The end of a convolution, done while its output is in cache: bias, residual sum, ReLU, the moments of a channel."""

import dataclasses

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.vectors import Vectors, either, pointers, vector_arrays


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """out = max(out + bias + add, 0): the parts that are wanted.

    Parameters
    ----------
    bias : (F,) array
    add : array of the output's shape, or one of no elements: nothing is added
    relu : bool
    moments : whether the means and squares of the output's channels are wanted
    """

    bias: np.ndarray
    add: np.ndarray
    relu: bool = False
    moments: bool = False

    def buffer(self, blocks, filters):
        """Where an algorithm that cuts its output into `blocks` leaves (count, mean, squares) of each, per filter.

        It has no elements where moments are not wanted.
        """
        return np.zeros((blocks, filters, 3) if self.moments else (1, 0, 3))


def fold(parts, dtype):
    """Mean and biased variance (F,) from the (count, mean, sum of squared deviations) of blocks, (blocks, F, 3).

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance" (1983), equation 2.1.
    """
    count, mean, squares = np.moveaxis(parts, 2, 0)
    total = np.maximum(count.sum(axis=0), 1)
    with np.errstate(invalid="ignore"):  # infinities less themselves
        middle = (count * mean).sum(axis=0) / total
        squares = (squares + count * (mean - middle) ** 2).sum(axis=0)
    return middle.astype(dtype), (squares / total).astype(dtype)


def moments_of(out, end):
    """The moments of an output that is complete already, where the epilogue wants them."""
    n, f, h, w = out.shape
    parts = end.buffer(n, f)
    if parts.size:
        _moments_of_planes(n * f, out.reshape(n * f, h * w), parts.reshape(n * f, 3))
    return parts


@intrinsic
def _emit_rows(typingctx, source, start, step, rows, count, bias, relu, add, adding, out, place, out_step):
    """Finish `rows` stretches of `count` outputs: out = source + bias + add (if `adding`), rectified if `relu`.

    Stretch i starts at source[start + i step] and goes to out[place + i out_step]; `add` lies as `out` does.
    """

    def codegen(context, builder, signature, args):
        emit = Vectors(context, builder, signature.args[0].dtype)
        source, add, out = pointers(context, builder, signature, args, 0, 7, 9)
        start, step, rows, count, bias, relu, adding, place, out_step = (args[i] for i in (1, 2, 3, 4, 5, 6, 8, 10, 11))
        bias, relu, zero = emit.spread(bias), emit.spread(relu), emit.splat(0)
        whole = builder.sub(count, builder.srem(count, emit.index(emit.lanes)))

        def finish(value, extra):
            value = builder.fadd(value, bias)
            value = value if extra is None else builder.fadd(value, extra)
            negative = builder.and_(builder.fcmp_ordered("<", value, zero), relu)  # a NaN stays one
            return builder.select(negative, zero, value)

        def emit_all(adding):
            with cgutils.for_range(builder, rows) as row:
                first = builder.add(start, builder.mul(row.index, step))
                target = builder.add(place, builder.mul(row.index, out_step))
                with cgutils.for_range_slice(builder, emit.index(0), whole, emit.index(emit.lanes), inc=True) as (c, _):
                    there = builder.add(target, c)
                    extra = emit.load(add, there) if adding else None
                    emit.store(finish(emit.load(source, builder.add(first, c)), extra), out, there)
                with cgutils.for_range_slice(builder, whole, count, emit.index(emit.lanes), inc=True) as (c, _):
                    mask, there = emit.first_lanes(builder.sub(count, c)), builder.add(target, c)
                    extra = emit.masked_load(add, there, mask) if adding else None
                    value = emit.masked_load(source, builder.add(first, c), mask)
                    emit.masked_store(finish(value, extra), out, there, mask)

        with builder.if_else(adding) as (with_addend, without):
            with with_addend:
                emit_all(True)
            with without:
                emit_all(False)
        return context.get_dummy_value()

    if not vector_arrays(source, add, out) or not source.dtype == add.dtype == out.dtype:
        return None
    index, flag = types.intp, types.boolean
    arguments = (source, index, index, index, index, source.dtype, flag, add, flag, out, index, index)
    return types.void(*arguments), codegen


def _emit_rows_python(source, start, step, rows, count, bias, relu, add, adding, out, place, out_step):
    for row in range(rows):
        here = slice(place + row * out_step, place + row * out_step + count)
        value = source[start + row * step :][:count] + bias + (add[here] if adding else 0)
        out[here] = np.where(relu & (value < 0), 0, value)


emit_rows = either(_emit_rows, _emit_rows_python)


@jit
def gather_moments(run, pivot, moments):
    """Add a run of output to a block's moments: its length, and the sums of its values less `pivot` and their squares.

    A pivot near the values keeps the squares from cancelling when `finish_moments` subtracts the mean's.
    """
    total, squares = type(pivot)(0), type(pivot)(0)
    for i in range(run.size):
        deviation = run[i] - pivot
        total += deviation
        squares += deviation * deviation
    moments[0] += run.size
    moments[1] += total
    moments[2] += squares


@jit
def finish_moments(pivot, moments):
    """From sums about the pivot to the mean and the sum of squared deviations from it."""
    if moments[0] > 0:
        mean = moments[1] / moments[0]
        moments[2] -= mean * moments[1]
        moments[1] = mean + pivot


@parallel
def _moments_of_planes(plane, out, parts):
    row, moments = out[plane], parts[plane]
    if row.size:
        gather_moments(row, row[0], moments)
        finish_moments(row[0], moments)
