"""Convolution as a matrix product over im2col columns, a cache-sized block of columns at a time.

Source: Chellapilla, Puri, Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006); cut into
blocks, the columns are never stored as a whole: each block is written straight in the panel layout of `cpu.gemm`.

With K = C/groups HH WW rows (c, kh, kw) and Q = N H' W' columns (n, oh, ow), per group:
    forward          out  (F, Q) = w (F, K) cols (K, Q)
    input gradient   dcols (K, Q) = w^T (K, F) dout (F, Q), then col2im
    filter gradient  dw   (F, K) = dout (F, Q) cols^T (Q, K)
A block of columns is described by *runs*: stretches of columns within one output row and one panel, for which the pixels
under a tap lie at equal distances. All cuts depend on shapes alone: results do not depend on the number of threads.
"""

import numpy as np

from fastcnn.cpu.conv.columns import inside
from fastcnn.cpu.gemm import DEPTH, multiply_panels, pack, pack_panels, rectify
from fastcnn.cpu.jit import jit, parallel, prange
from fastcnn.cpu.microkernel import ROWS, tile_columns
from fastcnn.cpu.moves import copy_run


def forward(x, w, b, stride, pad, dilation, groups, relu, out):
    filters, depth = w.shape[0] // groups, w[0].size
    panels = np.empty(groups * -(-filters // ROWS) * ROWS * depth, w.dtype)
    pack_panels(w.reshape(-1), filters * depth, filters, depth, depth, 1, panels)
    _forward(x, panels, *w.shape[1:], b, *stride, *pad, *dilation, groups, relu, out)


def backward_input(dout, w, stride, pad, dilation, groups, dx):
    filters, depth = w.shape[0] // groups, w[0].size
    panels = np.empty(groups * -(-depth // ROWS) * ROWS * filters, w.dtype)
    pack_panels(w.reshape(-1), filters * depth, depth, 1, filters, depth, panels)
    _backward_input(dout, panels, *w.shape[1:], *stride, *pad, *dilation, groups, dx)


def backward_filter(dout, x, stride, pad, dilation, groups, dw):
    filters, channels, *kernel = dw.shape
    pieces, width = _cut_filter_gradient(dout.size // max(filters, 1), filters // groups, channels, kernel)
    parts = np.empty((pieces, *dw.shape), dw.dtype)
    _backward_filter(dout, x, *stride, *pad, *dilation, groups, width, parts)
    np.add.reduce(parts, axis=0, out=dw)  # in their order


# ---- forward


@parallel
def _forward(
    x, panels, channels, kernel_h, kernel_w, b, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, relu, out
):  # fmt: skip
    filters = b.size // groups
    places = out.shape[2] * out.shape[3]
    width = block_width(out.shape[0] * places, groups, tile_columns(x))
    blocks = -(-out.shape[0] * places // width)
    for task in prange(groups * blocks):
        group, block = task // blocks, task % blocks
        _forward_block(
            x, panels, b, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
            filters, channels, group, relu, out, block * width, min(width, out.shape[0] * places - block * width),
        )  # fmt: skip


@jit
def _forward_block(
    x, panels, b, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    filters, channels, group, relu, out, first, count,
):  # fmt: skip
    columns, taps = tile_columns(x), kernel_h * kernel_w
    row_panels, column_panels = -(-filters // ROWS), -(-count // columns)
    tiles = np.zeros(row_panels * column_panels * ROWS * columns, x.dtype)
    some = channels_at_once(channels, taps)
    cols = np.zeros(column_panels * some * taps * columns, x.dtype)
    runs = find_runs(first, count, out.shape[2], out.shape[3], columns)
    start = group * row_panels * channels * taps * ROWS
    for c in range(0, channels, some):
        here = min(some, channels - c)
        gather(
            x, group * channels + c, here, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
            runs, columns, cols,
        )  # fmt: skip
        depth = here * taps
        multiply_panels(
            depth, panels, start + c * taps * ROWS, channels * taps * ROWS, row_panels, cols, column_panels, tiles
        )
    for f in range(filters):
        bias = b[group * filters + f]
        for r in range(runs.shape[0]):
            column, length, image, oh, ow = runs[r]
            tile = (f // ROWS * column_panels + column // columns) * ROWS + f % ROWS
            source = tiles[tile * columns + column % columns :][:length]
            target = out[image, group * filters + f, oh, ow : ow + length]
            for i in range(length):
                target[i] = rectify(source[i] + bias, relu)


# ---- gradient with respect to the input


@parallel
def _backward_input(
    dout, panels, channels, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, dx
):  # fmt: skip
    filters, taps = dout.shape[1] // groups, kernel_h * kernel_w
    # A task owns some images and some channels (in whole row panels), so that no other task adds to the same pixels.
    some = min(channels, max(1, 2 * DEPTH // (taps * ROWS)) * ROWS)
    pieces = -(-channels // some)
    images = max(1, 4 * tile_columns(dout) // max(dout.shape[2] * dout.shape[3], 1))
    batches = -(-dx.shape[0] // images)
    for task in prange(batches * groups * pieces):
        n, part = task // (groups * pieces) * images, task % (groups * pieces)
        group, c = part // pieces, part % pieces * some
        start = (group * -(-channels * taps // ROWS) * ROWS + c * taps) * filters
        _backward_input_block(
            dout, panels, start, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
            filters, group * filters, group * channels + c, min(some, channels - c), dx, n, min(images, dx.shape[0] - n),
        )  # fmt: skip


@jit
def _backward_input_block(
    dout, panels, start, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    filters, filter0, channel0, channels, dx, image0, images,
):  # fmt: skip
    columns = tile_columns(dout)
    out_h, out_w = dout.shape[2:]
    row_panels = -(-channels * kernel_h * kernel_w // ROWS)
    for n in range(images):
        for c in range(channels):
            dx[image0 + n, channel0 + c] = 0
    width = 4 * columns
    tiles = np.empty(row_panels * width * ROWS, dout.dtype)
    rows = np.zeros(width * min(DEPTH, filters), dout.dtype)
    first, end = image0 * out_h * out_w, (image0 + images) * out_h * out_w
    for q in range(first, end, width):
        count = min(width, end - q)
        column_panels = -(-count // columns)
        runs = find_runs(q, count, out_h, out_w, columns)
        tiles[:] = 0
        for f in range(0, filters, DEPTH):
            depth = min(DEPTH, filters - f)
            gather(dout, filter0 + f, depth, 1, 1, 1, 1, 0, 0, 1, 1, runs, columns, rows)
            multiply_panels(depth, panels, start + f * ROWS, filters * ROWS, row_panels, rows, column_panels, tiles)
        scatter(
            tiles, runs, columns, column_panels, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w,
            dilation_h, dilation_w, dx, channel0, channels,
        )  # fmt: skip


# ---- gradient with respect to the filters


def _cut_filter_gradient(places, filters, channels, kernel):
    """Into how many pieces to cut the sum over Q = `places`, and how many channels a task takes.

    Enough tasks for many threads, few enough copies of dw to fold, and im2col rows (DEPTH columns wide) of at most 1 MB.
    """
    taps = kernel[0] * kernel[1]
    copies = max(1, min(16, 2**20 // max(1, filters * channels * taps)))
    pieces = max(1, min(copies, places // (2 * DEPTH)))
    wanted = channels if pieces >= 8 else max(1, channels * pieces // 16)
    return pieces, min(channels, max(-(-64 // taps), min(wanted, 1024 // taps), 1))


@parallel
def _backward_filter(dout, x, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, channels_wide, parts):
    pieces, all_filters, channels, kernel_h, kernel_w = parts.shape
    filters = all_filters // groups
    places = dout.shape[0] * dout.shape[2] * dout.shape[3]
    chunks = -(-places // DEPTH)
    across = -(-channels // channels_wide)
    for task in prange(pieces * groups * across):
        piece, rest = task // (groups * across), task % (groups * across)
        group, c = rest // across, rest % across * channels_wide
        first = piece * chunks // pieces * DEPTH
        end = min(places, (piece + 1) * chunks // pieces * DEPTH)
        _backward_filter_block(
            dout, x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
            filters, group * filters, group * channels + c, min(channels_wide, channels - c), first, end,
            parts[piece, group * filters : (group + 1) * filters, c : c + channels_wide],
        )  # fmt: skip


@jit
def _backward_filter_block(
    dout, x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    filters, filter0, channel0, channels, first, end, dw,
):  # fmt: skip
    columns, taps = tile_columns(x), kernel_h * kernel_w
    depth = channels * taps
    row_panels, column_panels = -(-filters // ROWS), -(-depth // columns)
    tiles = np.zeros(row_panels * column_panels * ROWS * columns, x.dtype)
    lines = np.empty(max(filters, depth) * DEPTH, x.dtype)
    a = np.empty(row_panels * DEPTH * ROWS, x.dtype)
    b = np.empty(column_panels * DEPTH * columns, x.dtype)
    for q in range(first, end, DEPTH):
        count = min(DEPTH, end - q)
        runs = find_runs(q, count, dout.shape[2], dout.shape[3], DEPTH)
        gather(dout, filter0, filters, 1, 1, 1, 1, 0, 0, 1, 1, runs, DEPTH, lines)
        pack(lines, 0, DEPTH, 1, filters, count, ROWS, a)
        gather(
            x, channel0, channels, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
            runs, DEPTH, lines,
        )  # fmt: skip
        pack(lines, 0, DEPTH, 1, depth, count, columns, b)
        multiply_panels(count, a, 0, count * ROWS, row_panels, b, column_panels, tiles)
    for f in range(filters):
        for k in range(depth):
            tile = (f // ROWS * column_panels + k // columns) * ROWS + f % ROWS
            dw[f, k // taps, k % taps // kernel_w, k % kernel_w] = tiles[tile * columns + k % columns]


# ---- columns and their runs


@jit
def channels_at_once(channels, taps):
    """Whole channels that a block of about DEPTH rows holds."""
    return min(channels, max(1, DEPTH // taps))


@jit
def block_width(columns, groups, panel):
    """Columns per task: wide enough to use packed weights well, narrow enough for some sixteen tasks."""
    panels = columns * groups // (16 * panel)
    return panel * min(4, max(1, panels))


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


@jit
def gather(
    x, channel0, channels, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    runs, panel, cols,
):  # fmt: skip
    """The columns of some channels in panels [panel][channel, kh, kw][column], zeros outside the image."""
    height, width = x.shape[2:]
    taps, pixels = kernel_h * kernel_w, x.reshape(-1)
    for tap in range(taps):
        for r in range(runs.shape[0]):
            column, length, image, oh, ow = runs[r]
            ih = oh * stride_h + tap // kernel_w * dilation_h - pad_h
            iw = ow * stride_w + tap % kernel_w * dilation_w - pad_w
            first, last = inside(iw, stride_w, width, length)
            if first >= last or ih < 0 or ih >= height:
                first = last = 0
            place = (column // panel * channels * taps + tap) * panel + column % panel
            source = ((image * x.shape[1] + channel0) * height + ih) * width + iw + first * stride_w
            for c in range(channels):
                for i in range(first):
                    cols[place + i] = 0
                if stride_w == 1:
                    copy_run(cols, place + first, x, source, last - first)
                else:
                    for i in range(last - first):
                        cols[place + first + i] = pixels[source + i * stride_w]
                for i in range(last, length):
                    cols[place + i] = 0
                place += taps * panel
                source += height * width


@jit
def scatter(
    tiles, runs, columns, column_panels, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    dx, channel0, channels,
):  # fmt: skip
    """Add the rows (channel, kh, kw) of C tiles to the pixels that `gather` would have copied them from."""
    height, width = dx.shape[2:]
    taps = kernel_h * kernel_w
    for tap in range(taps):
        for r in range(runs.shape[0]):
            column, length, image, oh, ow = runs[r]
            ih = oh * stride_h + tap // kernel_w * dilation_h - pad_h
            iw = ow * stride_w + tap % kernel_w * dilation_w - pad_w
            first, last = inside(iw, stride_w, width, length)
            if first >= last or ih < 0 or ih >= height:
                continue
            for c in range(channels):
                k = c * taps + tap
                tile = (k // ROWS * column_panels + column // columns) * ROWS + k % ROWS
                source = tiles[tile * columns + column % columns + first :][: last - first]
                target = dx[image, channel0 + c, ih, iw + first * stride_w :]
                if stride_w == 1:
                    for i in range(source.size):
                        target[i] += source[i]
                else:
                    for i in range(source.size):
                        target[i * stride_w] += source[i]
