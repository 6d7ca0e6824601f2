"""Matrix products from packed panels: what convolution and affine layers on this floor are made of.

The scheme is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34, 2008):
pieces of A and B are copied into panels that the micro-kernel reads front to back, and a block of C stays in cache
as tiles until it is finished. Blocks are cut by shape alone, so results do not depend on the number of threads.

Layouts, all in one-dimensional buffers:
    A panels   [row panel][p][ROWS]          zero-filled to whole panels
    B panels   [column panel][p][columns]    zero-filled likewise
    C tiles    [row panel][column panel][ROWS][columns]
"""

import numpy as np

from fastcnn.cpu.arrays import contiguous, output
from fastcnn.cpu.jit import jit, parallel
from fastcnn.cpu.microkernel import ROWS, VECTORS, columns, multiply_tile, tile_columns
from fastcnn.cpu.moves import BLOCK, copy_run, transpose_block

DEPTH = 256  # summed at once; an A panel of this depth fills a quarter of L1, and long sums are cut into such blocks


def multiply(a, b, bias, transpose_a=False, transpose_b=False, relu=False, out=None):
    """C (M, N) = A B + bias, with A (M, K) and B (K, N); optionally max(C, 0).

    `transpose_a`: `a` holds A transposed, (K, M); `transpose_b` likewise. `bias` (N,) or None.
    """
    a, b = contiguous(a), contiguous(b)
    m, k = a.shape[::-1] if transpose_a else a.shape
    n = b.shape[0] if transpose_b else b.shape[1]
    out = output(out, (m, n), a.dtype)
    bias = np.zeros(n, a.dtype) if bias is None else contiguous(bias)
    a_steps = (1, m) if transpose_a else (k, 1)
    b_steps = (1, k) if transpose_b else (n, 1)
    height, width = 8 * ROWS, 4 * columns(a.dtype)
    tasks = -(-m // height) * -(-n // width)
    _multiply(tasks, a.reshape(-1), *a_steps, b.reshape(-1), *b_steps, bias, relu, height, width, k, out)
    return out


@parallel
def _multiply(task, a, a_row, a_column, b, b_row, b_column, bias, relu, height, width, k, c):
    """A block of `height` x `width` elements of C."""
    across, panel = -(-c.shape[1] // width), tile_columns(b)
    i0, j0 = task // across * height, task % across * width
    height, width = min(height, c.shape[0] - i0), min(width, c.shape[1] - j0)
    row_panels, column_panels = -(-height // ROWS), -(-width // panel)
    a_panels = np.empty(row_panels * DEPTH * ROWS, a.dtype)
    b_panels = np.empty(column_panels * DEPTH * panel, a.dtype)
    tiles = np.zeros(row_panels * column_panels * ROWS * panel, a.dtype)
    for p in range(0, k, DEPTH):
        depth = min(DEPTH, k - p)
        pack(a, i0 * a_row + p * a_column, a_row, a_column, height, depth, ROWS, a_panels)
        pack(b, p * b_row + j0 * b_column, b_column, b_row, width, depth, panel, b_panels)
        multiply_panels(depth, a_panels, 0, depth * ROWS, row_panels, b_panels, column_panels, tiles)
    for i in range(height):
        for j in range(0, width, panel):
            tile = (i // ROWS * column_panels + j // panel) * ROWS + i % ROWS
            source, target = tiles[tile * panel :][: width - j], c[i0 + i, j0 + j : j0 + min(j + panel, width)]
            shift = bias[j0 + j :]
            for e in range(target.size):
                target[e] = rectify(source[e] + shift[e], relu)


@jit
def rectify(value, relu):
    """max(value, 0) where `relu` is true, a NaN staying a NaN."""
    return type(value)(0) if relu and value < 0 else value


@parallel
def pack_panels(task, source, group_step, size, step, depth, depth_step, panels):
    """A panels of several strided matrices of `size` x `depth` that stand `group_step` apart, one panel per task.

    `panels` is [group][row panel][depth][ROWS].
    """
    row_panels = -(-size // ROWS)
    length = depth * ROWS
    group, panel = task // row_panels, task % row_panels
    start = group * group_step + panel * ROWS * step
    rows = min(ROWS, size - panel * ROWS)
    pack(source, start, step, depth_step, rows, depth, ROWS, panels[task * length : (task + 1) * length])


@jit
def pack(source, start, step, depth_step, size, depth, width, panels):
    """Copy a strided matrix of `size` x `depth` elements into panels [panel][depth][width], zero-filled."""
    for panel in range(-(-size // width)):
        here = min(width, size - panel * width)
        first, place = start + panel * width * step, panel * depth * width
        if step == 1:
            for p in range(depth):
                copy_run(panels, place + p * width, source, first + p * depth_step, here)
        elif depth_step == 1:
            pack_across(source, first, step, here, depth, width, panels, place)
        else:
            for p in range(depth):
                for i in range(here):
                    panels[place + p * width + i] = source[first + p * depth_step + i * step]
        for p in range(depth):
            for i in range(here, width):
                panels[place + p * width + i] = 0


@jit
def pack_across(source, first, step, size, depth, width, panels, place):
    """One panel [depth][width] from `size` rows that are contiguous along the depth: a transpose."""
    whole, deep = size // BLOCK * BLOCK, depth // BLOCK * BLOCK
    for i in range(0, whole, BLOCK):
        for p in range(0, deep, BLOCK):
            transpose_block(source, first + i * step + p, step, panels, place + p * width + i, width)
    for i in range(size):
        for p in range(deep if i < whole else 0, depth):
            panels[place + p * width + i] = source[first + i * step + p]


@jit
def multiply_panels(depth, a, a_start, a_step, row_panels, b, column_panels, tiles):
    """tiles += A B over `depth`; A panels stand `a_step` apart from `a_start` on, B panels one behind the other."""
    columns = tile_columns(b)
    for i in range(row_panels):
        for j in range(column_panels):
            tile = (i * column_panels + j) * ROWS * columns
            multiply_tile(depth, a, a_start + i * a_step, b, j * depth * columns, tiles, tile, VECTORS, False)
