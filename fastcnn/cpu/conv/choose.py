"""Which algorithm computes a convolution on this floor: the one that a small cost model finds the cheapest.

The model counts cycles of one core, from shapes alone, as the loops of `direct` and `winograd` run: multiply-adds, one
vector a cycle, and per vector of numbers what the transforms, packing and epilogues cost. The constants were measured
on an AMD Zen 4 with AVX-512; they are ratios of work in registers and caches, which differ little between CPUs.
Traffic to memory is left out: it is about the same for all.

Winograd loses digits, the more the larger its tiles of n x n products are (relative errors in float32: 1e-7 for direct,
4e-7 for n = 4, 1.5e-6 for n = 6, 6e-6 for n = 8; with a stride of 2, 3e-7 for direct and n = 5, 8e-7 for n = 9), so the
less accurate of two must be faster by `GAIN`.
"""

from fastcnn.common.convolution import WINOGRAD, applies
from fastcnn.common.geometry import output_shape
from fastcnn.cpu.conv import depthwise, direct, im2col, winograd
from fastcnn.cpu.microkernel import ROWS, lanes

MODULES = {
    "direct": direct,
    "im2col": im2col,
    "depthwise": depthwise,
    "winograd_f2x3": winograd.F2x3,
    "winograd_f4x3": winograd.F4x3,
    "winograd_f6x3": winograd.F6x3,
    "winograd_f2x5": winograd.F2x5,
    "winograd_f4x5": winograd.F4x5,
    "winograd_f2x3s2": winograd.F2x3S2,
    "winograd_f4x3s2": winograd.F4x3S2,
}
GAIN = 1.15
SHIFT = 8  # cycles to add a vector of pixels, times a tap, to a row
GATHER, EMIT = 10, 15  # cycles per vector of pixels moved into panels, and out of them; times the stride
TILE_IN = {4: 110, 5: 260, 6: 310, 8: 440, 9: 700}  # per vector of tiles, by n
TILE_OUT = {4: 60, 5: 160, 6: 190, 8: 500, 9: 300}
FILTER_IN = {4: 250, 5: 300, 6: 330, 8: 450, 9: 500}  # per vector of filters, for one channel
PRODUCT = {4: 1, 5: 1, 6: 1, 8: 1, 9: 1.3}  # per vector of products: V of the largest n is the first to leave the cache


def algorithm(name, direction, x_shape, w_shape, stride, pad, dilation, groups, dtype):
    """The module that computes by algorithm `name`, or directly where that does not apply.

    "auto" is the cheapest, "accurate" one that rounds no more than the sums themselves need.
    `direction` is "forward", "backward_input" or "backward_filter".
    """
    if name == "auto":
        found = costs(direction, x_shape, w_shape, stride, pad, dilation, groups, dtype)
        name = min(found, key=found.get)
    elif name not in MODULES or not applies(name, w_shape, stride, pad, dilation, groups):
        name = "depthwise" if w_shape[1] == 1 and groups > 1 else "direct"
    return MODULES[name]


def costs(direction, x_shape, w_shape, stride, pad, dilation, groups, dtype):
    """Estimated cycles by algorithm, for those that "auto" considers; the less accurate ones are charged."""
    size = lanes(dtype)
    n, c, *image = x_shape
    f, kernel = w_shape[0], tuple(w_shape[2:])
    windows = output_shape(image, kernel, stride, pad, dilation)
    places, taps = -(-n * windows[0] * windows[1] // size), kernel[0] * kernel[1]
    rows, depth, out = f // groups, w_shape[1] * taps, f
    if direction == "backward_input":
        places, rows, depth, out = -(-n * image[0] * image[1] // size), w_shape[1], f // groups * taps, c
        depth = depth / (stride[0] * stride[1])  # on the average of the phases
    gather, emit = GATHER * stride[1], EMIT * (stride[1] if direction == "backward_input" else 1)
    if direction == "backward_filter":
        cycles = _up(rows, ROWS) * depth + gather * (depth + rows * -(-depth // 128))
    else:
        cycles = _up(rows, ROWS) * depth + gather * depth + emit * out // groups
    found = {"direct": places * groups * cycles}
    if groups > 1 and applies("depthwise", w_shape, stride, pad, dilation, groups):
        found["depthwise"] = places * f * taps * SHIFT
    for name, tiling in WINOGRAD.items():
        if applies(name, w_shape, stride, pad, dilation, groups):
            grid, tile = windows, tiling.tile
            if direction == "backward_input":
                grid, tile = image, tile * tiling.stride
            tiles = n * -(-grid[0] // tile) * -(-grid[1] // tile)
            lost = len(found) - (tiling.stride > 1)  # with a stride, the smallest tiles lose no more than `direct`
            found[name] = _winograd(direction, tiling.products, tiles, c, f, size) * GAIN**lost
    return found


def _winograd(direction, width, tiles, c, f, size):
    """For `width` x `width` products to a tile, filter and channel."""
    if direction == "backward_input":
        c, f = f, c
    if direction == "backward_filter":
        channels, filters = -(-c // size), -(-f // size)
        transforms = TILE_IN[width] * channels * tiles + TILE_IN[width] * 0.8 * filters * tiles
        products = PRODUCT[width] * width**2 * tiles * _up(f, ROWS) * channels
        return transforms + products + FILTER_IN[width] * f * channels
    tiles = -(-tiles // size)
    transforms = tiles * (c * TILE_IN[width] + f * TILE_OUT[width]) + FILTER_IN[width] * c * -(-f // size)
    return transforms + PRODUCT[width] * width**2 * tiles * c * _up(f, ROWS)


def _up(count, unit):
    return -(-count // unit) * unit


def explain(algo, x_shape, w_shape, stride, pad, dilation, groups, dtype):
    """What `algorithm` chooses: by direction the algorithm's name, and the costs where these decide."""
    names, choice = {module: name for name, module in MODULES.items()}, {}
    for direction in ("forward", "backward_input", "backward_filter"):
        shapes = x_shape, w_shape, stride, pad, dilation, groups, dtype
        found = costs(direction, *shapes) if algo == "auto" else {}
        choice[direction] = names[algorithm(algo, direction, *shapes)], found
    return choice
