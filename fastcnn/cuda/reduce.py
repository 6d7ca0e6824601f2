"""Sums over the threads of a block, and of the parts that blocks leave: in a fixed order, without atomics.

Threads sum what they meet in float64 where the terms are few or cancel; blocks leave one part each, which `fold` adds.
"""

from numba import cuda, float64

from fastcnn.cuda.jit import device, kernel

THREADS = 256  # of a block that calls `block_sum`


@device
def block_sum(value):
    """The sum of `value` over the THREADS threads of the block, in float64, for every thread.

    All threads call it, as often as each other.
    """
    sums = cuda.shared.array(256, float64)
    thread = cuda.threadIdx.x
    cuda.syncthreads()  # the sums of an earlier call have been read
    sums[thread] = value
    cuda.syncthreads()
    half = 128
    while half > 0:
        if thread < half:
            sums[thread] += sums[thread + half]
        cuda.syncthreads()
        half //= 2
    return sums[0]


def fold(parts, out):
    """out[i] = the sum of parts[i, :] (rows, parts), which are float64, in a fixed order."""
    _fold[parts.shape[0]](parts, out)


@kernel("float64[:, ::1], T[::1]")
def _fold(parts, out):
    """A block for each row."""
    row, total = cuda.blockIdx.x, 0.0
    for i in range(cuda.threadIdx.x, parts.shape[1], cuda.blockDim.x):
        total += parts[row, i]
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        out[row] = total
