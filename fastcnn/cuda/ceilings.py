"""What a GPU can do at best: multiply-adds that never leave the registers, and copies of 16 bytes per thread."""

from numba import cuda

from fastcnn.cuda.arrays import flat
from fastcnn.cuda.elementwise import run, unary
from fastcnn.cuda.jit import current_stream, device, kernel

CHAINS, STEPS = 16, 8  # sums of a thread that do not wait for each other; steps between two looks at the counter


def multiply_adds(repeats, factor, summand, sums):
    """`repeats` times STEPS fused multiply-adds in each of CHAINS chains per element of `sums`.

    That is a flat float32 device array, a thread for each element, which gets the sum over the chains. Chain k starts
    with k; a step replaces s by factor s + summand. Returns the number of floating-point operations.
    """
    number = sums.dtype.type
    _multiply_adds.for_each(sums.size, int(repeats), number(factor), number(summand), sums)
    return 2 * repeats * STEPS * CHAINS * sums.size


def copy(source, target):
    """Copy a C-contiguous device array, a vector of 16 bytes per thread; returns the bytes read and written."""
    run(_identity, (source,), out=target)
    return source.nbytes + target.nbytes


def copy_by_driver(source, target):
    """The same by the driver's own copy."""
    flat(target).copy_to_device(flat(source), stream=current_stream())
    return source.nbytes + target.nbytes


@device
def identity(x):
    """x."""
    return x


_identity = unary(identity)


@kernel("int64, T, T, T[::1]", opcodes=("FFMA",), dtypes=("float32",))
def _multiply_adds(repeats, factor, summand, out):
    i = cuda.grid(1)
    if i < out.size:
        sums = cuda.local.array(CHAINS, out.dtype)
        for k in range(CHAINS):
            sums[k] = k
        for _ in range(repeats):
            for _ in range(STEPS):
                for k in range(CHAINS):
                    sums[k] = cuda.fma(factor, sums[k], summand)
        total = sums[0]
        for k in range(1, CHAINS):
            total += sums[k]
        out[i] = total
