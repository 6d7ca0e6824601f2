"""2-D convolution: products of matrices that are never stored (`gemm`), and plain sums where groups have few filters.

The input gradient is a product for each *phase* of pixels, those that the same taps reach: a gather, without atomics.
Of the algorithms in `common.convolution` this floor has these two, and chooses by shape; whatever else is asked for is
computed so. "tf32" and "bf16" are products on tensor cores, in float32 alone, of more than two filters a group.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import cuda, float64

from fastcnn.common.convolution import TENSOR_CORES
from fastcnn.common.geometry import output_shape
from fastcnn.cuda.arrays import contiguous, flat, output
from fastcnn.cuda.gemm import Axis, Operand, Target, Window, add_parts, digits, multiply
from fastcnn.cuda.indices import divide
from fastcnn.cuda.jit import device, kernel
from fastcnn.cuda.memory import empty
from fastcnn.cuda.reduce import block_sum, fold

FEW = 2  # filters of a group, of which a tile of a product would be all but empty
CHUNK = 1024  # pixels of a plane that a block computes
MEMBERS = 64  # threads that share a weight's gradient
PART, PARTS = 2048, 64  # elements of a channel that are summed by a block, at least; blocks at most


def conv_forward(
    x, w, b, stride, pad, dilation=(1, 1), groups=1, relu=False, algo="auto", add=None, out=None
):  # fmt: skip
    """out[n, f] = b[f] + add[n, f] + sum_c x[n, c] (cross-correlated with) w[f, c]; optionally max(out, 0).

    x (N, C, H, W), w (F, C/groups, HH, WW), b (F,) or None, add (N, F, H', W') or None; stride, pad, dilation
    (vertical, horizontal). out (N, F, H', W').
    """
    layer = _Layer(x.shape, w.shape, stride, pad, dilation, groups)
    shape = x.shape[0], w.shape[0], *output_shape(x.shape[2:], w.shape[2:], stride, pad, dilation)
    out = output(out, shape, x.dtype)
    b, add = (None if extra is None else flat(extra) for extra in (b, add))
    if layer.sparse:
        nothing = empty(0, x.dtype)
        b, add = (nothing if extra is None else extra for extra in (b, add))
        grid = layer.grid(layer.filters, layer.windows)
        _grouped_forward[grid](flat(x), flat(w), b, add, layer.numbers, relu, flat(out))
    else:
        layer.forward(flat(x), flat(w), flat(out), b, add, relu, _numbers(algo))
    return out


def conv_moments_forward(x, w, b, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """`conv_forward`, and the mean and (biased) variance of each channel, (F,) each."""
    out = conv_forward(x, w, b, stride, pad, dilation, groups, algo=algo, out=out)
    mean, var = empty(w.shape[0], x.dtype), empty(w.shape[0], x.dtype)
    planes, parts = _planes(out)
    sums = empty((2, *parts), np.float64)
    _moments_of_parts[parts](planes, sums)
    _fold_moments.for_each(mean.size, planes, sums, mean, var)
    return out, mean, var


def conv_backward_input(dout, w, x_shape, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """dx (N, C, H, W) for the gradient dout (N, F, H', W') of `conv_forward`'s output."""
    layer = _Layer(x_shape, w.shape, stride, pad, dilation, groups)
    out = output(out, x_shape, dout.dtype)
    if layer.sparse:
        grid = layer.grid(layer.channels, layer.image)
        _grouped_backward_input[grid](flat(dout), flat(w), layer.numbers, flat(out))
    else:
        layer.backward_input(flat(dout), flat(w), flat(out), _numbers(algo))
    return out


def conv_backward_filter(dout, x, w_shape, stride, pad, dilation=(1, 1), groups=1, algo="auto", out=None):
    """dw (F, C/groups, HH, WW) for the gradient dout (N, F, H', W') of `conv_forward`'s output."""
    layer = _Layer(x.shape, w_shape, stride, pad, dilation, groups)
    out = output(out, w_shape, dout.dtype)
    if layer.sparse:
        parts = _parts(layer.images * math.prod(layer.windows))
        sums = empty(parts * out.size, out.dtype)
        _grouped_backward_filter[out.size, parts](flat(dout), flat(x), layer.numbers, sums)
        add_parts(sums, parts, flat(out))
    else:
        layer.backward_filter(flat(dout), flat(x), flat(out), _numbers(algo))
    return out


def conv_backward_bias(dout, out=None):
    """db (F,) = sum of dout (N, F, H', W') over images and places."""
    out = output(out, dout.shape[1], dout.dtype)
    planes, parts = _planes(dout)
    sums = empty(parts, np.float64)
    _sum_parts[parts](planes, sums)
    fold(sums, out)
    return out


def im2col(x, kernel, stride, pad, dilation=(1, 1), out=None):
    """cols[n, (c HH + i) WW + j, p W' + q] = x[n, c, p stride + i dilation - pad, q stride + j dilation - pad].

    kernel = (HH, WW); cols (N, C HH WW, H' W').
    """
    layer = _Layer(x.shape, (x.shape[1], 1, *kernel), stride, pad, dilation, x.shape[1])
    shape = layer.images, layer.channels * math.prod(kernel), math.prod(layer.windows)
    out = output(out, shape, x.dtype)
    _im2col.for_each(out.size, flat(x), layer.numbers, flat(out))
    return out


def col2im(cols, x_shape, kernel, stride, pad, dilation=(1, 1), out=None):
    """The transpose of `im2col`: each pixel is the sum of the entries of cols that it was copied to."""
    layer = _Layer(x_shape, (x_shape[1], 1, *kernel), stride, pad, dilation, x_shape[1])
    out = output(out, x_shape, cols.dtype)
    _col2im[layer.grid(layer.channels, layer.image)](flat(cols), layer.numbers, flat(out))
    return out


class _Layer:
    """The geometry of a convolution, and its passes as products."""

    def __init__(self, x_shape, w_shape, stride, pad, dilation, groups):
        self.images, self.channels, *self.image = x_shape
        self.filters, self.depth, *self.kernel = w_shape
        self.stride, self.pad, self.dilation, self.groups = stride, pad, dilation, groups
        self.windows = output_shape(self.image, self.kernel, stride, pad, dilation)
        if tuple(self.kernel) == stride == (1, 1) and not any(pad):  # a pixel's neighbours do not matter
            self.image = self.windows = (1, math.prod(self.image))

    @property
    def sparse(self):
        """Whether groups have so few filters that products would be wasteful."""
        return self.groups > 1 and self.filters <= FEW * self.groups

    @property
    def numbers(self):
        """What kernels are told of the geometry."""
        numbers = (
            self.groups, self.channels, self.filters, *self.image, *self.windows, *self.kernel, *self.stride, *self.pad,
            *self.dilation,
        )  # fmt: skip
        return tuple(map(np.int32, numbers))

    def grid(self, planes, size):
        """A block for each CHUNK of the planes of all images."""
        return self.images * planes, -(-math.prod(size) // CHUNK)

    def forward(self, x, w, out, bias, add, relu, numbers):
        """For each group (filters, channels taps) x (channels taps, pixels)."""
        size, taps, plane = math.prod(self.image), math.prod(self.kernel), math.prod(self.windows)
        rows = self.filters // self.groups
        a = Operand(w, (self.depth * taps,), (taps, self.kernel[1], 1), rows * self.depth * taps)
        b = Operand(
            x, self._by_window(self.channels * size), self._by_tap(size), self.depth * size, self._first_pixel
        )  # fmt: skip
        target = Target(
            out, plane, (self.filters * plane, self.windows[1], 1), rows * plane, bias=bias, add=add, relu=relu
        )  # fmt: skip
        columns, k = Axis(self.images, *self.windows), Axis(self.depth, *self.kernel)
        multiply(a, b, target, rows, columns, k, self._window(self.stride, self.dilation), self.groups, numbers)

    def backward_filter(self, dout, x, out, numbers):
        """For each group (filters, pixels) x (pixels, channels taps)."""
        size, taps, plane = math.prod(self.image), math.prod(self.kernel), math.prod(self.windows)
        rows = self.filters // self.groups
        a = Operand(dout, (plane,), (self.filters * plane, self.windows[1], 1), rows * plane)
        b = Operand(
            x, self._by_tap(size), self._by_window(self.channels * size), self.depth * size, self._first_pixel
        )  # fmt: skip
        target = Target(out, self.depth * taps, (taps, self.kernel[1], 1), rows * self.depth * taps)
        columns, k = Axis(self.depth, *self.kernel), Axis(self.images, *self.windows)
        multiply(a, b, target, rows, columns, k, self._window(self.dilation, self.stride), self.groups, numbers)

    def backward_input(self, dout, w, out, numbers):
        """For each phase and group (channels, filters taps) x (filters taps, pixels)."""
        size, taps, plane = math.prod(self.image), math.prod(self.kernel), math.prod(self.windows)
        filters = self.filters // self.groups
        for down in self._phases(0):
            for right in self._phases(1):
                start = down.tap * self.kernel[1] + right.tap
                along = self.depth * taps, down.step * self.kernel[1], right.step
                a = Operand(w, (taps,), along, filters * self.depth * taps, start)
                b = Operand(
                    dout, (self.filters * plane, self.windows[1], 1), (plane, down.move * self.windows[1], right.move),
                    filters * plane, down.window * self.windows[1] + right.window,
                )  # fmt: skip
                target = Target(
                    out, size, (self.channels * size, self.stride[0] * self.image[1], self.stride[1]),
                    self.depth * size, down.pixel * self.image[1] + right.pixel,
                )  # fmt: skip
                window = None
                if self._bounded:
                    window = Window(*self.windows, (1, 1), (down.move, right.move), (down.window, right.window))
                columns = Axis(self.images, down.pixels, right.pixels)
                k = Axis(filters if down.taps and right.taps else 0, max(down.taps, 1), max(right.taps, 1))
                parts = None if self.stride == (1, 1) else 1
                multiply(a, b, target, self.depth, columns, k, window, self.groups, numbers, parts=parts)

    @property
    def _bounded(self):
        """Whether windows, or taps that reach a pixel, may lie outside."""
        return tuple(self.kernel) != (1, 1) or self.stride != (1, 1) or any(self.pad)

    @property
    def _first_pixel(self):
        return -self.pad[0] * self.image[1] - self.pad[1]

    def _by_window(self, outer):
        """Strides of x from image to image and window to window."""
        return outer, self.stride[0] * self.image[1], self.stride[1]

    def _by_tap(self, outer):
        """Strides of x from channel to channel and tap to tap."""
        return outer, self.dilation[0] * self.image[1], self.dilation[1]

    def _window(self, across, along):
        """Where x is zero; nowhere without padding."""
        return Window(*self.image, across, along, (-self.pad[0], -self.pad[1])) if any(self.pad) else None

    def _phases(self, axis):
        """The phases of pixels along an axis."""
        stride, pad, dilation = self.stride[axis], self.pad[axis], self.dilation[axis]
        step = stride // math.gcd(stride, dilation)
        for pixel in range(min(stride, self.image[axis])):
            taps = [i for i in range(min(step, self.kernel[axis])) if (pixel + pad - i * dilation) % stride == 0]
            tap = taps[0] if taps else self.kernel[axis]
            yield _Phase(
                pixel, -(-(self.image[axis] - pixel) // stride), tap, step, -(-(self.kernel[axis] - tap) // step),
                (pixel + pad - tap * dilation) // stride, -step * dilation // stride,
            )  # fmt: skip


class _Phase(NamedTuple):
    """Pixels pixel, pixel + stride, ... and the taps tap, tap + step, ... that reach them.

    Pixel number t is reached by tap number m of window + t + m move.
    """

    pixel: int
    pixels: int
    tap: int
    step: int
    taps: int
    window: int
    move: int


def _numbers(algo):
    """The format of tensor cores that an algorithm stands for, or None."""
    return algo if algo in TENSOR_CORES else None


def _planes(x):
    """(N, C, H, W) as (N, C, H W), and the grid (C, parts) of the blocks that sum its channels."""
    n, c, h, w = x.shape
    return contiguous(x).reshape(n, c, h * w), (c, _parts(n * h * w))


def _parts(count):
    return max(1, min(PARTS, count // PART))


@device
def covering(pixel, tap, pad, stride, dilation, count):
    """The window, of `count`, whose tap covers a pixel, or -1."""
    reach = np.int32(pixel + pad - tap * dilation)
    if reach < 0:
        return np.int32(-1)
    window, rest = divide(reach, stride)
    return window if rest == 0 and window < count else np.int32(-1)


_NUMBERS = "UniTuple(int32, 15)"


@kernel(f"T[::1], T[::1], T[::1], T[::1], {_NUMBERS}, bool_, T[::1]", threads=128)
def _grouped_forward(x, w, bias, add, numbers, relu, out):
    """Blocks (plane of out, chunk)."""
    groups, channels, filters, height, width, lines, places, down, right = numbers[:9]
    stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h = numbers[9:]
    image, f = divide(np.int32(cuda.blockIdx.x), filters)
    depth = divide(channels, groups)[0]
    group = divide(f, divide(filters, groups)[0])[0]
    first, end = np.int32(cuda.blockIdx.y * CHUNK + cuda.threadIdx.x), (cuda.blockIdx.y + 1) * CHUNK
    for i in range(first, min(end, lines * places), cuda.blockDim.x):
        p, q = divide(np.int32(i), places)
        total = bias[f] if bias.size else x.dtype.type(0)
        for tap_v in range(down):
            y = np.int32(p * stride_v + tap_v * dilation_v - pad_v)
            for tap_h in range(right if y >= 0 and y < height else 0):
                z = np.int32(q * stride_h + tap_h * dilation_h - pad_h)
                for c in range(depth if z >= 0 and z < width else 0):
                    weight = w[np.int32(((f * depth + c) * down + tap_v) * right + tap_h)]
                    plane = image * channels + group * depth + c
                    total += weight * x[np.int32((plane * height + y) * width + z)]
        at = np.int32(cuda.blockIdx.x * lines * places + i)
        if add.size:
            total += add[at]
        out[at] = x.dtype.type(0) if relu and total < 0 else total


@kernel(f"T[::1], T[::1], {_NUMBERS}, T[::1]", threads=128)
def _grouped_backward_input(dout, w, numbers, dx):
    """Blocks (plane of dx, chunk)."""
    groups, channels, filters, height, width, lines, places, down, right = numbers[:9]
    stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h = numbers[9:]
    image, channel = divide(np.int32(cuda.blockIdx.x), channels)
    depth, few = divide(channels, groups)[0], divide(filters, groups)[0]
    group, c = divide(channel, depth)
    first, end = np.int32(cuda.blockIdx.y * CHUNK + cuda.threadIdx.x), (cuda.blockIdx.y + 1) * CHUNK
    for i in range(first, min(end, height * width), cuda.blockDim.x):
        y, z = divide(np.int32(i), width)
        total = dout.dtype.type(0)
        for tap_v in range(down):
            p = covering(y, tap_v, pad_v, stride_v, dilation_v, lines)
            for tap_h in range(right if p >= 0 else 0):
                q = covering(z, tap_h, pad_h, stride_h, dilation_h, places)
                for f in range(group * few, (group + 1) * few if q >= 0 else 0):
                    weight = w[np.int32(((f * depth + c) * down + tap_v) * right + tap_h)]
                    total += weight * dout[np.int32(((image * filters + f) * lines + p) * places + q)]
        dx[np.int32(cuda.blockIdx.x * height * width + i)] = total


@kernel(f"T[::1], T[::1], {_NUMBERS}, T[::1]", threads=MEMBERS)
def _grouped_backward_filter(dout, x, numbers, parts):
    """Blocks (element of dw, part): each sums over a part of the windows of all images."""
    groups, channels, filters, height, width, lines, places, down, right = numbers[:9]
    stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h = numbers[9:]
    sums = cuda.shared.array(MEMBERS, float64)
    pair, tap_v, tap_h = digits(np.int32(cuda.blockIdx.x), down, right)
    depth = divide(channels, groups)[0]
    f, c = divide(pair, depth)
    channel = divide(f, divide(filters, groups)[0])[0] * depth + c
    images = divide(np.int32(x.size), channels * height * width)[0]
    thread, total = cuda.threadIdx.x, x.dtype.type(0)
    for i in range(cuda.blockIdx.y * MEMBERS + thread, images * lines * places, cuda.gridDim.y * MEMBERS):
        image, p, q = digits(np.int32(i), lines, places)
        y = np.int32(p * stride_v + tap_v * dilation_v - pad_v)
        z = np.int32(q * stride_h + tap_h * dilation_h - pad_h)
        if y >= 0 and y < height and z >= 0 and z < width:
            pixel = x[np.int32(((image * channels + channel) * height + y) * width + z)]
            total += pixel * dout[np.int32(((image * filters + f) * lines + p) * places + q)]
    sums[thread] = total
    cuda.syncthreads()
    if thread == 0:
        for i in range(1, MEMBERS):
            sums[0] += sums[i]
        parts[cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x] = sums[0]


@kernel("T[:, :, ::1], float64[:, ::1]")
def _sum_parts(x, parts):
    """Blocks (channel, part) of x (N, C, H W)."""
    plane, total = np.int32(x.shape[2]), np.float64(0)
    first, step = np.int32(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x), cuda.gridDim.y * cuda.blockDim.x
    for i in range(first, x.shape[0] * plane, step):
        image, place = divide(np.int32(i), plane)
        total += x[image, cuda.blockIdx.x, place]
    total = block_sum(total)
    if cuda.threadIdx.x == 0:
        parts[cuda.blockIdx.x, cuda.blockIdx.y] = total


@kernel("T[:, :, ::1], float64[:, :, ::1]")
def _moments_of_parts(x, sums):
    """Blocks (channel, part): sums of d and of d^2, d the distance to the channel's first element."""
    channel, plane, total, squares = cuda.blockIdx.x, np.int32(x.shape[2]), np.float64(0), np.float64(0)
    first, step = np.int32(cuda.blockIdx.y * cuda.blockDim.x + cuda.threadIdx.x), cuda.gridDim.y * cuda.blockDim.x
    for i in range(first, x.shape[0] * plane, step):
        image, place = divide(np.int32(i), plane)
        distance = x[image, channel, place] - x[0, channel, 0]
        total += distance
        squares += float64(distance) * float64(distance)
    total = block_sum(total)
    squares = block_sum(squares)
    if cuda.threadIdx.x == 0:
        sums[0, channel, cuda.blockIdx.y] = total
        sums[1, channel, cuda.blockIdx.y] = squares


@kernel("T[:, :, ::1], float64[:, :, ::1], T[::1], T[::1]")
def _fold_moments(x, sums, mean, var):
    """A thread for each channel."""
    channel, total, squares = np.int32(cuda.grid(1)), np.float64(0), np.float64(0)
    if channel < mean.size:
        for part in range(sums.shape[2]):
            total += sums[0, channel, part]
            squares += sums[1, channel, part]
        count = float64(x.shape[0] * x.shape[2])
        offset = total / count if count else 0.0
        mean[channel] = (x[0, channel, 0] if count else x.dtype.type(0)) + offset
        var[channel] = max(squares / count - offset * offset, 0.0) if count else 0.0


@kernel(f"T[::1], {_NUMBERS}, T[::1]")
def _im2col(x, numbers, cols):
    """A thread for each element of cols."""
    i = np.int32(cuda.grid(1))
    if i < cols.size:
        _, _, _, height, width, lines, places, down, right = numbers[:9]
        stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h = numbers[9:]
        rest, p, q = digits(i, lines, places)
        plane, tap_v, tap_h = digits(rest, down, right)
        y = np.int32(p * stride_v + tap_v * dilation_v - pad_v)
        z = np.int32(q * stride_h + tap_h * dilation_h - pad_h)
        inside = y >= 0 and y < height and z >= 0 and z < width
        cols[i] = x[np.int32((plane * height + y) * width + z)] if inside else x.dtype.type(0)


@kernel(f"T[::1], {_NUMBERS}, T[::1]", threads=128)
def _col2im(cols, numbers, x):
    """Blocks (plane of x, chunk)."""
    _, _, _, height, width, lines, places, down, right = numbers[:9]
    stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h = numbers[9:]
    start = np.int32(cuda.blockIdx.y * CHUNK + cuda.threadIdx.x)
    for i in range(start, min((cuda.blockIdx.y + 1) * CHUNK, height * width), cuda.blockDim.x):
        y, z = divide(np.int32(i), width)
        total = cols.dtype.type(0)
        for tap_v in range(down):
            p = covering(y, tap_v, pad_v, stride_v, dilation_v, lines)
            for tap_h in range(right if p >= 0 else 0):
                q = covering(z, tap_h, pad_h, stride_h, dilation_h, places)
                if q >= 0:
                    row = (cuda.blockIdx.x * down + tap_v) * right + tap_h
                    total += cols[np.int32((row * lines + p) * places + q)]
        x[np.int32(cuda.blockIdx.x * height * width + i)] = total
