"""Places of elements, in 32 bits: numba's own division of integers is one of 64, which is a call of a function."""

import numpy as np

from fastcnn.cuda.jit import device


@device
def divide(i, n):
    """i // n and i % n, of int32 that are not negative."""
    quotient = np.int32(np.uint32(i) // np.uint32(n))
    return quotient, np.int32(i - quotient * n)
