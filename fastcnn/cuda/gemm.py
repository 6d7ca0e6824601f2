"""Matrix products of operands that are nowhere stored as matrices: affine layers, and convolution in all its passes.

    out[row, column] = sum over k of a[row, k] b[k, column]

An element's address is the sum of a part of its row (or column) and a part of its k, each the sum of up to three digits
times strides: image, line and place of a pixel; channel and tap of a filter. So one kernel reads images as if their
windows had been copied to columns. b may also have a `Window`: its elements outside an image are zero.

A block of threads computes a tile of the product, DEPTH values of k at a time, from panels of a and b in shared
memory; while it multiplies one pair of panels, the next pair is on its way to its registers. Each thread has SIDE x
SIDE sums. The part of an address that belongs to k is worked out once per block and kept in shared memory, that of a
column once per thread.

Sums are cut into rounds of ROUND terms, which bounds their rounding, and, by shape alone, into *parts*, where there are
too few tiles to fill a GPU: a block for each, added in a fixed order.
"""

from typing import NamedTuple

import numpy as np
from numba import cuda, int32

from fastcnn.cuda.arrays import aligned
from fastcnn.cuda.indices import divide
from fastcnn.cuda.jit import SIMULATED, device, kernel
from fastcnn.cuda.memory import empty
from fastcnn.cuda.tensorcores import FORMATS, by_warps
from fastcnn.cuda.vectors import LANES, lanes, lanes_of, load_vector, store_vector

DEPTH = 8  # values of k per panel
SIDE, RUN, SUMS = 8, 4, 64  # rows and columns of a thread: two runs each, so that a warp's loads meet no bank twice
PAD = 4  # numbers between the lines of a panel: threads that store along k meet different banks
ROUND = 512  # terms that are summed one after the other
OUTSIDE = -(2**30)  # the line of a row or column that does not exist
SINGLY, ALONG_K, ACROSS = range(3)  # how an operand is read: by elements, or by vectors along k or across it
MULTIPROCESSORS = 128  # about as many as a large GPU has
LEAST_PART, MOST_PARTS = 128, 64  # terms that are worth a block; parts of a sum


class Axis(NamedTuple):
    """The columns, or the k, of a product: outer x height x width of them, by three digits."""

    outer: int
    height: int = 1
    width: int = 1

    @property
    def size(self):
        """How many there are."""
        return self.outer * self.height * self.width


class Operand(NamedTuple):
    """Flat memory and its strides, in elements: `across` along the digits of a row (one) or column, `along` those of k.

    Group g begins at start + g group.
    """

    memory: object
    across: tuple
    along: tuple
    group: int = 0
    start: int = 0


class Window(NamedTuple):
    """Elements of b are zero but for 0 <= line < height and 0 <= place < width.

    line = first[0] + across[0] times the column's second digit + along[0] times that of k; place likewise, by the
    third.
    """

    height: int = 1
    width: int = 1
    across: tuple = (0, 0)
    along: tuple = (0, 0)
    first: tuple = (0, 0)


class Target(NamedTuple):
    """Flat memory of the product, its strides along rows and the digits of columns, and what is done at the end.

    `bias` has a number for each row of all groups, or each column (`by_column`); `add`, flat, lies as the target does.
    """

    memory: object
    row: int
    across: tuple
    group: int = 0
    start: int = 0
    bias: object = None
    by_column: bool = False
    add: object = None
    relu: bool = False


class Tile(NamedTuple):
    """A kernel that computes tiles of rows x columns; `rate`: multiplications per load, compared with the best."""

    rows: int
    columns: int
    rate: float
    kernel: object


def multiply(a, b, target, rows, columns, k, window=None, groups=1, numbers=None, tile=None, parts=None):
    """target = a b, for each of `groups`: a has `rows` rows, b `columns` (Axis), of `k` (Axis) elements.

    `numbers` is a format of tensor cores, for float32, or None. `tile` and `parts` are chosen if None; with more than
    one part, the whole target is written.
    """
    if not (rows and columns.size and groups):
        return
    dtype, nothing = target.memory.dtype, empty(0, target.memory.dtype)
    if tile is None:
        numbers = numbers if numbers and dtype == np.float32 else dtype.name
        tile, many = choose(rows, columns.size, k.size, groups, numbers)
        parts = many if parts is None else parts
    bias, add = (nothing if x is None else x for x in (target.bias, target.add))
    whole = target.memory.size if parts > 1 else 0
    memory = empty(parts * whole, dtype) if whole else target.memory
    end = (nothing, nothing, False) if whole else (bias, add, target.relu)
    unbounded = window is None
    modes = (
        _mode(a, Axis(rows), k, True), _mode(b, columns, k, unbounded), _by_vectors(memory, target, columns, whole),
        target.by_column, end[2],
    )  # fmt: skip
    window = window or Window()
    blocks = -(-rows // tile.rows) * -(-columns.size // tile.columns)
    length = -(-k.size // (parts * DEPTH)) * DEPTH
    tile.kernel[blocks, 1, groups * parts](
        a.memory, b.memory, *end[:2], _int32(rows, columns.size, k.size, length, parts), _int32(*columns[1:], *k[1:]),
        _int32(*a.across, *a.along, a.group, a.start), _int32(*b.across, *b.along, b.group, b.start),
        _int32(*window[:2], *window.across, *window.along, *window.first),
        _int32(target.row, *target.across, target.group, target.start, whole), _int32(*modes), memory,
    )  # fmt: skip
    if whole:
        add_parts(memory, parts, target.memory, bias, 1 if target.by_column else target.row, add, target.relu)


def add_parts(parts, count, out, bias=None, plane=1, add=None, relu=False):
    """out = the sum of `count` parts, each of out's size, + bias + add; all flat, `plane` elements share a bias."""
    nothing = empty(0, out.dtype)
    bias, add = (nothing if x is None else x for x in (bias, add))
    _add_parts.for_each(out.size, parts, np.int32(count), bias, np.int32(plane), add, relu, out)


def choose(rows, columns, depth, groups, numbers):
    """(tile, parts) with the least work for the multiprocessor that has the most."""
    found = []
    for tile in TILES[numbers]:
        blocks = groups * -(-rows // tile.rows) * -(-columns // tile.columns)
        parts = max(1, min(2 * MULTIPROCESSORS // blocks, depth // LEAST_PART, MOST_PARTS))
        work = -(-blocks * parts // MULTIPROCESSORS) * tile.rows * tile.columns * -(-depth // parts) / tile.rate
        found.append((work, len(found), tile, parts))
    return min(found)[2:]


def _mode(operand, across, k, unbounded):
    """How a kernel is to read an operand."""
    size = lanes_of(operand.memory.dtype)
    if not (unbounded and aligned(operand.memory) and operand.group % size == operand.start % size == 0):
        return SINGLY
    simple = across.outer == across.size  # the part of an address is a multiple of the row or column
    for mode, axis, strides, others in (
        (ALONG_K, k, operand.along, _used(across, operand.across)),
        (ACROSS, across, operand.across, _used(k, operand.along)),
    ):
        strides, run = _beyond_run(axis, strides)
        if run % size == 0 and all(stride % size == 0 for stride in (*strides, *others)):
            if mode == ACROSS or simple:
                return mode
    return SINGLY


def _by_vectors(memory, target, columns, whole):
    """Whether the product may be written by vectors: that many columns follow each other in aligned memory."""
    strides, run = _beyond_run(columns, target.across)
    strides = run, *strides, target.row, target.group, target.start, whole
    return all(stride % lanes_of(memory.dtype) == 0 for stride in strides) and aligned(memory)


def _used(axis, strides):
    return [stride for n, stride in zip(axis, strides) if n > 1]


def _beyond_run(axis, strides):
    """The strides of an axis that are left when its inner digits are taken as one run of so many neighbours."""
    digits, run = [(n, stride) for n, stride in zip(axis, strides) if n > 1], 1
    while digits and digits[-1][1] == run:
        run *= digits.pop()[0]
    return [stride for _, stride in digits], run


def _int32(*numbers):
    return tuple(map(np.int32, numbers))


@device
def digits(number, height, width):
    """(outer, line, place) with number = (outer height + line) width + place."""
    lines, place = divide(number, width)
    outer, line = divide(lines, height)
    return outer, line, place


@device
def load_runs(panel, at, half, into):
    """Two runs of a panel's line, the second `half` numbers after the first."""
    values = cuda.local.array(LANES, panel.dtype)
    for run in range(2):
        for i in range(RUN // lanes(panel)):
            load_vector(panel, at + run * half + i * lanes(panel), values)
            for j in range(lanes(panel)):
                into[run * RUN + i * lanes(panel) + j] = values[j]


@device
def _add_products(sums, panels, at_a, pitch_a, half_a, at_b, pitch_b, half_b):
    """sums[i, j] += the sum of a[k, i] b[k, j] over the lines k of two panels; sums is flat.

    a's line k is two runs, from at_a + k pitch_a and half_a after that; b's likewise.
    """
    of_a = cuda.local.array(SIDE, panels.dtype)
    of_b = cuda.local.array(SIDE, panels.dtype)
    for k in range(DEPTH):
        load_runs(panels, np.int32(at_a + k * pitch_a), half_a, of_a)
        load_runs(panels, np.int32(at_b + k * pitch_b), half_b, of_b)
        for i in range(SIDE):
            for j in range(SIDE):
                sums[i * SIDE + j] += of_a[i] * of_b[j]


def add_products_python(sums, panels, at_a, pitch_a, half_a, at_b, pitch_b, half_b):
    """The same with NumPy, for the simulator, which would take minutes for it."""
    lines, places = np.arange(DEPTH)[:, None], np.arange(SIDE)
    of_a = np.asarray(panels)[at_a + lines * pitch_a + places % RUN + places // RUN * half_a]
    of_b = np.asarray(panels)[at_b + lines * pitch_b + places % RUN + places // RUN * half_b]
    sums += (of_a.T @ of_b).reshape(sums.shape)


add_products = add_products_python if SIMULATED else _add_products


@device
def note_k(slot, k, group, radices, a_strides, b_strides, window, table):
    """Work out what belongs to k: its part of an address in a and in b, of a line and of a place."""
    outer, line, place = digits(k, radices[2], radices[3])
    a_offsets, b_offsets, lines, places = table
    a_start, b_start = group * a_strides[4] + a_strides[5], group * b_strides[6] + b_strides[7]
    a_offsets[slot] = a_start + outer * a_strides[1] + line * a_strides[2] + place * a_strides[3]
    b_offsets[slot] = b_start + outer * b_strides[3] + line * b_strides[4] + place * b_strides[5]
    lines[slot], places[slot] = line * window[4], place * window[5]


def _reader(width, threads, depth, pad, bounded):
    """How threads bring a panel of `width` rows or columns to shared memory: (first_of, fetch, put).

    A thread reads a few items, numbers or vectors: the first in column `mine` of the tile and line `k` of the panel,
    the others at a distance from it.
    """
    share, spans, deep = width * depth // threads, max(1, width // threads), max(1, threads // width)
    each, pitch, ring = share // spans, width + pad, 2 * threads - 1

    @device
    def first_of(mode, x):
        """(mine, k) of a thread's first item."""
        thread = np.int32(cuda.threadIdx.x)
        per_line = width if mode == SINGLY else np.int32(width // lanes(x))
        per_column = np.int32(depth // lanes(x))
        if mode == ALONG_K:
            mine, line = divide(thread, per_column)
            return mine, np.int32(line * lanes(x))
        line, mine = divide(thread, per_line)
        return (mine if mode == SINGLY else np.int32(mine * lanes(x))), line

    @device
    def fetch(x, mode, column, k, count, stride, bases, lines, places, window, left, table, into):
        """Read the items of the panel of which `k` is the thread's first one's k in this round, which has `left`."""
        offsets, k_lines, k_places = table
        zero = x.dtype.type(0)
        if mode == SINGLY:
            for span in range(spans):
                for i in range(each):
                    slot, value = np.int32((k + i * deep) & ring), zero
                    if bounded:
                        line, place = lines[span] + k_lines[slot], places[span] + k_places[slot]
                        inside = (line >= 0) & (line < window[0]) & (place >= 0) & (place < window[1])
                    else:
                        inside = lines[span] >= 0
                    if inside & (k + i * deep < left):
                        value = x[np.int32(bases[span] + offsets[slot])]
                    into[span * each + i] = value
        else:
            values = cuda.local.array(LANES, x.dtype)
            down, right = steps(mode, x)
            for i in range(share // lanes(x)):
                here = np.int32(k + i * down)
                if (column + i * right < count) & (here < left):
                    load_vector(x, np.int32(bases[0] + i * right * stride + offsets[here & ring]), values)
                else:
                    for j in range(lanes(x)):
                        values[j] = zero
                for j in range(lanes(x)):
                    into[i * lanes(x) + j] = values[j]

    @device
    def steps(mode, x):
        """From one vector to the next: lines of the panel, columns."""
        along = np.int32(threads // (depth // lanes(x)))
        return (np.int32(0), along) if mode == ALONG_K else (np.int32(threads * lanes(x) // width), np.int32(0))

    @device
    def put(values, x, mode, mine, line, panel, start):
        """Store what `fetch` read in the panel that begins at `start`."""
        at = np.int32(start + line * pitch + mine)
        if mode == SINGLY:
            for span in range(spans):
                for i in range(each):
                    panel[np.int32(at + i * deep * pitch + span * threads)] = values[span * each + i]
        else:
            down, right = steps(mode, x)
            some = cuda.local.array(LANES, x.dtype)
            for i in range(share // lanes(x)):
                here = np.int32(at + i * (down * pitch + right))
                if mode == ALONG_K:
                    for j in range(lanes(x)):
                        panel[np.int32(here + j * pitch)] = values[i * lanes(x) + j]
                else:
                    for j in range(lanes(x)):
                        some[j] = values[i * lanes(x) + j]
                    store_vector(some, panel, here)

    return first_of, fetch, put


@device
def ended(value, number, place, again, last, bias, add, relu, out):
    """A sum as it is written: with those of earlier rounds (`again`), and at the `last` with bias and add."""
    if again:
        value += out[place]
    if last:
        if bias.size:
            value += bias[number]
        if add.size:
            value += add[place]
        if relu and value < 0:
            value = type(value)(0)
    return value


_FLAT = "T[::1]"
_SIGNATURE = f"{', '.join([_FLAT] * 4)}, {', '.join(f'UniTuple(int32, {n})' for n in (5, 4, 6, 8, 8, 7, 5))}, {_FLAT}"


def _by_threads(rows, columns, begin_b):
    """(multiply_panels, lay_out) of a tile of which each thread computes SIDE x SIDE numbers."""
    across, pitch_a, pitch_b = columns // SIDE, rows + PAD, columns + PAD

    @device
    def multiply_panels(panels, stage, sums):
        """sums += this thread's rows of the panel of a times its columns of that of b."""
        thread = np.int32(cuda.threadIdx.x)
        at_a = np.int32(stage * DEPTH * pitch_a + thread // across * RUN)
        at_b = np.int32(begin_b + stage * DEPTH * pitch_b + thread % across * RUN)
        add_products(sums, panels, at_a, pitch_a, rows // 2, at_b, pitch_b, columns // 2)

    @device
    def lay_out(sums, half, panels):
        """Store half of a thread's rows where the other threads can reach them."""
        thread = np.int32(cuda.threadIdx.x)
        some = cuda.local.array(LANES, panels.dtype)
        for i in range(RUN):
            line = np.int32((thread // across * RUN + i) * pitch_b + thread % across * RUN)
            for run in range(2):
                for j in range(RUN // lanes(panels)):
                    for k in range(lanes(panels)):
                        some[k] = sums[(half * RUN + i) * SIDE + run * RUN + j * lanes(panels) + k]
                    store_vector(some, panels, line + run * (columns // 2) + j * lanes(panels))

    return multiply_panels, lay_out


def _make_tile(rows, columns, rate, numbers, registers, blocks):
    """The `Tile` of so many rows and columns, each thread having SUMS of it; `blocks` per multiprocessor.

    `numbers` is the dtype, or a format of tensor cores.
    """
    threads = rows * columns // SUMS
    cores = FORMATS.get(numbers)
    depth, pad, dtype = (16, cores.pad, "float32") if cores else (DEPTH, PAD, numbers)
    slots, spans = 2 * threads, max(1, columns // threads)
    share_a, share_b = rows * depth // threads, columns * depth // threads
    pitch_a, pitch_b = rows + pad, columns + pad
    begin_b = 2 * depth * pitch_a
    size = max(begin_b + 2 * depth * pitch_b, rows // 2 * pitch_b)
    first_of_a, fetch_a, put_a = _reader(rows, threads, depth, pad, False)
    first_of_b, fetch_b, put_b = _reader(columns, threads, depth, pad, True)
    multiply_panels, lay_out = (
        by_warps(numbers, rows, columns, depth, begin_b) if cores else _by_threads(rows, columns, begin_b)
    )

    @device
    def write(panels, corner, extents, radices, group, start, target, again, last, bias, add, modes, out):
        """Write the rows that are laid out, of the tile that begins at the row and column `corner`."""
        thread = np.int32(cuda.threadIdx.x)
        some = cuda.local.array(LANES, out.dtype)
        (first_row, first_column), (_, _, by_vectors, by_column, relu) = corner, modes
        run = np.int32(lanes(out) if by_vectors else 1)
        per_line = np.int32(columns // lanes(out) if by_vectors else columns)
        line, number = divide(thread, per_line)
        while number < per_line:
            column, i = np.int32(first_column + number * run), line
            digit = digits(column, radices[0], radices[1])
            place = np.int32(start + digit[0] * target[1] + digit[1] * target[2] + digit[2] * target[3])
            until = min(rows // 2, extents[0] - first_row) if column < extents[1] else 0
            while i < until:
                row = np.int32(first_row + i)
                at, here = np.int32(i * pitch_b + number * run), np.int32(place + row * target[0])
                bias_number = column if by_column else np.int32(group * extents[0] + row)
                if by_vectors:
                    load_vector(panels, at, some)
                    for k in range(lanes(out)):
                        n = bias_number + k * by_column
                        some[k] = ended(some[k], n, here + k, again, last, bias, add, relu, out)
                    store_vector(some, out, here)
                else:
                    out[here] = ended(panels[at], bias_number, here, again, last, bias, add, relu, out)
                i = np.int32(i + max(1, threads * run // columns))
            number = np.int32(number + threads)

    def product(a, b, bias, add, extents, radices, a_strides, b_strides, window, target, modes, out):
        """A block for each tile, group and part."""
        panels = cuda.shared.array(size, a.dtype, alignment=16)
        a_offsets = cuda.shared.array(slots, int32)
        b_offsets = cuda.shared.array(slots, int32)
        k_lines = cuda.shared.array(slots, int32)
        k_places = cuda.shared.array(slots, int32)
        a_base = cuda.local.array(1, int32)
        a_line = cuda.local.array(1, int32)
        bases = cuda.local.array(spans, int32)
        lines = cuda.local.array(spans, int32)
        places = cuda.local.array(spans, int32)
        a_next = cuda.local.array(share_a, a.dtype)
        b_next = cuda.local.array(share_b, a.dtype)
        sums = cuda.local.array(SUMS, a.dtype)
        table = a_offsets, b_offsets, k_lines, k_places
        a_table, b_table = (a_offsets, k_lines, k_places), (b_offsets, k_lines, k_places)

        all_rows, all_columns, all_k, length, parts = extents
        a_mode, b_mode = modes[0], modes[1]
        thread, block = np.int32(cuda.threadIdx.x), np.int32(cuda.blockIdx.x)
        group, part = divide(np.int32(cuda.blockIdx.z), parts)
        column_tile, row_tile = divide(block, (all_rows + rows - 1) // rows)
        first_row, first_column = np.int32(row_tile * rows), np.int32(column_tile * columns)

        a_mine, a_k = first_of_a(a_mode, a)
        b_mine, b_k = first_of_b(b_mode, b)
        row = np.int32(first_row + a_mine)
        a_base[0], a_line[0] = row * a_strides[0], (0 if row < all_rows else OUTSIDE)
        for span in range(spans):
            column = np.int32(first_column + b_mine + span * threads)
            outer, line, place = digits(column, radices[0], radices[1])
            bases[span] = outer * b_strides[0] + line * b_strides[1] + place * b_strides[2]
            lines[span] = window[6] + line * window[2] if column < all_columns else OUTSIDE
            places[span] = window[7] + place * window[3]

        start = np.int32(group * target[4] + target[5] + part * target[6])
        begin = np.int32(part * length)
        end = min(begin + length, all_k)
        first, last = begin, False
        while not last:
            left = np.int32(min(end - first, ROUND))
            last = first + left >= end
            for i in range(SUMS):
                sums[i] = 0
            note_k(thread, first + thread, group, radices, a_strides, b_strides, window, table)
            cuda.syncthreads()
            at, stage = np.int32(0), np.int32(0)
            while at < left + depth:  # fetches a panel while it multiplies the one before
                if at < left:
                    fetch_a(
                        a, a_mode, row, np.int32(at + a_k), all_rows, a_strides[0], a_base, a_line, a_line, window,
                        left, a_table, a_next,
                    )  # fmt: skip
                    fetch_b(
                        b, b_mode, np.int32(first_column + b_mine), np.int32(at + b_k), all_columns, b_strides[0],
                        bases, lines, places, window, left, b_table, b_next,
                    )  # fmt: skip
                if at % threads == 0:  # look up the next k, beside those in use
                    slot = (at + threads + thread) % slots
                    note_k(slot, first + at + threads + thread, group, radices, a_strides, b_strides, window, table)
                if at > 0:
                    multiply_panels(panels, 1 - stage, sums)
                if at < left:
                    put_a(a_next, a, a_mode, a_mine, a_k, panels, stage * depth * pitch_a)
                    put_b(b_next, b, b_mode, b_mine, b_k, panels, begin_b + stage * depth * pitch_b)
                cuda.syncthreads()
                at, stage = np.int32(at + depth), np.int32(1 - stage)
            for half in range(2):
                if half == 0:  # registers have no index that is known only at run time
                    lay_out(sums, 0, panels)
                else:
                    lay_out(sums, 1, panels)
                cuda.syncthreads()
                corner = first_row + half * (rows // 2), first_column
                write(
                    panels, corner, extents, radices, group, start, target, first > begin, last, bias, add, modes, out
                )  # fmt: skip
                cuda.syncthreads()
            first = np.int32(first + left)

    settings = dict(
        threads=threads, blocks=blocks, registers=registers, dtypes=(dtype,),
        name=f"{__name__}.{numbers}_{rows}x{columns}",
        opcodes=("LDG.E.128", "STG.E.128", cores.opcode if cores else "LDS.128"),
    )  # fmt: skip
    return Tile(rows, columns, rate, kernel(_SIGNATURE, **settings)(product))


TILES = {
    "float32": (
        _make_tile(128, 128, 1.0, "float32", 128, 2),
        _make_tile(64, 64, 0.8, "float32", 168, 6),
        _make_tile(32, 128, 0.7, "float32", 168, 6),
    ),
    "float64": (_make_tile(64, 64, 1.0, "float64", 128, 4), _make_tile(32, 128, 0.9, "float64", 128, 4)),
    "tf32": (_make_tile(128, 128, 1.0, "tf32", 255, 1), _make_tile(64, 64, 0.8, "tf32", 255, 4)),
    "bf16": (_make_tile(128, 128, 1.0, "bf16", 255, 1), _make_tile(64, 64, 0.8, "bf16", 255, 4)),
}


@kernel("T[::1], int32, T[::1], int32, T[::1], bool_, T[::1]")
def _add_parts(parts, count, bias, plane, add, relu, out):
    """out = the sum of `count` parts, each of out's size, + bias + add."""
    i = np.int32(cuda.grid(1))
    if i < out.size:
        total = np.float64(0)
        for part in range(count):
            total += parts[part * np.int32(out.size) + i]
        if bias.size:
            total += bias[digits(i, np.int32(bias.size), plane)[1]]
        if add.size:
            total += add[i]
        out[i] = 0 if relu and total < 0 else total
