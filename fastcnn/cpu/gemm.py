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
from fastcnn.cpu.jit import jit, parallel, prange
from fastcnn.cpu.microkernel import ROWS, multiply_tile, tile_columns
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
    _multiply(a.reshape(-1), *a_steps, b.reshape(-1), *b_steps, bias, relu, k, out)
    return out


@parallel
def _multiply(a, a_row, a_column, b, b_row, b_column, bias, relu, k, c):
    m, n = c.shape
    height = 8 * ROWS
    width = 4 * tile_columns(b)
    down, across = -(-m // height), -(-n // width)
    for block in prange(down * across):
        i, j = block // across * height, block % across * width
        _block(a, a_row, a_column, b, b_row, b_column, bias, relu, k, c, i, min(height, m - i), j, min(width, n - j))


@jit
def _block(a, a_row, a_column, b, b_row, b_column, bias, relu, k, c, i0, height, j0, width):
    columns = tile_columns(b)
    row_panels, column_panels = -(-height // ROWS), -(-width // columns)
    a_panels = np.empty(row_panels * DEPTH * ROWS, a.dtype)
    b_panels = np.empty(column_panels * DEPTH * columns, a.dtype)
    tiles = np.zeros(row_panels * column_panels * ROWS * columns, a.dtype)
    for p0 in range(0, k, DEPTH):
        depth = min(DEPTH, k - p0)
        pack(a, i0 * a_row + p0 * a_column, a_row, a_column, height, depth, ROWS, a_panels)
        pack(b, p0 * b_row + j0 * b_column, b_column, b_row, width, depth, columns, b_panels)
        multiply_panels(depth, a_panels, 0, depth * ROWS, row_panels, b_panels, column_panels, tiles)
    for i in range(height):
        row = c[i0 + i]
        for panel in range(column_panels):
            start = ((i // ROWS * column_panels + panel) * ROWS + i % ROWS) * columns
            tile_row = tiles[start : start + columns]
            place = j0 + panel * columns
            for j in range(min(columns, width - panel * columns)):
                value = tile_row[j] + bias[place + j]
                row[place + j] = rectify(value, relu)


@jit
def rectify(value, relu):
    """max(value, 0) where `relu` is true, a NaN staying a NaN."""
    return type(value)(0) if relu and value < 0 else value


@parallel
def pack_panels(source, group_step, size, step, depth, depth_step, panels):
    """A panels of several strided matrices of `size` x `depth` that stand `group_step` apart.

    `panels` [group][row panel][depth][ROWS] has the right size for as many as there are.
    """
    row_panels = -(-size // ROWS)
    length = depth * ROWS
    for task in prange(panels.size // max(length, 1)):
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
            multiply_tile(depth, a, a_start + i * a_step, b, j * depth * columns, tiles, tile)
