"""The checks of all layers: what is given is right, or an error names the argument, what was expected and what came.

Floors check nothing. What passes here is what they rely on: plain arrays of one native dtype, float32 or float64, with
valid shapes, and an output buffer that overlaps no input.
"""

import math
from collections.abc import Mapping
from numbers import Real
from operator import index

import numpy as np

from fastcnn.common.geometry import output_shape
from fastcnn.layers import device

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


# ---- arrays


def floats(**arrays):
    """The named arrays as plain arrays of one floating dtype, in order; None stays None.

    An array that needs no conversion is returned itself. float32 and float64 together give float64; both byte orders
    are read. Array-likes are taken if they hold floating-point numbers. Arrays on a GPU, of any library, come back as
    numba's device arrays.

    Raises
    ------
    TypeError
        For any other dtype, the message says how to convert; and for arrays of which only some are on a GPU.
    ValueError
        For arrays on another GPU than the current one.
    """
    dtype = None
    for array in arrays.values():
        if array is None:
            continue
        if type(array) is not np.ndarray or not array.flags.aligned:
            break
        if array.dtype is not dtype:
            if dtype is not None or (array.dtype is not _FLOAT32 and array.dtype is not _FLOAT64):
                break
            dtype = array.dtype
    else:
        return tuple(arrays.values())
    return _converted(arrays)


def _converted(arrays):
    if any(map(device.is_device, arrays.values())):
        return _converted_on_device(arrays)
    plain = {name: None if array is None else _as_floating(name, array) for name, array in arrays.items()}
    dtype = np.result_type(*(array.dtype for array in plain.values() if array is not None))
    return tuple(None if array is None else np.require(array, dtype, "A") for array in plain.values())


def _converted_on_device(arrays):
    module = device.arrays()
    plain = {name: None if array is None else module.adopt(name, array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array is not None:
            _check_floating(name, array)
    dtype = np.result_type(*(array.dtype for array in plain.values() if array is not None))
    return tuple(a if a is None or a.dtype == dtype else device.copy(a, dtype) for a in plain.values())


def _as_floating(name, array):
    array = as_array(name, array)
    _check_floating(name, array)
    return array


def _check_floating(name, array):
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        raise TypeError(
            f"{name}: expected float32 or float64, got {array.dtype}; convert it, e.g. {name}.astype(np.float32)"
        )


def as_array(name, value):
    """`np.asarray` whose errors name the argument; an array on a GPU stays there."""
    if device.is_device(value):
        return device.arrays().adopt(name, value)
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name}: expected an array, got {type(value).__name__} ({error})") from error


def rank(name, array, layout):
    """`array` has as many axes as `layout` has names: ``rank("x", x, "(N, C, H, W)")``."""
    axes(name, array.shape, layout)


def axes(name, shape, layout):
    """`shape` has as many axes as `layout` has names."""
    if len(shape) != layout.count(",") + 1:
        raise ValueError(f"{name}: expected shape {layout}, got {tuple(shape)}")


def same_memory(**arrays):
    """The named arrays, plain ones, lie all on the GPU or all in the memory of the host."""
    first, *others = arrays
    for name in others:
        if device.is_device(arrays[name]) != device.is_device(arrays[first]):
            where = {True: "on the GPU", False: "in the memory of the host"}
            raise TypeError(
                f"{name}: expected an array {where[device.is_device(arrays[first])]}, as {first}, got one "
                f"{where[device.is_device(arrays[name])]}; fastcnn.to_device and fastcnn.to_host copy arrays"
            )


def at_least_2d(name, array):
    """`array` has a batch axis and at least one more."""
    if array.ndim < 2:
        raise ValueError(f"{name}: expected shape (N, C, ...), got {array.shape}")


def shape(name, array, *expected):
    """`array` (if there is one) has one of the expected shapes."""
    if array is not None and array.shape not in expected:
        raise ValueError(f"{name}: expected shape {' or '.join(map(str, expected))}, got {array.shape}")


def labels(x, y, images, classes):
    """Class labels y (images,) for scores x, of any integer dtype, each in [0, classes), as intp; on a GPU as given."""
    same_memory(x=x, y=y)
    if y.dtype.kind not in "iu":
        raise TypeError(f"y: expected integer labels (N,) or floating soft targets (N, C), got {y.dtype} {y.shape}")
    shape("y", y, (images,))
    if device.is_device(y):  # whose values the kernel checks
        return y
    if images and not (0 <= y.min() and y.max() < classes):
        wrong = y[(y < 0) | (y >= classes)][0]
        raise ValueError(f"y: expected labels in [0, {classes}), got {wrong}")
    return y.astype(np.intp, copy=False)


# ---- numbers and choices


def integer(name, value, low, high=math.inf):
    """An int in [low, high]."""
    if type(value) is not int:
        value = _index(name, value, "an int")
    if not low <= value <= high:
        raise ValueError(f"{name}: expected an int {_range(low, high)}, got {value}")
    return value


def pair(name, value, low):
    """An int, or a pair of ints (vertical, horizontal), as a pair; each at least `low`."""
    if type(value) is int:
        first = second = value
    elif isinstance(value, (tuple, list, np.ndarray)) and np.ndim(value):
        if len(value) != 2:
            raise ValueError(f"{name}: expected an int or a pair of ints, got {value}")
        first, second = (_index(name, part, "an int or a pair of ints") for part in value)
    else:
        first = second = _index(name, value, "an int or a pair of ints")
    if first < low or second < low:
        raise ValueError(f"{name}: expected ints {_range(low, math.inf)}, got {value}")
    return first, second


def _index(name, value, expected):
    if not isinstance(value, (bool, np.bool_)):
        try:
            return index(value)
        except TypeError:
            pass
    raise TypeError(f"{name}: expected {expected}, got {value!r}")


def _range(low, high):
    return f"of at least {low}" if high == math.inf else f"in [{low}, {high}]"


def number(name, value, low=-math.inf, high=math.inf, above=-math.inf):
    """A float in [low, high] and greater than `above`."""
    if type(value) is not float:
        if not isinstance(value, Real) and not (isinstance(value, np.ndarray) and value.ndim == 0):
            raise TypeError(f"{name}: expected a number, got {value!r}")
        value = float(value)
    if not (low <= value <= high and value > above):  # written so that NaN fails
        bottom = f"({above}" if above >= low else f"[{low}"
        raise ValueError(f"{name}: expected a number in {bottom}, {high}], got {value}")
    return value


def divisor(name, value, channels):
    """An int that divides a number of channels."""
    value = integer(name, value, 1)
    if channels % value:
        raise ValueError(f"{name}: expected a divisor of C = {channels}, got {value}")
    return value


def choice(name, value, options):
    """One of the options."""
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, options))}, got {value!r}")
    return value


# ---- parameter dictionaries


def parameters(name, given, defaults, **keywords):
    """Parameters from a dictionary, from keywords, or from both; a keyword that is not None wins.

    The dictionary itself is returned when nothing is added to it. `defaults` hold only where there is no dictionary:
    what a dictionary must contain is asked for by `required`.
    """
    added = {key: value for key, value in keywords.items() if value is not None}
    if given is None:
        return {**defaults, **added}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected a dictionary, got {type(given).__name__}")
    return {**given, **added} if added else given


def required(name, param, key):
    """``param[key]``, which must be there."""
    if key not in param:
        raise ValueError(f"{name}[{key!r}] is missing, got the keys {', '.join(map(repr, param)) or 'none'}")
    return param[key]


# ---- geometry


def window(size, kernel, stride, pad, dilation=(1, 1)):
    """Output size (H', W') of a sliding window that fits into the padded image; all arguments are pairs."""
    if min(size) < 1 or min(kernel) < 1:
        raise ValueError(f"window: expected images and kernels of at least 1 x 1, got {size} and {kernel}")
    output = output_shape(size, kernel, stride, pad, dilation)
    if min(output) < 1:
        raise ValueError(
            f"kernel {kernel} with dilation {dilation}: expected to fit into the padded image, "
            f"got an image of {size} with pad {pad}"
        )
    return output


# ---- outputs


def buffer(out, dims, dtype, inputs, in_place=False):
    """What a floor may write into directly: `out`, or None for "allocate", when `deliver` copies the result over.

    A floor writes into a C-contiguous `out` that overlaps none of the inputs; with `in_place`, also into one that is
    exactly the first input and overlaps no other.

    Raises
    ------
    TypeError
        When out is no array, or not of the dtype of the result.
    ValueError
        When out is not of the shape of the result, or is read-only.
    """
    if out is None:
        return None
    if device.is_device(inputs[0]):
        return _device_buffer(out, dims, dtype, inputs, in_place)
    if not isinstance(out, np.ndarray) or out.dtype != dtype:
        raise TypeError(f"out: expected an array of {dtype}, got {getattr(out, 'dtype', type(out).__name__)}")
    if out.shape != dims:
        raise ValueError(f"out: expected shape {dims}, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writable array, got a read-only one")
    if in_place and out is inputs[0]:
        inputs = inputs[1:]
    direct = type(out) is np.ndarray and out.flags.carray and not overlap(out, *inputs)
    return out if direct else None


def _device_buffer(out, dims, dtype, inputs, in_place):
    target = device.arrays().adopt("out", out)
    if getattr(out, "__cuda_array_interface__", {}).get("data", (0, False))[1]:
        raise ValueError("out: expected a writable array, got a read-only one")
    if target.dtype != dtype:
        raise TypeError(f"out: expected an array of {dtype}, got {target.dtype}")
    shape("out", target, dims)
    if in_place and device.arrays().bounds(target) == device.arrays().bounds(inputs[0]):
        inputs = inputs[1:]
    return target if device.arrays().is_contiguous(target) and not overlap(target, *inputs) else None


def deliver(result, direct, out):
    """The result of a floor in the array that the caller asked for; `direct` is what `buffer` said."""
    if out is None:
        return result
    if direct is None:
        device.assign(device.arrays().adopt("out", out) if device.is_device(out) else out, result)
    return out


def keep(out, *arrays):
    """The arrays for a cache: copies of those that writing to `out` would spoil."""
    if out is None:
        return arrays
    return tuple(device.copy(array) if overlap(out, array) else array for array in arrays)


def overlap(out, *arrays):
    """Whether `out` may share memory with one of the arrays; either may be None.

    This is judged by bounds, which may see an overlap where there is none: that costs a copy, never a wrong result.
    """
    if out is None:
        return False
    given = [array for array in arrays if array is not None]
    if device.is_device(out):
        bounds = device.arrays().bounds
        (first, last), others = bounds(device.arrays().adopt("out", out)), map(bounds, given)
        return any(first < end and begin < last for begin, end in others)
    return any(np.may_share_memory(out, array) for array in given)
