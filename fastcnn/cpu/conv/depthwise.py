"""Depthwise convolution: each filter sees one channel, so there is no product of matrices, only shifted planes to add.

Source: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (CVPR 2017), section 2.

x (N, C, H, W), w (F, 1, HH, WW) with F a multiple of C: filter f sees channel f C / F. A plane is copied once, with its
padding, and with strides as one *phase* for each remainder of row and column. Every tap is then a constant distance in
memory, for all pixels of the plane at once: rows of results are as far apart as rows of the copy, and what comes out
between them is dropped.
"""

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastcnn.cpu.conv.columns import inside
from fastcnn.cpu.conv.epilogue import emit_rows, moments_of
from fastcnn.cpu.conv.pixels import gather_run, scatter_run
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.microkernel import VECTOR_BYTES
from fastcnn.cpu.vectors import Vectors, either, pointers, scratch, vector_arrays

TOGETHER = 4  # vectors of pixels for which a tap is loaded once
SPILL = TOGETHER * VECTOR_BYTES // 4  # elements after the last pixel that are computed with it


def forward(x, w, stride, pad, dilation, groups, end, out):
    """`conv_forward` by this algorithm; writes all of its last argument and returns the moments of its planes."""
    taps = w.reshape(len(w), *w.shape[2:])
    _forward(out.shape[0] * out.shape[1], x, taps, *stride, *pad, *dilation, end.bias, end.add, end.relu, out)
    return moments_of(out, end)


def backward_input(dout, w, stride, pad, dilation, groups, dx):
    """`conv_backward_input` by this algorithm; writes all of its last argument."""
    taps = w.reshape(len(w), *w.shape[2:])
    _backward_input(dx.shape[0] * dx.shape[1], dout, taps, *stride, *pad, *dilation, dx)


def backward_filter(dout, x, stride, pad, dilation, groups, dw):
    """`conv_backward_filter` by this algorithm; writes all of its last argument."""
    _backward_filter(len(dw), dout, x, *stride, *pad, *dilation, dw.reshape(len(dw), *dw.shape[2:]))


@parallel
def _forward(plane, x, w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, bias, add, relu, out):
    filters, height, width = out.shape[1:]
    n, f = plane // filters, plane % filters
    taps, rows, row = find_taps(w.shape, height, width, stride_h, stride_w, dilation_h, dilation_w)
    phases = room(stride_h * stride_w * rows * row, row, x)
    copy_phases(x[n, f * x.shape[1] // filters], stride_h, stride_w, -pad_h, -pad_w, rows, row, phases)
    sums = scratch(height * row + SPILL, x)
    add_taps(phases, taps, w[f].reshape(-1), height * row, sums)
    place = plane * height * width
    emit_rows(sums, 0, row, height, width, bias[f], relu, add.reshape(-1), add.size > 0, out.reshape(-1), place, width)


@parallel
def _backward_input(plane, dout, w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, dx):
    channels, height, width = dx.shape[1:]
    n, c, some = plane // channels, plane % channels, dout.shape[1] // channels
    # Pixel i of a phase sees window i + (phase + pad - k dilation) / stride: at most `before` before it.
    before_h, before_w = (w.shape[1] - 1) * dilation_h // stride_h + 1, (w.shape[2] - 1) * dilation_w // stride_w + 1
    after_h, after_w = (stride_h - 1 + pad_h) // stride_h, (stride_w - 1 + pad_w) // stride_w
    rows, row = -(-height // stride_h) + before_h + after_h, -(-width // stride_w) + before_w + after_w
    image, sums = room(rows * row, row, dx), scratch(rows * row + SPILL, dx)
    taps, weights = np.empty(w.shape[1] * w.shape[2], np.intp), np.empty(w.shape[1] * w.shape[2], w.dtype)
    result = dx.reshape(-1)
    for i in range(some):
        f = c * some + i
        copy_phases(dout[n, f], 1, 1, -before_h, -before_w, rows, row, image)
        for phase_h in range(min(stride_h, height)):
            for phase_w in range(min(stride_w, width)):
                count = 0
                for kh in range(w.shape[1]):
                    for kw in range(w.shape[2]):
                        up, left = phase_h + pad_h - kh * dilation_h, phase_w + pad_w - kw * dilation_w
                        if up % stride_h == 0 and left % stride_w == 0:
                            taps[count] = (up // stride_h + before_h) * row + left // stride_w + before_w
                            weights[count] = w[f, kh, kw]
                            count += 1
                high, wide = -(-(height - phase_h) // stride_h), -(-(width - phase_w) // stride_w)
                add_taps(image, taps[:count], weights[:count], high * row, sums)
                for oh in range(high):
                    place = (plane * height + oh * stride_h + phase_h) * width + phase_w
                    if i > 0:
                        for ow in range(wide):
                            result[place + ow * stride_w] += sums[oh * row + ow]
                    elif stride_w == 1:
                        emit_rows(sums, oh * row, 0, 1, wide, sums.dtype.type(0), False, sums, False, result, place, 0)
                    else:
                        scatter_run(sums, oh * row, wide, result, place, stride_w)


@parallel
def _backward_filter(f, dout, x, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, dw):
    height, width = dout.shape[2:]
    taps, rows, row = find_taps(
        (1, dw.shape[1], dw.shape[2]), height, width, stride_h, stride_w, dilation_h, dilation_w
    )
    phases = room(stride_h * stride_w * rows * row, row, x)
    gradient, totals = scratch(height * row + SPILL, x), np.zeros(taps.size)
    for n in range(dout.shape[0]):
        copy_phases(x[n, f * x.shape[1] // dout.shape[1]], stride_h, stride_w, -pad_h, -pad_w, rows, row, phases)
        copy_phases(dout[n, f], 1, 1, 0, 0, height, row, gradient)  # zeros where there is no window
        for t in range(taps.size):
            part, shift = type(x[0, 0, 0, 0])(0), taps[t]
            for i in range(height * row):
                part += gradient[i] * phases[shift + i]
            totals[t] += part
    flat = dw.reshape(-1)
    for t in range(taps.size):
        flat[f * taps.size + t] = totals[t]


@jit
def room(size, row, like):
    """Scratch memory for a copy of `size` elements, with zeros after it: taps see up to a row beyond its last pixel."""
    memory = scratch(size + row + SPILL, like)
    memory[size:] = 0
    return memory


@jit
def find_taps(w_shape, height, width, stride_h, stride_w, dilation_h, dilation_w):
    """The distance of each tap in the copy of a plane; and how many rows its phases have, and how long these are."""
    high, wide = (w_shape[1] - 1) * dilation_h, (w_shape[2] - 1) * dilation_w
    rows, row = height + high // stride_h, width + wide // stride_w
    taps = np.empty(w_shape[1] * w_shape[2], np.intp)
    for kh in range(w_shape[1]):
        for kw in range(w_shape[2]):
            down, right = kh * dilation_h, kw * dilation_w
            phase = down % stride_h * stride_w + right % stride_w
            taps[kh * w_shape[2] + kw] = (phase * rows + down // stride_h) * row + right // stride_w
    return taps, rows, row


@jit
def copy_phases(image, stride_h, stride_w, top, left, rows, row, out):
    """Pixels (top + i stride_h + a, left + j stride_w + b) of an image to out[phase (a, b)][i][j], zeros outside."""
    height, width = image.shape
    flat = image.reshape(-1)
    for a in range(stride_h):
        for b in range(stride_w):
            first, last = inside(left + b, stride_w, width, row)
            for i in range(rows):
                ih, place = top + i * stride_h + a, ((a * stride_w + b) * rows + i) * row
                within = 0 <= ih < height
                gather_run(
                    flat, ih * width + left + b, 0, 1, stride_w, first if within else 0, last if within else 0, row,
                    out, place, 0,
                )  # fmt: skip


@intrinsic
def _add_taps(typingctx, source, taps, weights, count, out):
    """out[i] = sum_t weights[t] source[taps[t] + i] for i < count, and for up to `SPILL` more."""

    def codegen(context, builder, signature, args):
        emit = Vectors(context, builder, signature.args[0].dtype)
        source, offsets, factors, out = pointers(context, builder, signature, args, 0, 1, 2, 4)
        table = context.make_array(signature.args[1])(context, builder, args[1])
        number = builder.extract_value(table.shape, 0)
        step = emit.index(TOGETHER * emit.lanes)
        shifts = [emit.index(v * emit.lanes) for v in range(TOGETHER)]
        with cgutils.for_range_slice(builder, emit.index(0), args[3], step, inc=True) as (i, _):
            sums = [cgutils.alloca_once_value(builder, emit.splat(0)) for _ in shifts]
            for total in sums:
                builder.store(emit.splat(0), total)
            with cgutils.for_range(builder, number) as tap:
                offset = builder.load(builder.gep(offsets, [tap.index]))
                factor = emit.spread(builder.load(builder.gep(factors, [tap.index])))
                begin = builder.add(offset, i)
                for shift, total in zip(shifts, sums):
                    pixels = emit.load(source, builder.add(begin, shift))
                    builder.store(emit.muladd(factor, pixels, builder.load(total)), total)
            for shift, total in zip(shifts, sums):
                emit.store(builder.load(total), out, builder.add(i, shift))
        return context.get_dummy_value()

    if not vector_arrays(source, taps, weights, out) or not source.dtype == weights.dtype == out.dtype:
        return None
    return types.void(source, taps, weights, types.intp, out), codegen


def _add_taps_python(source, taps, weights, count, out):
    out[:count] = sum(weight * source[tap : tap + count] for tap, weight in zip(taps, weights))


add_taps = either(_add_taps, _add_taps_python)
