"""Convolution with filters of 3 x 3 or 5 x 5 pixels by Winograd's minimal filtering, F(m x m, taps x taps).

Source: Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), algorithm 1.

With m x m outputs to a tile, n = m + taps - 1, per tile, filter f and channel c (all sizes n x n unless said):
    forward          out (m, m) = A^T [sum_c U_fc * V_c] A,    U = G w G^T,  V = B^T d B,  d the tile's input
    input gradient   the same with dout for x and turned, transposed filters
    filter gradient  dw = A'^T [sum_tiles W_f * V_c] A',  W = G' dout G'^T, from the points of F(taps, m)
so each of the n^2 elements is a matrix product. Tiles are taken in blocks across images; a block's V, of all channels,
stays in cache while the filters pass by. No workspace grows with the batch.

With a stride of 2 the matrices are others, and rectangular (`points.filterings`): n = 2 m + 1, and where the even and
the odd places of a tile contribute to the same output, their products are added up before A^T. The loops are the same.
"""

from types import SimpleNamespace

import numpy as np

from fastcnn.cpu.conv.epilogue import Epilogue, emit_rows, finish_moments, gather_moments
from fastcnn.cpu.conv.lanes import (
    SLACK,
    make_lanes_in,
    make_planes_in,
    make_planes_out,
    make_rows_in,
    make_tiles_out,
)
from fastcnn.cpu.conv.pixels import find_runs
from fastcnn.cpu.conv.points import filterings
from fastcnn.cpu.gemm import DEPTH
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.microkernel import ROWS, VECTORS, columns, lanes, multiply_tile, tile_columns, tile_lanes
from fastcnn.cpu.vectors import scratch

GROUP = 4  # row panels of filters that are multiplied before their outputs are finished
SHARED = 2**22  # bytes of U up to which it is made once for all; above, each group of filters makes its own
ALONE = 2**14  # numbers in w up to which waking other threads takes longer than making U
CHANNELS = 32  # that a task transforms, where V is shared
CHUNK = 2**24  # bytes of V at a time, where V is what groups of filters share


class Winograd:
    """The three passes with output tiles of m x m and filters of `taps` x `taps`, with one stride along both axes."""

    def __init__(self, m, taps, stride=1):
        forward, backward_input, backward_filter = filterings(m, taps, stride)
        name = f"f{m}x{taps}" + f"s{stride}" * (stride > 1)
        self.taps, self.stride = taps, stride
        self.outputs = _Correlation(forward, taps, name)
        shared = backward_input is forward
        self.pixels = self.outputs if shared else _Correlation(backward_input, taps, f"{name}_pixels")
        self.filters = _FilterGradient(backward_filter, name)

    def forward(self, x, w, stride, pad, dilation, groups, end, out):
        """`conv_forward` by this algorithm; writes all of its last argument and returns the moments of its blocks."""
        return self.outputs.correlate(x, w, len(w), w.shape[1], False, pad, (0, 0), end, out)

    def backward_input(self, dout, w, stride, pad, dilation, groups, dx):
        """`conv_backward_input` by this algorithm; writes all of its last argument."""
        end = Epilogue(np.zeros(w.shape[1], w.dtype), np.empty((0, 0, 0, 0), dx.dtype))
        rest = [self.taps - 1 - p for p in pad]
        lead = [(r + 1) % self.stride for r in rest]  # pixels before the image: tiles begin with the middle tap
        self.pixels.correlate(dout, w, w.shape[1], len(w), True, [r // self.stride for r in rest], lead, end, dx)

    def backward_filter(self, dout, x, stride, pad, dilation, groups, dw):
        """`conv_backward_filter` by this algorithm; writes all of its last argument."""
        self.filters.sum(dout, x, pad, dw)


class _Correlation:
    """Sums over channels: outputs, and pixels of an input gradient."""

    def __init__(self, filtering, taps, name):
        self.kernels = _correlation_kernels(*filtering, taps, name)
        self.outputs, self.taps, self.products = len(filtering.a), taps, len(filtering.b) ** 2

    def correlate(self, x, w, filters, channels, turned, pad, lead, end, out):
        """Writes `out`; with `turned`, the filters are w's second axis and their taps in reverse order.

        Tiles of the output begin `lead` pixels, those of the data `pad` pixels before the image.
        """
        size, unit = self.taps * self.taps, max(ROWS, lanes(w.dtype))
        vectors = -(-_count_tiles(out, self.outputs, *lead) // lanes(x.dtype))
        blocks = -(-vectors // VECTORS)
        block = -(-vectors // max(blocks, 1)) * lanes(x.dtype)  # evenly: 64 tiles as 32 + 32, not 48 + 16
        moments = end.buffer(blocks, filters)
        steps = (size, filters * size) if turned else (channels * size, size)
        given, ends = (w.reshape(-1), *steps, filters, channels, turned), (end.bias, end.add, end.relu, out, moments)
        u_size = self.products * _up(filters, unit) * channels
        if u_size * w.itemsize <= SHARED:
            u = np.empty(u_size, w.dtype)
            make = self.kernels.filters if w.size > ALONE else self.kernels.filters.alone
            make(_up(filters, unit) // lanes(w.dtype), *given, u)
            self.kernels.tiles(blocks, block, x, u, *pad, *lead, GROUP, *ends)
        elif blocks:
            v_size = self.products * (channels * block + lanes(w.dtype))
            some = max(1, min(blocks, CHUNK // (v_size * w.itemsize)))
            v, pieces = np.empty((some, v_size), w.dtype), -(-channels // CHANNELS)
            for first in range(0, blocks, some):
                here = min(some, blocks - first)
                self.kernels.inputs(here * pieces, first, block, x, *pad, *lead, CHANNELS, out, v)
                self.kernels.groups(-(-filters // (GROUP * ROWS)), first, here, block, *given, v, *lead, GROUP, *ends)
        return moments


class _FilterGradient:
    """Sums over tiles."""

    def __init__(self, filtering, name):
        self.kernels = _filter_gradient_kernels(*filtering, name)
        self.products, self.sums = len(filtering.b) ** 2, filtering.a.shape[1] ** 2
        self.tile = filtering.g.shape[1]  # of dout

    def sum(self, dout, x, pad, dw):
        """Writes dw."""
        filters, channels = dw.shape[:2]
        tiles, unit = _count_tiles(dout, self.tile, 0, 0), lanes(x.dtype)
        wide, high = _up(channels, unit), _up(filters, max(ROWS, unit))
        if not tiles:
            dw[...] = 0
        elif self.sums * wide * high * x.itemsize <= SHARED:
            self._sum_pieces(dout, x, pad, tiles, dw)
        else:
            self._sum_together(dout, x, pad, tiles, wide, high, dw)

    def _sum_pieces(self, dout, x, pad, tiles, dw):
        """Where the sums stay in a core's cache: each piece of the tiles has its own."""
        pieces = next(pieces for pieces in (16, 8, 4, 2, 1) if tiles >= 32 * pieces or pieces == 1)
        block = -(-tiles // pieces)
        block = -(-block // -(-block // (2 * columns(x.dtype))))  # evenly, of two panels at most
        parts = np.empty((pieces, *dw.shape), dw.dtype)
        self.kernels.pieces(pieces, dout, x, *pad, block, parts)
        np.add.reduce(parts, axis=0, out=dw)  # in their order

    def _sum_together(self, dout, x, pad, tiles, wide, high, dw):
        """Of many channels: V and W are shared by all filters, which each have one sum."""
        unit, group = lanes(x.dtype), GROUP * ROWS
        groups = -(-len(dw) // group)
        # As many tiles at a time as keep the traffic of the sums below that of V and W.
        block = max(CHUNK // (self.products * x.itemsize * (wide + high)), wide * high // (wide + high))
        blocks = -(-tiles // min(tiles, block))
        block = -(-tiles // blocks)
        v = np.empty(self.products * (wide * block + unit), x.dtype)
        w = np.empty(self.products * (high * block + unit), x.dtype)
        sums = np.empty((groups, self.sums * (wide * group + unit) if blocks > 1 else 0), x.dtype)
        for i in range(blocks):
            count = min(block, tiles - i * block)
            self.kernels.both(wide // unit + -(-len(dw) // unit), i * block, count, dout, x, *pad, v, w)
            self.kernels.sums(groups, count, v, w, group, i == 0, i == blocks - 1, sums, dw)


def _up(count, unit):
    return -(-count // unit) * unit


def _count_tiles(out, tile, lead_h, lead_w):
    """Tiles of tile x tile numbers that cover images, and `lead` rows and columns before them."""
    return out.shape[0] * -(-(out.shape[2] + lead_h) // tile) * -(-(out.shape[3] + lead_w) // tile)


count_tiles = jit(_count_tiles)  # for kernels: called from Python it would be compiled in every process


@jit
def find_tiles(first, count, down, across, step, rim):
    """The runs of a block of tiles, and where each tile lies in a strip, in which runs stand side by side.

    An image has down x across tiles, of step + rim pixels, `step` apart.
    """
    runs = find_runs(first, count, down, across, count)
    positions = np.zeros(count + SLACK * SLACK, np.intp)
    for r in range(runs.shape[0]):
        for t in range(runs[r, 1]):
            positions[runs[r, 0] + t] = (runs[r, 0] + t) * step + r * rim
    return runs, positions


@jit
def find_stretches(runs, x, pad_h, pad_w, step, rim):
    """What `rows_in` is told about each run of tiles of x, whose tiles overlap by `rim`, for the first channel."""
    channels, height, width = x.shape[1:]
    stretches = np.empty((runs.shape[0], 7), np.intp)
    for r in range(runs.shape[0]):
        column, length, image, tile_h, tile_w = runs[r]
        top, left = tile_h * step - pad_h, tile_w * step - pad_w
        stretches[r, 0] = (image * channels * height + top) * width + left
        stretches[r, 1], stretches[r, 2] = -top, height - top
        stretches[r, 3], stretches[r, 4] = -left, width - left
        stretches[r, 5], stretches[r, 6] = length * step + rim, column * step + r * rim
    return stretches


def _make_strip(matrix):
    """A function that combines the rows of all tiles of a channel by `matrix`."""
    rows_in = make_rows_in(matrix)

    @jit
    def transform_strip(pixels, source, width, stretches, strip, start, step):
        """The tiles of the channel that begins at `source`, combined down the image, in rows `step` apart."""
        for r in range(stretches.shape[0]):
            offset, top, bottom, first, last, count, place = stretches[r]
            rows_in(pixels, source + offset, width, top, bottom, first, last, count, strip, start + place, step)

    return transform_strip


def _folded(fold):
    """Of both axes: the products in the order of their sums, the sum of each, and whether it is the first there."""
    sums = np.add.outer(fold * (fold.max() + 1), fold).reshape(-1)
    order = np.argsort(sums, kind="stable")
    return order, sums[order], np.diff(sums[order], prepend=-1) != 0


def _parallel(tasks, name):
    """The kernels made of tasks, by their names."""
    return SimpleNamespace(
        **{task.__name__: parallel(task, name=f"{__name__}.{name}_{task.__name__}") for task in tasks}
    )


def _correlation_kernels(a, g, b, fold, step, taps, name):
    """The kernels of a `Filtering`, for filters of `taps` x `taps`."""
    m, n, rim, sums = len(a), len(b), b.shape[1] - step, a.shape[1] ** 2
    order, targets, begins = _folded(fold)
    transform_strip, lanes_in = _make_strip(b), make_lanes_in(b)
    tiles_out, planes_in = make_tiles_out(a), make_planes_in(g)

    @jit
    def transform_filters(w, filter_step, channel_step, filters, first, channels, turned, u, place, panel_step, u_step):
        """U of one vector of filters, from `first` on; the A panels of a product stand `panel_step` apart."""
        width = tile_lanes(u)
        planes = scratch(taps * taps * width, u)
        planes[:] = 0
        for c in range(channels):
            for lane in range(min(width, filters - first)):
                source = (first + lane) * filter_step + c * channel_step
                for tap in range(taps * taps):
                    planes[tap * width + lane] = w[source + (taps * taps - 1 - tap if turned else tap)]
            planes_in(planes, 0, u, place + c * ROWS, u_step, panel_step)

    def filters(vector, w, filter_step, channel_step, filters, channels, turned, u):
        """U [n^2][row panel][channel][ROWS] of the filters of one vector."""
        first = vector * tile_lanes(u)
        place = first // ROWS * channels * ROWS + first % ROWS
        transform_filters(
            w, filter_step, channel_step, filters, first, channels, turned, u, place, channels * ROWS, u.size // (n * n)
        )

    @jit
    def transform_inputs(x, first, last, runs, positions, vectors, pad_h, pad_w, v, v_step):
        """V [n^2][channel][tile] of a block of tiles, for the channels from `first` to `last`."""
        width = tile_lanes(x)
        row = runs.shape[0] * rim + vectors * width * step + SLACK + width
        strips, stretches = scratch(2 * n * row, x), find_stretches(runs, x, pad_h, pad_w, step, rim)
        pixels, plane = x.reshape(-1), x.shape[2] * x.shape[3]
        for c in range(first, last + 1):
            # One channel ahead: a load that spans stores which are still under way would wait for them.
            if c < last:
                transform_strip(pixels, c * plane, x.shape[3], stretches, strips, c % 2 * n * row, row)
            for i in range(vectors if c > first else 0):
                place = ((c - 1) * vectors + i) * width
                lanes_in(strips, (c - 1) % 2 * n * row, row, positions, i * width, v, place, v_step, 0)

    @jit
    def multiply_group(u, u_start, u_step, panels, v, v_step, channels, vectors, products, m_step):
        """M [sum][row panel][ROWS][tile] of some row panels of filters and a block of tiles."""
        width = vectors * tile_lanes(v)
        for i in range(n * n):
            p = order[i]
            for panel in range(panels):
                for c in range(0, channels, DEPTH):
                    a, b = u_start + p * u_step + (panel * channels + c) * ROWS, p * v_step + c * width
                    place, fresh = targets[i] * m_step + panel * ROWS * width, begins[i] and c == 0
                    multiply_tile(min(DEPTH, channels - c), u, a, v, b, products, place, vectors, fresh)

    @jit
    def gather_tiles(out, runs, f, moments):
        """The moments of one filter's outputs in a block of tiles."""
        _, _, image, tile_h, tile_w = runs[0]
        pivot = out[image, f, tile_h * m, tile_w * m]
        for r in range(runs.shape[0]):
            _, length, image, tile_h, tile_w = runs[r]
            for row in range(tile_h * m, min(tile_h * m + m, out.shape[2])):
                gather_moments(out[image, f, row, tile_w * m : (tile_w + length) * m], pivot, moments)
        finish_moments(pivot, moments)

    @jit
    def find_patches(runs, out, lead_h, lead_w):
        """Where the outputs of each run of tiles are, where they go in the first channel, how many rows and columns."""
        filters, height, width = out.shape[1:]
        patches = np.empty((runs.shape[0], 5), np.intp)
        for r in range(runs.shape[0]):
            column, length, image, tile_h, tile_w = runs[r]
            top, left = tile_h * m - lead_h, tile_w * m - lead_w
            skip_h, skip_w = max(0, -top), max(0, -left)
            patches[r, 0], patches[r, 1] = skip_h, column * m + skip_w
            patches[r, 2] = (image * filters * height + top + skip_h) * width + left + skip_w
            patches[r, 3], patches[r, 4] = min(m, height - top) - skip_h, min(m * length, width - left) - skip_w
        return patches

    @jit
    def finish_group(
        products, m_step, vectors, runs, first, last, lead_h, lead_w, bias, add, relu, rows, out, moments
    ):  # fmt: skip
        """Outputs of the filters from `first` to `last` in a block of tiles."""
        width, plane, wide = tile_lanes(out), out.shape[2] * out.shape[3], vectors * tile_lanes(out)
        flat, addend, adding, patches = (
            out.reshape(-1),
            add.reshape(-1),
            add.size > 0,
            find_patches(runs, out, lead_h, lead_w),
        )
        row_step, out_step = wide * m, out.shape[3]
        for f in range(first, last):
            for i in range(vectors):
                tiles_out(products, (f - first) * wide + i * width, m_step, rows, i * width * m, row_step)
            for r in range(patches.shape[0]):
                row, column, offset, height, count = patches[r]
                source, place = row * row_step + column, f * plane + offset
                emit_rows(rows, source, row_step, height, count, bias[f], relu, addend, adding, flat, place, out_step)
            if moments.size:
                gather_tiles(out, runs, f, moments[f])

    @jit
    def part_of(out, block, size, lead_h, lead_w):
        """A block of at most `size` tiles: runs, positions in a strip, and number of vectors."""
        count = min(size, count_tiles(out, m, lead_h, lead_w) - block * size)
        down, across = -(-(out.shape[2] + lead_h) // m), -(-(out.shape[3] + lead_w) // m)
        runs, positions = find_tiles(block * size, count, down, across, step, rim)
        return runs, positions, -(-count // tile_lanes(out))

    def tiles(block, size, x, u, pad_h, pad_w, lead_h, lead_w, group, bias, add, relu, out, moments):
        """All filters of a block of tiles; U is given. `group` row panels of filters at a time."""
        width, filters, channels = tile_lanes(x), out.shape[1], x.shape[1]
        runs, positions, vectors = part_of(out, block, size, lead_h, lead_w)
        v_step = (channels * vectors + 1) * width  # steps that spread over the sets of the cache
        v = scratch(n * n * v_step, x)
        transform_inputs(x, 0, channels, runs, positions, vectors, pad_h, pad_w, v, v_step)
        m_step = (group * ROWS * vectors + 1) * width
        products, rows = scratch(sums * m_step, x), scratch(m * m * vectors * width, x)
        for f in range(0, filters, group * ROWS):
            last = min(filters, f + group * ROWS)
            panels = -(-(last - f) // ROWS)
            multiply_group(u, f * channels, u.size // (n * n), panels, v, v_step, channels, vectors, products, m_step)
            finish_group(
                products,
                m_step,
                vectors,
                runs,
                f,
                last,
                lead_h,
                lead_w,
                bias,
                add,
                relu,
                rows,
                out,
                moments[block * (moments.size > 0)],
            )

    def inputs(task, first, size, x, pad_h, pad_w, lead_h, lead_w, some, out, v):
        """V of some channels in one of the blocks from `first` on."""
        pieces = -(-x.shape[1] // some)
        block, c = task // pieces, task % pieces * some
        runs, positions, vectors = part_of(out, first + block, size, lead_h, lead_w)
        v_step = (x.shape[1] * vectors + 1) * tile_lanes(x)
        last = min(x.shape[1], c + some)
        transform_inputs(x, c, last, runs, positions, vectors, pad_h, pad_w, v[block], v_step)

    def groups(
        task, first, blocks, size, w, filter_step, channel_step, filters, channels, turned, v, lead_h, lead_w, group,
        bias, add, relu, out, moments,
    ):  # fmt: skip
        """A group of filters, whose U is made here, in all of the blocks from `first` on; V is given."""
        width, f = tile_lanes(v), task * group * ROWS
        last = min(filters, f + group * ROWS)
        panels = -(-(last - f) // ROWS)
        unit = max(ROWS, width)
        u_step = -(-(last - f) // unit) * unit * channels + width
        u = scratch(n * n * u_step, v)
        for i in range(0, last - f, width):
            place = i // ROWS * channels * ROWS + i % ROWS
            transform_filters(
                w, filter_step, channel_step, filters, f + i, channels, turned, u, place, channels * ROWS, u_step
            )
        m_step = (group * ROWS * size // width + 1) * width
        products, rows = scratch(sums * m_step, v), scratch(m * m * size, v)
        for block in range(blocks):
            runs, _, vectors = part_of(out, first + block, size, lead_h, lead_w)
            v_step = (channels * vectors + 1) * width
            multiply_group(u, 0, u_step, panels, v[block], v_step, channels, vectors, products, m_step)
            finish_group(
                products, m_step, vectors, runs, f, last, lead_h, lead_w, bias, add, relu, rows, out,
                moments[(first + block) * (moments.size > 0)],
            )  # fmt: skip

    return _parallel((filters, tiles, inputs, groups), name)


def _filter_gradient_kernels(a, g, b, fold, step, name):
    """The kernels of a `Filtering` whose g is for tiles of gradients."""
    taps, m, n, rim, sums_in_all = len(a), g.shape[1], len(b), b.shape[1] - step, a.shape[1] ** 2
    order, targets, begins = _folded(fold)
    transform_strip, lanes_in = _make_strip(b), make_lanes_in(b)
    gradient_strip, gradient_lanes_in = _make_strip(g), make_lanes_in(g, panels=True)
    planes_out = make_planes_out(a)

    @jit
    def part_of(dout, first, count):
        """Runs of tiles, and their positions in a strip of x."""
        return find_tiles(first, count, -(-dout.shape[2] // m), -(-dout.shape[3] // m), step, rim)

    @jit
    def transform_channels(x, first, runs, positions, count, pad_h, pad_w, strips, spread, v, place, tile_step, v_step):
        """V [n^2][tile][channel], B panels, of one vector of channels from `first` on."""
        stretches, row = find_stretches(runs, x, pad_h, pad_w, step, rim), spread[1] // n
        pixels, plane = x.reshape(-1), x.shape[2] * x.shape[3]
        for lane in range(min(tile_lanes(x), x.shape[1] - first)):
            transform_strip(pixels, (first + lane) * plane, x.shape[3], stretches, strips, spread[lane], row)
        for tile in range(count):
            lanes_in(strips, positions[tile], row, spread, 0, v, place + tile * tile_step, v_step, 0)

    @jit
    def transform_gradients(dout, first, runs, count, strips, spread, v, place, panel_step, v_step):
        """W [n^2][tile][filter], A panels, of one vector of filters from `first` on."""
        stretches, row = find_stretches(runs, dout, 0, 0, m, 0), spread[1] // n
        pixels, plane = dout.reshape(-1), dout.shape[2] * dout.shape[3]
        for lane in range(min(tile_lanes(dout), dout.shape[1] - first)):
            gradient_strip(pixels, (first + lane) * plane, dout.shape[3], stretches, strips, spread[lane], row)
        for tile in range(count):
            gradient_lanes_in(strips, tile * m, row, spread, 0, v, place + tile * ROWS, v_step, panel_step)

    @jit
    def spread_lanes(x, runs, tiles):
        """Where the strips of a vector of channels begin."""
        return np.arange(tile_lanes(x)) * (n * (runs * rim + tiles * step + SLACK + tile_lanes(x)))

    @jit
    def multiply_tiles(count, w, w_start, w_step, v, v_step, filters, channels, sums, sums_step, fresh):
        """sums [sum][row panel][column panel] += W V, over `count` tiles; the filters' W begins at `w_start`."""
        width, across = tile_lanes(v), tile_columns(v)
        wide = -(-channels // width) * width
        for i in range(n * n):
            p = order[i]
            for panel in range(-(-filters // ROWS)):
                for c in range(0, channels, across):
                    vectors = min(across, wide - c) // width
                    for tile in range(0, count, DEPTH):
                        a = w_start + p * w_step + (panel * count + tile) * ROWS
                        b = p * v_step + c * count + tile * vectors * width
                        place = targets[i] * sums_step + (panel * wide + c) * ROWS
                        depth, first = min(DEPTH, count - tile), fresh and begins[i] and tile == 0
                        multiply_tile(depth, w, a, v, b, sums, place, vectors, first)

    @jit
    def finish_filters(sums, sums_step, first, last, channels, dw):
        """From the sums of products to dw (F, C, 3, 3) of the filters from `first` to `last`."""
        width, across = tile_lanes(sums), tile_columns(sums)
        wide = -(-channels // width) * width
        planes = scratch(taps * taps * width, sums)
        for i in range(last - first):
            for c in range(0, channels, width):
                panel = c // across * across
                vectors = min(across, wide - panel) // width
                start = (i // ROWS * wide + panel) * ROWS + i % ROWS * vectors * width + c - panel
                planes_out(sums, start, sums_step, planes, 0)
                for lane in range(min(width, channels - c)):
                    for tap in range(taps * taps):
                        dw[first + i, c + lane, tap // taps, tap % taps] = planes[tap * width + lane]

    @jit
    def transform_vector(vector, x, dout, runs, positions, count, pad_h, pad_w, strips, spread, v, v_step, w, w_step):
        """One vector of channels or, after all of these, of filters: its part of V or of W."""
        width, across = tile_lanes(x), tile_columns(x)
        vectors = -(-x.shape[1] // width)
        if vector < vectors:
            c = vector * width
            panel = c // across * across
            here = min(across, vectors * width - panel)
            place = panel * count + c - panel
            transform_channels(x, c, runs, positions, count, pad_h, pad_w, strips, spread, v, place, here, v_step)
        else:
            f = (vector - vectors) * width
            place = f // ROWS * count * ROWS + f % ROWS
            transform_gradients(dout, f, runs, count, strips, spread, w, place, count * ROWS, w_step)

    def pieces(piece, dout, x, pad_h, pad_w, block, parts):
        """dw from a piece of the tiles, `block` at a time."""
        width, channels, filters = tile_lanes(x), x.shape[1], dout.shape[1]
        unit = max(ROWS, width)
        wide, high = -(-channels // width) * width, -(-filters // unit) * unit
        in_all = count_tiles(dout, m, 0, 0)
        v_step, w_step, sums_step = wide * block + width, high * block + width, wide * high + width
        v, w = scratch(n * n * v_step, x), scratch(n * n * w_step, x)
        sums = scratch(sums_in_all * sums_step, x)
        blocks = -(-in_all // block)
        first_block, last_block = piece * blocks // parts.shape[0], (piece + 1) * blocks // parts.shape[0]
        for i in range(first_block, last_block):
            count = min(block, in_all - i * block)
            runs, positions = part_of(dout, i * block, count)
            spread = spread_lanes(x, runs.shape[0], block)
            strips = scratch(spread[1] * width, x)
            for vector in range(wide // width + -(-filters // width)):
                transform_vector(
                    vector, x, dout, runs, positions, count, pad_h, pad_w, strips, spread, v, v_step, w, w_step
                )
            multiply_tiles(count, w, 0, w_step, v, v_step, filters, channels, sums, sums_step, i == first_block)
        finish_filters(sums, sums_step, 0, filters, channels, parts[piece])

    def both(vector, first, count, dout, x, pad_h, pad_w, v, w):
        """V and W of the `count` tiles from `first` on, a vector of channels or filters."""
        width = tile_lanes(x)
        runs, positions = part_of(dout, first, count)
        spread = spread_lanes(x, runs.shape[0], count)
        strips = scratch(spread[1] * width, x)
        v_step, w_step = v.size // (n * n), w.size // (n * n)
        transform_vector(vector, x, dout, runs, positions, count, pad_h, pad_w, strips, spread, v, v_step, w, w_step)

    def sums(task, count, v, w, group, fresh, last, sums, dw):
        """Products summed over `count` tiles, for a group of filters; with the `last` tiles their part of dw."""
        filters, channels = dw.shape[:2]
        f, wide = task * group, -(-channels // tile_lanes(v)) * tile_lanes(v)
        here, sums_step = min(group, filters - f), wide * group + tile_lanes(v)
        part = sums[task] if sums.size else scratch(sums_in_all * sums_step, v)
        w_step, v_step = w.size // (n * n), v.size // (n * n)
        multiply_tiles(count, w, f * count, w_step, v, v_step, here, channels, part, sums_step, fresh)
        if last:
            finish_filters(part, sums_step, f, f + here, channels, dw)

    return _parallel((pieces, both, sums), name)


F2x3, F4x3, F6x3 = Winograd(2, 3), Winograd(4, 3), Winograd(6, 3)
F2x5, F4x5 = Winograd(2, 5), Winograd(4, 5)
F2x3S2, F4x3S2 = Winograd(2, 3, stride=2), Winograd(4, 3, stride=2)
