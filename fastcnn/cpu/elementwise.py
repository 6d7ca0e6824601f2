"""How an elementwise kernel cuts memory: in blocks of fixed size. Within one, it reads and writes with `cpu.apart`."""

from fastcnn.cpu.jit import jit

BLOCK = 2048  # elements; a multiple of the 4 * WORDS of `common.philox`


def blocks(size):
    """Number of blocks, tasks of an elementwise kernel, that `size` elements fall into."""
    return -(-size // BLOCK)


@jit
def part(x, block):
    """Elements of one block of the one-dimensional array x."""
    return x[block * BLOCK : min(x.size, (block + 1) * BLOCK)]
