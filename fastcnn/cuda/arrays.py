"""Arrays on the GPU as kernels want them, and their way to the device and back."""

import math

import numpy as np
from numba import cuda

from fastcnn.common.device import is_device
from fastcnn.cuda import staging
from fastcnn.cuda.errors import CudaUnavailableError, translated
from fastcnn.cuda.jit import SIMULATED, current_stream, kernel, require_device
from fastcnn.cuda.memory import MOST, empty, interface

_LEGACY_STREAM = 1  # the name of the default stream in DLPack
AXES = 6  # that an array which is not contiguous may have, once those that can be joined are


class _Alias:
    """Memory that belongs to `owner`, described for numba."""

    def __init__(self, owner, pointer, shape, strides, dtype):
        self.owner = owner
        self.__cuda_array_interface__ = interface(pointer, shape, strides, dtype)


def to_device(array):
    """A copy of a host array on the GPU; a device array is returned itself."""
    require_device()
    if is_device(array):
        return adopt("array", array)
    array = np.ascontiguousarray(array)  # of no axes: one
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    out = empty(array.shape, array.dtype)
    if array.size:
        with translated("copying to the GPU"):
            out.copy_to_device(array) if SIMULATED else staging.copy_to(out, array)
    return out


def to_host(array):
    """A copy of a device array as a NumPy array; waits for the kernels that write it."""
    array = contiguous(adopt("array", array))
    with translated("copying from the GPU"):
        stream = current_stream()
        host = array.copy_to_host(stream=stream) if array.size else np.empty(tuple(array.shape), array.dtype)
        if stream:
            stream.synchronize()
    return host


def adopt(name, array):
    """Any array of a GPU (numba's, CuPy's, PyTorch's, ...) as a numba device array on the same memory.

    Raises
    ------
    TypeError
        If it lies in host memory.
    ValueError
        If it lies on another GPU than the current one, or has more elements than kernels can count.
    """
    require_device()
    found = _adopted(name, array)
    if found.size > MOST:
        raise ValueError(f"{name}: expected at most {MOST:,} elements on a GPU, got {found.size:,}")
    return found


def _adopted(name, array):
    if getattr(array, "__cuda_ndarray__", False):
        _check_device(name, array)
        return array
    if not is_device(array):
        raise TypeError(
            f"{name}: expected an array on the GPU, as the others, got {type(array).__name__} in host memory; "
            f"fastcnn.to_device({name}) copies it"
        )
    try:
        with translated(f"{name}: reading the array"):
            if not hasattr(array, "__cuda_array_interface__"):
                array = _from_dlpack(array)
            return _as_numba(name, array)
    except (RuntimeError, AttributeError, BufferError) as error:
        if isinstance(error, CudaUnavailableError):
            raise
        raise ValueError(f"{name}: expected an array on the current GPU that can be read, got {error}") from error


def contiguous(x):
    """`x` itself, or a C-contiguous copy of it."""
    return x if is_contiguous(x) else copy(x)


def flat(x):
    """`contiguous(x)` with all axes in one."""
    return contiguous(x).reshape(x.size)


def output(out, shape, dtype):
    """`out`, or a new array of that shape and dtype where it is None."""
    return empty(shape, dtype) if out is None else out


def copy(x, dtype=None, out=None):
    """A C-contiguous copy, of another dtype if wanted; or x's elements in `out`, an array of x's shape."""
    out = empty(tuple(x.shape), dtype or x.dtype) if out is None else out
    shape, source, target = _joined(x.shape, x.strides, out.strides)
    if len(shape) > AXES:
        raise ValueError(f"expected an array whose memory has at most {AXES} different strides, got {tuple(x.strides)}")
    fill = AXES - len(shape)
    shape, source, target = (1,) * fill + shape, (0,) * fill + source, (0,) * fill + target
    if x.size:
        _copy.for_each(x.size, _view(x, shape, source), _view(out, shape, target))
    return out


def transposed(x):
    """A view of x with its axes in reverse order; numba has none beyond matrices, of which it makes copies."""
    return _view(x, tuple(reversed(tuple(x.shape))), tuple(reversed(tuple(x.strides))))


def filled(shape, value, dtype):
    """A new array of one value."""
    out = empty(shape, dtype)
    if out.size:
        _fill.for_each(out.size, out.reshape(out.size), out.dtype.type(value))
    return out


def bounds(x):
    """Addresses of the first byte of an array and of the one after its last."""
    if not x.size:
        return 0, 0
    first = x._ary.ctypes.data if SIMULATED else x.__cuda_array_interface__["data"][0]
    reach = [stride * (n - 1) for n, stride in zip(x.shape, x.strides)]
    return first + sum(min(r, 0) for r in reach), first + sum(max(r, 0) for r in reach) + x.dtype.itemsize


def aligned(*arrays):
    """Whether vectors of 16 bytes can be loaded from the beginning of all these arrays."""
    return all(bounds(x)[0] % 16 == 0 for x in arrays)


def _as_numba(name, array):
    """The array as numba's; kernels of ours run after what its own library still computes with it."""
    given = array.__cuda_array_interface__
    if math.prod(given["shape"]):
        _check_place(name, _device_of(given["data"][0]))
    stream = given.get("stream")
    if stream is not None and stream != (int(current_stream()) or _LEGACY_STREAM):
        event = cuda.event(timing=False)
        event.record(cuda.external_stream(stream))
        event.wait(current_stream() or cuda.default_stream())
    found = cuda.as_cuda_array(array, sync=False)
    found.stream = 0  # ours, whichever is current
    return found


def _device_of(pointer):
    """The number of the GPU in whose memory an address lies."""
    from numba.cuda.cudadrv.driver import binding, driver

    attribute = binding.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(driver.cuPointerGetAttribute(attribute, binding.CUdeviceptr(pointer)))


def _from_dlpack(array):
    from cuda.core.utils import StridedMemoryView  # comes with numba-cuda

    view = StridedMemoryView.from_dlpack(array, stream_ptr=int(current_stream()) or _LEGACY_STREAM)
    strides = None if view.strides is None else tuple(s * view.dtype.itemsize for s in view.strides)
    return _Alias(view, view.ptr, view.shape, strides, np.dtype(view.dtype))


def _check_device(name, array):
    if not SIMULATED and array.size:
        _check_place(name, array.gpu_data.context.device.id)


def _check_place(name, there):
    here = cuda.get_current_device().id
    if here != there:
        raise ValueError(f"{name}: expected an array on GPU {here}, the current one, got one on GPU {there}")


def is_contiguous(x):
    """Whether the elements of x follow each other in C order."""
    size = x.dtype.itemsize
    for n, stride in zip(reversed(tuple(x.shape)), reversed(tuple(x.strides))):
        if n != 1 and stride != size:
            return x.size == 0
        size *= n
    return True


def _joined(shape, *all_strides):
    """Shape and strides with neighbouring axes joined that are one axis in memory, and those of length 1 left out."""
    axes = []
    for n, *strides in zip(shape, *all_strides):
        if n == 1:
            continue
        if axes and all(outer == inner * n for outer, inner in zip(axes[-1][1:], strides)):
            axes[-1] = (axes[-1][0] * n, *strides)
        else:
            axes.append((n, *strides))
    return tuple(zip(*axes)) or ((),) * (1 + len(all_strides))


def _view(x, shape, strides):
    """The memory of x under another shape, strides in bytes."""
    if SIMULATED:
        return type(x)(np.lib.stride_tricks.as_strided(x._ary, shape, strides))
    pointer = x.__cuda_array_interface__["data"][0]
    return cuda.as_cuda_array(_Alias(x, pointer, shape, tuple(strides), x.dtype))


_ANY = "T[:, :, :, :, :, :]"


@kernel(f"{_ANY}, {_ANY}", registers=64)
def _copy(x, out):
    """out = x, arrays of AXES axes and any strides."""
    i = cuda.grid(1)
    if i < x.size:
        f = i % x.shape[5]
        i //= x.shape[5]
        e = i % x.shape[4]
        i //= x.shape[4]
        d = i % x.shape[3]
        i //= x.shape[3]
        c = i % x.shape[2]
        i //= x.shape[2]
        out[i // x.shape[1], i % x.shape[1], c, d, e, f] = x[i // x.shape[1], i % x.shape[1], c, d, e, f]


@kernel("T[::1], T")
def _fill(out, value):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = value
