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
from fastcnn.cpu.conv.pixels import find_runs, gather_run, scatter_run, spread_run
from fastcnn.cpu.dots import A_ROWS, B_ROWS, dot_tile
from fastcnn.cpu.gemm import DEPTH, pack
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.microkernel import ROWS, columns, multiply_rows, tile_columns, tile_lanes
from fastcnn.cpu.moves import prefetch, prefetch_to_write
from fastcnn.cpu.vectors import scratch

ALONE = 2**14  # numbers in w up to which waking other threads takes longer than packing them
STRIPE = 4  # panels of pixels whose products are in L1 until they are finished
LINE = 1024  # pixels of a line in the filter gradient
AT_ONCE = 64 // A_ROWS * A_ROWS  # filters whose lines are in cache with those of the channels


def forward(x, w, stride, pad, dilation, groups, end, out):
    """`conv_forward` by this algorithm; writes all of its last argument and returns the moments of its blocks."""
    if _is_product(w.shape, stride, pad):
        x, out = _in_one_row(x), _in_one_row(out)
    phases = [(0, 0, _taps(w.shape, stride, pad, dilation))]
    return _correlate(x, w, stride, groups, False, phases, (1, 1), False, end, out)


def backward_input(dout, w, stride, pad, dilation, groups, dx):
    """`conv_backward_input` by this algorithm; writes all of its last argument."""
    if _is_product(w.shape, stride, pad):
        dout, dx = _in_one_row(dout), _in_one_row(dx)
    end = Epilogue(np.zeros(dx.shape[1], w.dtype), np.empty((0, 0, 0, 0), w.dtype))
    phases = [
        (phase_h, phase_w, _taps_of_phase(w.shape, stride, pad, dilation, (phase_h, phase_w)))
        for phase_h in range(min(stride[0], dx.shape[2]))
        for phase_w in range(min(stride[1], dx.shape[3]))
    ]
    seen = [phase for phase in phases if len(phase[2])]
    only = len(phases) > 1 and [phase[:2] for phase in seen] == [(0, 0)]
    if len(seen) < len(phases) and not only:
        _clear(len(dx), dx)
    _correlate(dout, w, (1, 1), groups, True, seen, stride, only, end, dx)


def backward_filter(dout, x, stride, pad, dilation, groups, dw):
    """`conv_backward_filter` by this algorithm; writes all of its last argument."""
    if _is_product(dw.shape, stride, pad):
        x, dout = _in_one_row(x), _in_one_row(dout)
    channels, places = dw.shape[1], dout.size // max(1, dout.shape[1])
    taps = _taps(dw.shape, stride, pad, dilation)
    pieces = max(1, min(16, 2**20 // max(1, dw.size), places // (2 * LINE)))
    # Channels whose lines fill half of a core's cache; and enough tasks where there are few pieces.
    some, filters = max(1, min(channels, 2**17 // (LINE * max(1, len(taps))))), len(dw) // groups
    tasks = pieces * groups * -(-channels // some)
    block = -(-filters // max(1, min(-(-16 // max(1, tasks)), filters // (2 * AT_ONCE))))
    block = -(-block // A_ROWS) * A_ROWS
    parts = np.empty((pieces, *dw.shape), dw.dtype) if pieces > 1 else dw[np.newaxis]
    tasks *= -(-filters // max(1, block))
    _backward_filter(tasks, _in_one_row(dout), *dout.shape[2:], x, taps, *stride, groups, some, block, parts)
    if pieces > 1:
        np.add.reduce(parts, axis=0, out=dw)  # in their order


@parallel
def _clear(image, x):
    x[image] = 0


def _is_product(w_shape, stride, pad):
    """Whether each output pixel sees one pixel, at its own place."""
    return w_shape[2:] == (1, 1) and stride == (1, 1) and pad == (0, 0)


def _in_one_row(images):
    """Images whose rows are joined: runs of pixels can then be long."""
    n, c, h, w = images.shape
    return images.reshape(n, c, 1, h * w)


def _taps(w_shape, stride, pad, dilation):
    """Rows (vertical offset, horizontal offset, number): the pixel that a tap sees, from stride times output pixel."""
    axes = [[(k * d - p, k) for k in range(size)] for size, d, p in zip(w_shape[2:], dilation, pad)]
    return _product(axes, w_shape)


def _taps_of_phase(w_shape, stride, pad, dilation, phase):
    """The pixels of dout that pixel `stride i + phase` of dx went to, from pixel i."""
    axes = [
        [((first + p - k * d) // s, k) for k in range(size) if (first + p - k * d) % s == 0]
        for size, s, p, d, first in zip(w_shape[2:], stride, pad, dilation, phase)
    ]
    return _product(axes, w_shape)


def _product(axes, w_shape):
    vertical, horizontal = axes
    taps = [(dh, dw, kh * w_shape[3] + kw) for dh, kh in vertical for dw, kw in horizontal]
    return np.array(taps, np.intp).reshape(-1, 3)


def _correlate(x, w, stride, groups, turned, phases, out_stride, only, end, out):
    """out[:, :, a::s, b::s] = the correlation of x with the taps of a phase, for all `phases` (a, b, taps).

    s is `out_stride`; with `turned`, the filters are w's second axis; with `only`, there is but phase 0, 0, and other
    pixels become zeros.
    """
    rows, depth = (w.shape[1], len(w) // groups) if turned else (len(w) // groups, w.shape[1])
    taps = np.concatenate([taps for _, _, taps in phases]) if phases else np.empty((0, 3), np.intp)
    panels = np.empty(groups * -(-rows // ROWS) * ROWS * depth * len(taps), w.dtype)
    table, first = np.empty((len(phases), 4), np.intp), 0
    for table_row, (a, b, its) in zip(table, phases):
        table_row[:] = a, b, first, first + len(its)
        first += len(its)
    if panels.size:
        flat = w.reshape(groups, -1, w.shape[1], w.shape[2] * w.shape[3])
        kernel = _pack_panels if panels.size > ALONE else _pack_panels.alone
        kernel(groups * -(-rows // ROWS), flat, rows, depth, taps, table, turned, panels)
    grid = [-(-size // step) for size, step in zip(out.shape[2:], out_stride)]
    places = out.shape[0] * grid[0] * grid[1]
    # Wide enough to use packed weights well and to write long rows, narrow enough for cache and for some sixteen tasks.
    unit, stripe = columns(x.dtype), STRIPE * columns(x.dtype)
    deep = min(DEPTH, depth * max((len(its) for _, _, its in phases), default=1))
    most = STRIPE * max(1, min(8, DEPTH // max(1, deep)))
    width = unit * min(most, max(1, places * groups // (16 * unit)))
    blocks = -(-places // width)
    several = max(1, min(8, blocks * groups // 32))
    moments = end.buffer(blocks, len(end.bias))
    _correlate_blocks(
        -(-blocks // several) * groups, x, panels, taps, table, *stride, groups, rows, depth, *grid, width,
        min(width, stripe), several, end.bias, end.add, end.relu, out, *out_stride, only, moments,
    )  # fmt: skip
    return moments


@parallel
def _pack_panels(task, w, rows, depth, taps, phases, turned, panels):
    """A panels [phase][group][row panel][k][ROWS] with k = (channel, tap), one row panel of a group."""
    row_panels = -(-rows // ROWS)
    group, first = task // row_panels, task % row_panels * ROWS
    here, all_taps = min(ROWS, rows - first), w.shape[3]
    groups, flat, length = w.shape[0], w.reshape(-1), depth * w.shape[3]
    for phase in range(phases.shape[0]):
        _, _, tap_first, tap_last = phases[phase]
        count = tap_last - tap_first
        place = (tap_first * groups * row_panels + task * count) * depth * ROWS
        if not turned:
            start, target = (group * rows + first) * length, panels[place : place + length * ROWS]
            pack(flat, start, length, 1, here, length, ROWS, target)
            continue
        if all_taps == 1:
            target = panels[place : place + depth * ROWS]
            pack(flat, group * depth * rows + first, 1, rows, here, depth, ROWS, target)
            continue
        for k in range(depth):
            start = ((group * depth + k) * rows + first) * all_taps
            for tap in taps[tap_first:tap_last, 2]:
                for i in range(here):
                    panels[place + i] = flat[start + i * all_taps + tap]
                for i in range(here, ROWS):
                    panels[place + i] = 0
                place += ROWS


@jit
def find_views(x, taps, stride_h, stride_w, runs):
    """What each tap sees of each run, [run][tap]: rows (first pixel in channel 0, first, last column inside)."""
    channels, height, width = x.shape[1:]
    step = taps.shape[0]
    views = np.empty((runs.shape[0] * step, 3), np.intp)
    for r in range(runs.shape[0]):
        length, image, oh, ow = runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        for t in range(step):
            ih, iw = oh * stride_h + taps[t, 0], ow * stride_w + taps[t, 1]
            first, last = inside(iw, stride_w, width, length)
            if ih < 0 or ih >= height:
                first = last = 0
            view = r * step + t
            views[view, 0] = (image * channels * height + ih) * width + iw
            views[view, 1], views[view, 2] = first, last
    return views


@jit
def gather_taps(x, channel0, channels, step, stride_w, runs, views, panel, width, cols):
    """The columns of some channels in panels [panel][channel, tap][column], zeros outside the image.

    Panels are `panel` columns wide, the last one of `width` columns narrower: whole vectors. `step` is the number of
    taps.
    """
    pixels, plane = x.reshape(-1), x.shape[2] * x.shape[3]
    few = max(1, channels if step == 1 else min(channels, 4))  # of whose rows all taps are taken while these are in L1
    for r in range(runs.shape[0]):
        column, count = runs[r, 0], runs[r, 1]
        begin = column // panel * panel
        here = min(panel, width - begin)
        if r + 1 == runs.shape[0]:
            count = here - (column - begin)  # fills the last panel up with zeros
        start = begin * channels * step + column - begin
        for c in range(0, channels, few):
            many = min(few, channels - c)
            for t in range(step):
                offset, first, last = views[r * step + t, 0], views[r * step + t, 1], views[r * step + t, 2]
                source, place = offset + (channel0 + c) * plane, start + (c * step + t) * here
                gather_run(pixels, source, plane, many, stride_w, first, last, count, cols, place, step * here)


@jit
def fetch_ahead(x, channel0, channels, taps, stride_h, stride_w, runs):
    """Start loading the pixels that `gather_taps` will read: they lie too far apart for the CPU to foresee."""
    in_all, height, width = x.shape[1:]
    pixels, last = x.reshape(-1), taps.shape[0] - 1
    for r in range(runs.shape[0]):
        length, image, oh, ow = runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        top, left = oh * stride_h + taps[0, 0], ow * stride_w + taps[0, 1]
        bottom, right = oh * stride_h + taps[last, 0], (ow + length - 1) * stride_w + taps[last, 1]
        if r and runs[r - 1, 2] == image and runs[r - 1, 3] < oh:  # rows that the run before has seen
            top = max(top, (oh - 1) * stride_h + taps[last, 0] + 1)
        for c in range(channel0, channel0 + channels):
            for ih in range(max(top, 0), min(bottom + 1, height)):
                prefetch(pixels, ((image * in_all + c) * height + ih) * width + left, right - left + 1)


@parallel
def _correlate_blocks(
    task, x, panels, taps, phases, stride_h, stride_w, groups, filters, channels, grid_h, grid_w, width, stripe,
    several, bias, add, relu, out, out_stride_h, out_stride_w, only, moments,
):  # fmt: skip
    """Several blocks of `width` output pixels of one group, for all its filters, phase by phase."""
    panel, unit = tile_columns(x), tile_lanes(x)
    places = out.shape[0] * grid_h * grid_w
    blocks, row_panels = -(-places // width), -(-filters // ROWS)
    tasks = -(-blocks // several)
    group, first_block = task // tasks, task % tasks * several
    last_block = min(blocks, first_block + several)
    rows_at_once = most_rows(channels, phases)
    kept = row_panels * ROWS * width if sums_are_kept(channels, phases) else ROWS * stripe
    tiles, cols = scratch(kept, x), scratch(rows_at_once * width, x)
    following = find_runs(first_block * width, min(width, places - first_block * width), grid_h, grid_w, panel)
    for block in range(first_block, last_block):
        runs, first = following, (block + 1) * width
        if block + 1 < last_block:
            following = find_runs(first, min(width, places - first), grid_h, grid_w, panel)
        columns_here = min(width, places - block * width)
        wide = -(-columns_here // unit) * unit
        for phase in range(phases.shape[0]):
            first_h, first_w, tap_first, tap_last = phases[phase]
            its = taps[tap_first:tap_last]
            step, views = its.shape[0], find_views(x, its, stride_h, stride_w, runs)
            patches = find_patches(
                block * width, columns_here, grid_h, grid_w, out, out_stride_h, out_stride_w, first_h, first_w, stripe,
                only,
            )  # fmt: skip
            start = (tap_first * groups + group * step) * row_panels * channels * ROWS
            some = channels_at_once(channels, step)
            for c in range(0, max(1, channels), max(1, some)):
                here, ahead = min(some, channels - c), c + some
                gather_taps(x, group * channels + c, here, step, stride_w, runs, views, panel, wide, cols)
                for i in range(row_panels):
                    # While this is computed, a part of what will be needed next is loaded.
                    low, high = i * some // row_panels, (i + 1) * some // row_panels
                    if ahead < channels:
                        low, high = ahead + low, min(ahead + high, channels)
                        fetch_ahead(x, group * channels + low, high - low, its, stride_h, stride_w, runs)
                    elif block + 1 < last_block and phase + 1 == phases.shape[0]:
                        fetch_ahead(x, group * channels + low, high - low, its, stride_h, stride_w, following)
                    filter0, rows = group * filters + i * ROWS, min(ROWS, filters - i * ROWS)
                    a, patch = start + (i * channels + c) * step * ROWS, 0
                    for j0 in range(0, wide, stripe):
                        tile, long = (i * wide + j0) * ROWS if kept > ROWS * stripe else 0, min(stripe, wide - j0)
                        patch_last = patch
                        if ahead >= channels:
                            while patch_last < patches.shape[0] and patches[patch_last, 0] < j0 + stripe:
                                patch_last += 1
                            fetch_patches(patches, patch, patch_last, filter0, rows, out)
                        for j in range(0, long, panel):
                            vectors, b = min(panel, long - j) // unit, (j0 + j) * here * step
                            multiply_rows(here * step, panels, a, cols, b, tiles, tile + j, long, vectors, c == 0)
                        finish_rows(
                            tiles, tile - j0, long, patches, patch, patch_last, filter0, rows, bias, add, relu, out,
                            out_stride_w, only,
                        )  # fmt: skip
                        patch = patch_last
                    if moments.size and ahead >= channels:
                        gather_rows(out, patches, filter0, rows, moments[block])


@jit
def channels_at_once(channels, taps):
    """Whole channels, about DEPTH rows of columns."""
    return min(channels, max(1, DEPTH // max(1, taps)))


@jit
def most_rows(channels, phases):
    """Rows of columns at once, in the phase that has most."""
    most = 0
    for phase in range(phases.shape[0]):
        taps = phases[phase, 3] - phases[phase, 2]
        most = max(most, channels_at_once(channels, taps) * taps)
    return most


@jit
def sums_are_kept(channels, phases):
    """Whether there is a phase whose channels are not summed at once."""
    for phase in range(phases.shape[0]):
        if channels_at_once(channels, phases[phase, 3] - phases[phase, 2]) < channels:
            return True
    return False


@jit
def find_patches(first, count, grid_h, grid_w, out, stride_h, stride_w, first_h, first_w, stripe, only):
    """Where columns first .. first + count go.

    Rows (first column, place in the plane of filter 0, columns, pixels that are written in a row, rows of pixels). None
    extends over more than one stripe.
    """
    filters, height, width = out.shape[1:]
    if stride_h == 1 and stride_w == 1:  # pixels of an image go next to each other
        runs = find_runs(first, count, 1, grid_h * grid_w, stripe)
    else:
        runs = find_runs(first, count, grid_h, grid_w, stripe)
    patches = np.empty((runs.shape[0], 5), np.intp)
    for r in range(runs.shape[0]):
        length, image, oh, ow = runs[r, 1], runs[r, 2], runs[r, 3], runs[r, 4]
        row, left = oh * stride_h + first_h, ow * stride_w + first_w
        patches[r, 0], patches[r, 1] = runs[r, 0], (image * filters * height + row) * width + left
        patches[r, 2] = patches[r, 3] = length
        patches[r, 4] = 1
        if stride_h > 1 or stride_w > 1:
            # The last phases of an input gradient may have fewer pixels than the grid.
            here = min(length, max(0, -(-(width - left) // stride_w))) if row < height else 0
            patches[r, 2], patches[r, 3] = here, max(0, (here - 1) * stride_w + 1)
        if only:
            rows = min(stride_h, height - row)
            whole = length == grid_w
            patches[r, 3] = rows * width if whole else min(length * stride_w, width - left)
            patches[r, 4] = 1 if whole else rows
    return patches


@jit(inline=True)
def fetch_patches(patches, first, last, filter0, filters, out):
    """Start loading the memory that outputs of some filters will go to, patches `first` to `last`."""
    flat, plane = out.reshape(-1), out.shape[2] * out.shape[3]
    for f in range(filter0, filter0 + filters):
        for r in range(first, last):
            prefetch_to_write(flat, patches[r, 1] + f * plane, patches[r, 3])


@jit(inline=True)
def finish_rows(tiles, start, step, patches, first, last, filter0, filters, bias, add, relu, out, stride_w, only):
    """Outputs of some filters, patches `first` to `last`, from rows of sums: `step` apart, column 0 at `start`.

    Bias, addend and ReLU only where pixels are not apart.
    """
    flat, addend, adding, plane = out.reshape(-1), add.reshape(-1), add.size > 0, out.shape[2] * out.shape[3]
    for i in range(filters):
        f, row = filter0 + i, start + i * step
        for r in range(first, last):
            source, place, length = row + patches[r, 0], patches[r, 1] + f * plane, patches[r, 2]
            if only:
                for below in range(patches[r, 4]):
                    here = length if below == 0 else 0
                    spread_run(tiles, source, here, flat, place + below * out.shape[3], stride_w, patches[r, 3])
            elif stride_w == 1:
                emit_rows(tiles, source, 0, 1, length, bias[f], relu, addend, adding, flat, place, 0)
            else:  # an input gradient: no epilogue
                scatter_run(tiles, source, length, flat, place, stride_w)


@jit
def gather_rows(out, patches, filter0, filters, moments):
    """The moments of some filters' outputs, (F, 3), in the patches."""
    flat, plane = out.reshape(-1), out.shape[2] * out.shape[3]
    for f in range(filter0, filter0 + filters):
        pivot = flat[patches[0, 1] + f * plane]
        for r in range(patches.shape[0]):
            place = patches[r, 1] + f * plane
            gather_moments(flat[place : place + patches[r, 2]], pivot, moments[f])
        finish_moments(pivot, moments[f])


@parallel
def _backward_filter(task, dout, out_h, out_w, x, taps, stride_h, stride_w, groups, some, block, parts):
    """A piece of the sum over pixels, for some filters and some channels of one group; the rows of dout are joined."""
    pieces, filters, channels, kernel_h, kernel_w = parts.shape
    filters //= groups
    step, across, down = taps.shape[0], -(-channels // some), -(-filters // block)
    piece, rest = task // (groups * across * down), task % (groups * across * down)
    group, c, f0 = rest // (across * down), rest // down % across * some, rest % down * block
    some, block = min(some, channels - c), min(block, filters - f0)
    channel0, filter0 = group * channels + c, group * filters + f0
    unit, deep = tile_lanes(x), -(-some * step // B_ROWS) * B_ROWS
    high = -(-block // A_ROWS) * A_ROWS
    size = -(-A_ROWS * B_ROWS // unit) * unit
    tiles = high // A_ROWS * (deep // B_ROWS)
    sums = np.zeros(tiles * size, x.dtype)
    a, b = scratch(min(high, AT_ONCE) * (LINE + unit), x), scratch(deep * (LINE + unit), x)
    places = dout.shape[0] * out_h * out_w
    lines = -(-places // LINE)
    dots = np.zeros((1, 3), np.intp)
    first_line, last_line = piece * lines // pieces, (piece + 1) * lines // pieces
    following_x = find_runs(first_line * LINE, min(LINE, places - first_line * LINE), out_h, out_w, LINE)
    following = find_runs(first_line * LINE, min(LINE, places - first_line * LINE), 1, out_h * out_w, LINE)
    for line in range(first_line, last_line):
        runs_x, runs, count = following_x, following, min(LINE, places - line * LINE)
        ahead = (line + 1) * LINE
        if line + 1 < last_line:
            following_x = find_runs(ahead, min(LINE, places - ahead), out_h, out_w, LINE)
            following = find_runs(ahead, min(LINE, places - ahead), 1, out_h * out_w, LINE)
        vectors = -(-count // unit)
        length = (vectors + 1) * unit  # one more than needed: lines of 4 KB would all share the same sets of the cache
        views = find_views(x, taps, stride_h, stride_w, runs_x)
        gather_taps(x, channel0, some, step, stride_w, runs_x, views, LINE + unit, length, b)
        views = find_views(dout, dots, 1, 1, runs)
        tile, fetched = 0, 0
        for first in range(0, block, AT_ONCE):
            here = min(AT_ONCE, block - first)
            gather_taps(dout, filter0 + first, here, 1, 1, runs, views, LINE + unit, length, a)
            for k in range(0, deep, B_ROWS):
                for f in range(0, here, A_ROWS):
                    dot_tile(vectors, a, f * length, length, b, k * length, length, sums, tile * size)
                    tile += 1
                    while line + 1 < last_line and fetched < tile * (some + block) // tiles:
                        if fetched < some:
                            fetch_ahead(x, channel0 + fetched, 1, taps, stride_h, stride_w, following_x)
                        else:
                            fetch_ahead(dout, filter0 + fetched - some, 1, dots, 1, 1, following)
                        fetched += 1
    flat, tile, all_taps = parts.reshape(pieces, parts.shape[1], -1), 0, kernel_h * kernel_w
    for first in range(0, block, AT_ONCE):
        here = min(AT_ONCE, block - first)
        for k in range(0, deep, B_ROWS):
            for f in range(first, first + here, A_ROWS):
                for i in range(min(A_ROWS, block - f)):
                    for j in range(min(B_ROWS, some * step - k)):
                        flat[piece, filter0 + f + i, c * all_taps + k + j] = sums[tile * size + i * B_ROWS + j]
                tile += 1
