"""Copies from the host that it need not wait for: through memory that is locked in place, a few buffers in turn.

A copy from ordinary memory first waits for all that the GPU still has to do.
"""

import threading

import numpy as np
from numba import cuda

from fastcnn.cuda.jit import current_stream

BUFFERS = 4  # copies that may be under way
LARGEST = 2**28  # bytes that are copied so; more is rare, and its buffers would be kept for ever

_lock = threading.Lock()
_ring = []  # [[buffer, event after the last copy out of it]], the oldest first


def copy_to(target, source):
    """Start copying a contiguous host array to a device array of its size, on the current stream."""
    if source.nbytes > LARGEST:
        target.copy_to_device(source, stream=current_stream())
        return
    stream = current_stream() or cuda.default_stream()
    with _lock:
        buffer, event = _next(source.nbytes)
        staged = buffer[: source.nbytes].view(source.dtype).reshape(source.shape)
        np.copyto(staged, source)
        target.copy_to_device(staged, stream=stream)
        event.record(stream)


def _next(size):
    """A buffer of at least `size` bytes that no copy reads any more, and its event."""
    if len(_ring) < BUFFERS:
        _ring.append([None, cuda.event(timing=False)])
    else:
        _ring.append(_ring.pop(0))
        _ring[-1][1].synchronize()
    if _ring[-1][0] is None or _ring[-1][0].size < size:
        _ring[-1][0] = cuda.pinned_array(size, np.uint8)
    return _ring[-1]
