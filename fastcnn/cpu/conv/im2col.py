"""Convolution as a matrix product over im2col columns, a cache-sized block of columns at a time.

Source: Chellapilla, Puri, Simard, "High Performance Convolutional Neural Networks for Document Processing" (2006); cut
into blocks, the columns are never stored as a whole: each block is written straight in the panel layout of `cpu.gemm`.

With K = C/groups HH WW rows (c, kh, kw) and Q = N H' W' columns (n, oh, ow), per group:
    forward          out  (F, Q) = w (F, K) cols (K, Q)
    input gradient   dcols (K, Q) = w^T (K, F) dout (F, Q), then col2im
    filter gradient  dw   (F, K) = dout (F, Q) cols^T (Q, K)
A block of columns is described by *runs*: stretches of columns within one output row and one panel, for which the
pixels under a tap lie at equal distances. A geometry is the tuple (kernel, stride, pad, dilation), each (vertical,
horizontal). All cuts depend on shapes alone: results do not depend on the number of threads.
"""

import numpy as np

from fastcnn.cpu.conv.columns import inside
from fastcnn.cpu.conv.epilogue import emit_rows, moments_of
from fastcnn.cpu.conv.pixels import find_runs
from fastcnn.cpu.gemm import DEPTH, multiply_panels, pack, pack_panels
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.microkernel import ROWS, columns, tile_columns
from fastcnn.cpu.moves import copy_run

PIXELS = (1, 1, 1, 1, 0, 0, 1, 1)  # the geometry of windows of one pixel: `gather` then copies images as they are


def forward(x, w, stride, pad, dilation, groups, end, out):
    """`conv_forward` by this algorithm; writes all of its last argument and returns the moments of its blocks."""
    (filters, channels, *kernel), depth = w.shape, w[0].size
    filters //= groups
    panels = _pack_weights(w, groups, filters * depth, filters, depth, depth, 1)
    places = out.shape[0] * out.shape[2] * out.shape[3]
    # Wide enough to use packed weights well, narrow enough for some sixteen tasks.
    width = columns(x.dtype) * min(4, max(1, places * groups // (16 * columns(x.dtype))))
    tasks = groups * -(-places // width)
    geometry = (*kernel, *stride, *pad, *dilation)
    _forward(tasks, x, panels, end.bias, end.add, geometry, filters, channels, width, end.relu, out)
    return moments_of(out, end)


def backward_input(dout, w, stride, pad, dilation, groups, dx):
    """`conv_backward_input` by this algorithm; writes all of its last argument."""
    (filters, channels, *kernel), depth = w.shape, w[0].size
    filters //= groups
    panels = _pack_weights(w, groups, filters * depth, depth, 1, filters, depth)
    # A task owns some images and some channels (in whole row panels), so that no other task adds to the same pixels.
    some = min(channels, max(1, 2 * DEPTH // (kernel[0] * kernel[1] * ROWS)) * ROWS)
    images = max(1, 4 * columns(dx.dtype) // max(1, dout.shape[2] * dout.shape[3]))
    tasks = -(-len(dx) // images) * groups * -(-channels // some)
    _backward_input(tasks, dout, panels, (*kernel, *stride, *pad, *dilation), filters, channels, some, images, dx)


def backward_filter(dout, x, stride, pad, dilation, groups, dw):
    """`conv_backward_filter` by this algorithm; writes all of its last argument."""
    filters, channels, *kernel = dw.shape
    places, taps = dout.size // max(1, dout.shape[1]), kernel[0] * kernel[1]
    # Pieces of the sum over Q and of the channels: enough tasks for many threads, few enough copies of dw to add up,
    # and im2col rows, DEPTH columns wide, of at most 1 MB.
    copies = max(1, min(16, 2**20 // max(1, dw.size)))
    pieces = max(1, min(copies, places // (2 * DEPTH)))
    wanted = channels if pieces >= 8 else channels * pieces // 16
    some = min(channels, max(1, -(-64 // taps), min(wanted, 1024 // taps)))
    parts = np.empty((pieces, *dw.shape), dw.dtype)
    tasks = pieces * groups * -(-channels // some)
    _backward_filter(tasks, dout, x, (*kernel, *stride, *pad, *dilation), groups, some, parts)
    np.add.reduce(parts, axis=0, out=dw)  # in their order


def _pack_weights(w, groups, group_step, size, step, depth, depth_step):
    panels = np.empty(groups * -(-size // ROWS) * ROWS * depth, w.dtype)
    tasks = groups * -(-size // ROWS) if depth else 0
    pack_panels(tasks, w.reshape(-1), group_step, size, step, depth, depth_step, panels)
    return panels


@parallel
def _forward(task, x, panels, b, add, geometry, filters, channels, width, relu, out):
    """Some columns (n, oh, ow) of one group, for all its filters."""
    panel, taps = tile_columns(x), geometry[0] * geometry[1]
    places = out.shape[0] * out.shape[2] * out.shape[3]
    blocks = -(-places // width)
    group, first = task // blocks, task % blocks * width
    count = min(width, places - first)
    row_panels, column_panels = -(-filters // ROWS), -(-count // panel)
    tiles = np.zeros(row_panels * column_panels * ROWS * panel, x.dtype)
    some = min(channels, max(1, DEPTH // taps))  # whole channels, about DEPTH rows
    cols = np.zeros(column_panels * some * taps * panel, x.dtype)
    runs = find_runs(first, count, out.shape[2], out.shape[3], panel)
    start = group * row_panels * channels * taps * ROWS
    for c in range(0, channels, some):
        here = min(some, channels - c)
        gather(x, group * channels + c, here, geometry, runs, panel, cols)
        a, a_step = start + c * taps * ROWS, channels * taps * ROWS
        multiply_panels(here * taps, panels, a, a_step, row_panels, cols, column_panels, tiles)
    addend, adding, result = add.reshape(-1), add.size > 0, out.reshape(-1)
    for f in range(filters):
        bias = b[group * filters + f]
        for r in range(runs.shape[0]):
            column, length, image, oh, ow = runs[r]
            tile = (f // ROWS * column_panels + column // panel) * ROWS + f % ROWS
            source = tile * panel + column % panel
            place = ((image * out.shape[1] + group * filters + f) * out.shape[2] + oh) * out.shape[3] + ow
            emit_rows(tiles, source, 0, 1, length, bias, relu, addend, adding, result, place, 0)


@parallel
def _backward_input(task, dout, panels, geometry, filters, channels, some, images, dx):
    """The gradient of some channels of one group, in some images."""
    panel, taps = tile_columns(dout), geometry[0] * geometry[1]
    pieces, groups = -(-channels // some), dout.shape[1] // filters
    image, part = task // (groups * pieces) * images, task % (groups * pieces)
    group, c = part // pieces, part % pieces * some
    some, images = min(some, channels - c), min(images, dx.shape[0] - image)
    start = (group * -(-channels * taps // ROWS) * ROWS + c * taps) * filters
    row_panels = -(-some * taps // ROWS)
    dx[image : image + images, group * channels + c : group * channels + c + some] = 0
    width = 4 * panel
    tiles = np.empty(row_panels * width * ROWS, dout.dtype)
    rows = np.zeros(width * min(DEPTH, filters), dout.dtype)
    places = dout.shape[2] * dout.shape[3]
    for q in range(image * places, (image + images) * places, width):
        count = min(width, (image + images) * places - q)
        column_panels = -(-count // panel)
        runs = find_runs(q, count, dout.shape[2], dout.shape[3], panel)
        tiles[:] = 0
        for f in range(0, filters, DEPTH):
            depth = min(DEPTH, filters - f)
            gather(dout, group * filters + f, depth, PIXELS, runs, panel, rows)
            multiply_panels(depth, panels, start + f * ROWS, filters * ROWS, row_panels, rows, column_panels, tiles)
        scatter(tiles, runs, panel, column_panels, geometry, dx, group * channels + c, some)


@parallel
def _backward_filter(task, dout, x, geometry, groups, some, parts):
    """A piece of the sum over columns, for all filters and some channels of one group."""
    pieces, filters, channels, kernel_h, kernel_w = parts.shape
    filters //= groups
    panel, taps, across = tile_columns(x), kernel_h * kernel_w, -(-channels // some)
    piece, rest = task // (groups * across), task % (groups * across)
    group, c = rest // across, rest % across * some
    some = min(some, channels - c)
    depth = some * taps
    row_panels, column_panels = -(-filters // ROWS), -(-depth // panel)
    tiles = np.zeros(row_panels * column_panels * ROWS * panel, x.dtype)
    lines = np.empty(max(filters, depth) * DEPTH, x.dtype)
    a = np.empty(row_panels * DEPTH * ROWS, x.dtype)
    b = np.empty(column_panels * DEPTH * panel, x.dtype)
    places = dout.shape[0] * dout.shape[2] * dout.shape[3]
    chunks = -(-places // DEPTH)
    for chunk in range(piece * chunks // pieces, (piece + 1) * chunks // pieces):
        count = min(DEPTH, places - chunk * DEPTH)
        runs = find_runs(chunk * DEPTH, count, dout.shape[2], dout.shape[3], DEPTH)
        gather(dout, group * filters, filters, PIXELS, runs, DEPTH, lines)
        pack(lines, 0, DEPTH, 1, filters, count, ROWS, a)
        gather(x, group * channels + c, some, geometry, runs, DEPTH, lines)
        pack(lines, 0, DEPTH, 1, depth, count, panel, b)
        multiply_panels(count, a, 0, count * ROWS, row_panels, b, column_panels, tiles)
    for f in range(filters):
        for k in range(depth):
            tile = (f // ROWS * column_panels + k // panel) * ROWS + f % ROWS
            element = parts[piece, group * filters + f, c + k // taps]
            element[k % taps // kernel_w, k % kernel_w] = tiles[tile * panel + k % panel]


# ---- columns and their runs


@jit
def under_tap(tap, oh, ow, length, geometry, height, width):
    """Where the pixels of a run lie under a tap: row ih, column iw of the first, and the part [first, last) inside."""
    _, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w = geometry
    ih = oh * stride_h + tap // kernel_w * dilation_h - pad_h
    iw = ow * stride_w + tap % kernel_w * dilation_w - pad_w
    first, last = inside(iw, stride_w, width, length)
    if first >= last or ih < 0 or ih >= height:
        first = last = 0
    return ih, iw, first, last


@jit
def gather(x, channel0, channels, geometry, runs, panel, cols):
    """The columns of some channels in panels [panel][channel, kh, kw][column], zeros outside the image."""
    height, width = x.shape[2:]
    taps, stride_w, pixels = geometry[0] * geometry[1], geometry[3], x.reshape(-1)
    for tap in range(taps):
        for r in range(runs.shape[0]):
            column, length, image, oh, ow = runs[r]
            ih, iw, first, last = under_tap(tap, oh, ow, length, geometry, height, width)
            place = (column // panel * channels * taps + tap) * panel + column % panel
            source = ((image * x.shape[1] + channel0) * height + ih) * width + iw + first * stride_w
            for _ in range(channels):
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
def scatter(tiles, runs, panel, column_panels, geometry, dx, channel0, channels):
    """Add the rows (channel, kh, kw) of C tiles to the pixels that `gather` would have copied them from."""
    height, width = dx.shape[2:]
    taps, stride_w = geometry[0] * geometry[1], geometry[3]
    for tap in range(taps):
        for r in range(runs.shape[0]):
            column, length, image, oh, ow = runs[r]
            ih, iw, first, last = under_tap(tap, oh, ow, length, geometry, height, width)
            if first == last:
                continue
            for c in range(channels):
                k = c * taps + tap
                tile = (k // ROWS * column_panels + column // panel) * ROWS + k % ROWS
                source = tiles[tile * panel + column % panel + first :][: last - first]
                target = dx[image, channel0 + c, ih, iw + first * stride_w :]
                if stride_w == 1:
                    for i in range(source.size):
                        target[i] += source[i]
                else:
                    for i in range(source.size):
                        target[i * stride_w] += source[i]
