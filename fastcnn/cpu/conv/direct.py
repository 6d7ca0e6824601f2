"""Direct convolution, an implicit matrix product: panels are packed straight from the image, a block at a time.

Source: Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning" (2014), section 3.1, for the product without its
matrix; the blocks are those of `cpu.gemm`.

Per group, with Q output pixels and K pairs of channel and tap:
    forward          out (F, Q) = w (F, K) cols (K, Q)
    input gradient   the same sum the other way round: pixels of dx that are equal modulo the stride see the same taps,
                     so each of these *phases* is a convolution of dout with stride 1
    filter gradient  dw (F, K) = dout (F, Q) cols^T (Q, K), as dot products along Q
All cuts depend on shapes alone: results do not depend on the number of threads.
"""

import numpy as np

from fastcnn.cpu.conv.columns import inside
from fastcnn.cpu.conv.epilogue import Epilogue, emit_rows, finish_moments, gather_moments
from fastcnn.cpu.conv.pixels import find_runs, gather_run, scatter_run
from fastcnn.cpu.dots import A_ROWS, B_ROWS, dot_tile
from fastcnn.cpu.gemm import DEPTH
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.microkernel import ROWS, columns, multiply_tile, tile_columns, tile_lanes

LINE = 1024  # pixels of a line in the filter gradient


def forward(x, w, stride, pad, dilation, groups, end, out):
    """`conv_forward` by this algorithm; writes all of its last argument and returns the moments of its blocks."""
    if w.shape[2:] == (1, 1) and stride == (1, 1) and pad == (0, 0):
        x, out = (a.reshape(*a.shape[:2], 1, a.shape[2] * a.shape[3]) for a in (x, out))  # rows as long as can be
    filters, channels = len(w) // groups, w.shape[1]
    taps = _taps(
        [(k * d - p, k) for k, d, p in _axis(w, dilation, pad, 0)],
        [(k * d - p, k) for k, d, p in _axis(w, dilation, pad, 1)],
        w,
    )
    panels = _pack(w, groups, filters, channels, taps, False)
    return _correlate(x, panels, taps, stride, groups, filters, channels, end, out, (1, 1), (0, 0))


def backward_input(dout, w, stride, pad, dilation, groups, dx):
    """`conv_backward_input` by this algorithm; writes all of its last argument."""
    if w.shape[2:] == (1, 1) and stride == (1, 1) and pad == (0, 0):
        dout, dx = (a.reshape(*a.shape[:2], 1, a.shape[2] * a.shape[3]) for a in (dout, dx))
    channels, filters = w.shape[1], len(w) // groups
    end = Epilogue(np.zeros(groups * channels, w.dtype), np.empty((0, 0, 0, 0), w.dtype))
    for phase_h in range(min(stride[0], dx.shape[2])):
        for phase_w in range(min(stride[1], dx.shape[3])):
            axes = [
                [
                    ((phase + p - k * d) // s, k)
                    for k, d, p in _axis(w, dilation, pad, axis)
                    if (phase + p - k * d) % s == 0
                ]
                for axis, (phase, s) in enumerate(zip((phase_h, phase_w), stride))
            ]
            taps = _taps(*axes, w)
            panels = _pack(w, groups, channels, filters, taps, True)
            _correlate(dout, panels, taps, (1, 1), groups, channels, filters, end, dx, stride, (phase_h, phase_w))


def backward_filter(dout, x, stride, pad, dilation, groups, dw):
    """`conv_backward_filter` by this algorithm; writes all of its last argument."""
    if dw.shape[2:] == (1, 1) and stride == (1, 1) and pad == (0, 0):
        x, dout = (a.reshape(*a.shape[:2], 1, a.shape[2] * a.shape[3]) for a in (x, dout))
    channels = dw.shape[1]
    places = dout.size // max(1, dout.shape[1])
    taps = _taps(
        [(k * d - p, k) for k, d, p in _axis(dw, dilation, pad, 0)],
        [(k * d - p, k) for k, d, p in _axis(dw, dilation, pad, 1)],
        dw,
    )
    pieces = max(1, min(16, 2**20 // max(1, dw.size), places // (2 * LINE)))
    # Channels whose lines fill half of a core's cache; and enough tasks where there are few pieces.
    some = max(1, min(channels, 2**17 // (LINE * len(taps)), -(-channels * pieces // 16)))
    parts = np.empty((pieces, *dw.shape), dw.dtype)
    tasks = pieces * groups * -(-channels // some)
    _backward_filter(tasks, dout, x, taps, *stride, groups, some, parts)
    np.add.reduce(parts, axis=0, out=dw)  # in their order


def _axis(w, dilation, pad, axis):
    """(tap, dilation, padding) along one axis."""
    return [(k, dilation[axis], pad[axis]) for k in range(w.shape[2 + axis])]


def _taps(vertical, horizontal, w):
    """Rows (vertical offset, horizontal offset, number of the tap) for the taps (offset, index) along both axes."""
    taps = [(dh, dw, kh * w.shape[3] + kw) for dh, kh in vertical for dw, kw in horizontal]
    return np.array(taps, np.intp).reshape(-1, 3)


def _pack(w, groups, rows, depth, taps, turned):
    """A panels [group][row panel][k][ROWS] with k = (channel, tap); `turned`: rows are w's second axis."""
    row_panels = -(-rows // ROWS)
    panels = np.empty(groups * row_panels * depth * len(taps) * ROWS, w.dtype)
    if panels.size:
        flat = w.reshape(groups, -1, w.shape[1], w.shape[2] * w.shape[3])
        _pack_panels(groups * row_panels, flat, rows, depth, np.ascontiguousarray(taps[:, 2]), turned, panels)
    return panels


@parallel
def _pack_panels(task, w, rows, depth, taps, turned, panels):
    row_panels = -(-rows // ROWS)
    group, first = task // row_panels, task % row_panels * ROWS
    place = task * depth * taps.size * ROWS
    for k in range(depth):
        for tap in taps:
            for i in range(ROWS):
                row = first + i
                if row < rows:
                    panels[place + i] = w[group, k, row, tap] if turned else w[group, row, k, tap]
                else:
                    panels[place + i] = 0
            place += ROWS


def _correlate(x, panels, taps, stride, groups, filters, channels, end, out, out_stride, out_first):
    """out[:, :, a::s, b::s] = the correlation of x with packed filters, (a, b) = out_first, s = out_stride."""
    grid = [-(-(size - first) // step) for size, first, step in zip(out.shape[2:], out_first, out_stride)]
    places = out.shape[0] * grid[0] * grid[1]
    # Wide enough to use packed weights well, narrow enough for some sixteen tasks.
    unit = columns(x.dtype)
    width = unit * min(4, max(1, places * groups // (16 * unit)))
    blocks = -(-places // width)
    moments = end.buffer(blocks, len(end.bias))
    _correlate_block(
        blocks * groups, x, panels, taps, *stride, groups, filters, channels, *grid, width, end.bias, end.add,
        end.relu, out, *out_stride, *out_first, moments,
    )  # fmt: skip
    return moments


@jit
def gather_taps(x, channel0, channels, taps, stride_h, stride_w, runs, panel, width, cols):
    """The columns of some channels in panels [panel][channel, tap][column], zeros outside the image.

    Panels are `panel` columns wide, the last one of `width` columns narrower: whole vectors.
    """
    in_all, height, in_width = x.shape[1:]
    pixels, step = x.reshape(-1), taps.shape[0]
    for r in range(runs.shape[0]):
        column, length, image, oh, ow = runs[r]
        begin = column // panel * panel
        here = min(panel, width - begin)
        # The last run of a panel fills it up with zeros.
        count = here - (column - begin) if r + 1 == runs.shape[0] else length
        for t in range(step):
            ih, iw = oh * stride_h + taps[t, 0], ow * stride_w + taps[t, 1]
            first, last = inside(iw, stride_w, in_width, length)
            if ih < 0 or ih >= height:
                first = last = 0
            source = ((image * in_all + channel0) * height + ih) * in_width + iw
            place = begin * channels * step + t * here + column - begin
            gather_run(
                pixels, source, height * in_width, channels, stride_w, first, last, count, cols, place, step * here
            )


@parallel
def _correlate_block(
    task, x, panels, taps, stride_h, stride_w, groups, filters, channels, grid_h, grid_w, width, bias, add, relu, out,
    out_stride_h, out_stride_w, first_h, first_w, moments,
):  # fmt: skip
    """A block of output pixels of one group, for all its filters."""
    panel, unit, step = tile_columns(x), tile_lanes(x), taps.shape[0]
    places = out.shape[0] * grid_h * grid_w
    blocks = -(-places // width)
    group, first = task // blocks, task % blocks * width
    count = min(width, places - first)
    wide, row_panels = -(-count // unit) * unit, -(-filters // ROWS)
    tiles = np.empty(row_panels * ROWS * wide, x.dtype)
    some = min(channels, max(1, DEPTH // max(1, step)))  # whole channels, about DEPTH rows
    cols = np.empty(some * step * wide, x.dtype)
    runs = find_runs(first, count, grid_h, grid_w, panel)
    if channels * step == 0:
        tiles[:] = 0
    for c in range(0, channels if step else 0, some):
        here = min(some, channels - c)
        gather_taps(x, group * channels + c, here, taps, stride_h, stride_w, runs, panel, wide, cols)
        for i in range(row_panels):
            a = ((group * row_panels + i) * channels + c) * step * ROWS
            for j in range(0, wide, panel):
                vectors, place = min(panel, wide - j) // unit, (i * wide + j) * ROWS
                multiply_tile(here * step, panels, a, cols, j * here * step, tiles, place, vectors, c == 0)
    flat, addend, adding = out.reshape(-1), add.reshape(-1), add.size > 0
    pivot = type(bias[0])(0)
    for i in range(filters):
        f = group * filters + i
        for r in range(runs.shape[0]):
            column, length, image, oh, ow = runs[r]
            begin = column // panel * panel
            source = (i // ROWS * wide + begin) * ROWS + i % ROWS * min(panel, wide - begin) + column - begin
            row = (image * out.shape[1] + f) * out.shape[2] + oh * out_stride_h + first_h
            place = row * out.shape[3] + ow * out_stride_w + first_w
            if out_stride_w == 1:
                emit_rows(tiles, source, 0, 1, length, bias[f], relu, addend, adding, flat, place, 0)
            else:  # an input gradient: no epilogue
                scatter_run(tiles, source, length, flat, place, out_stride_w)
            if moments.size:
                pivot = flat[place] if r == 0 else pivot
                gather_moments(flat[place : place + length], pivot, moments[task % blocks, f])
        if moments.size:
            finish_moments(pivot, moments[task % blocks, f])


@parallel
def _backward_filter(task, dout, x, taps, stride_h, stride_w, groups, some, parts):
    """A piece of the sum over pixels, for all filters and some channels of one group."""
    pieces, filters, channels, _, kernel_w = parts.shape
    filters //= groups
    step, across = taps.shape[0], -(-channels // some)
    piece, rest = task // (groups * across), task % (groups * across)
    group, c = rest // across, rest % across * some
    some = min(some, channels - c)
    high, deep = -(-filters // A_ROWS) * A_ROWS, -(-some * step // B_ROWS) * B_ROWS
    sums = np.zeros(high * deep, x.dtype)
    a, b = np.zeros(high * LINE, x.dtype), np.zeros(deep * LINE, x.dtype)
    places = dout.shape[0] * dout.shape[2] * dout.shape[3]
    lines = -(-places // LINE)
    dots = np.zeros((1, 3), np.intp)
    for line in range(piece * lines // pieces, (piece + 1) * lines // pieces):
        count = min(LINE, places - line * LINE)
        runs = find_runs(line * LINE, count, dout.shape[2], dout.shape[3], LINE)
        vectors = -(-count // tile_lanes(x))
        length = vectors * tile_lanes(x)
        gather_taps(dout, group * filters, filters, dots, 1, 1, runs, LINE, length, a)
        gather_taps(x, group * channels + c, some, taps, stride_h, stride_w, runs, LINE, length, b)
        for k in range(0, deep, B_ROWS):
            for f in range(0, high, A_ROWS):
                dot_tile(vectors, a, f * length, length, b, k * length, length, sums, f * deep + k, deep)
    for f in range(filters):
        for k in range(some * step):
            tap = taps[k % step, 2]
            parts[piece, group * filters + f, c + k // step, tap // kernel_w, tap % kernel_w] = sums[f * deep + k]
