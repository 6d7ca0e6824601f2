"""How an elementwise kernel walks over memory: in blocks of fixed size, in place within the output.

`begin` makes the output's block hold the input's values, so that the kernel reads and writes one array only. In-place
calls then cost nothing extra, and the compiler need not fear that input and output overlap (it would fall back to
scalar code where they are the same); in other calls the copy happens inside L1.
"""

from fastcnn.cpu.jit import jit

BLOCK = 2048  # elements; a multiple of the 4 * WORDS of `common.philox`


def blocks(size):
    """Number of blocks, tasks of an elementwise kernel, that `size` elements fall into."""
    return -(-size // BLOCK)


@jit
def part(x, block):
    """Elements of one block of the one-dimensional array x."""
    return x[block * BLOCK : min(x.size, (block + 1) * BLOCK)]


@jit
def begin(x, out, block):
    """One block of `out`, holding the values of x; `out` may be x itself."""
    return begin_with(part(x, block), part(out, block))


@jit
def begin_with(source, target):
    """`target`, holding the values of `source`; both may be the same memory."""
    if source.ctypes.data != target.ctypes.data:
        for i in range(target.size):
            target[i] = source[i]
    return target
