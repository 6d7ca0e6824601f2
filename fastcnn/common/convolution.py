"""The algorithms that compute a convolution, by name, and where each applies: the same on every floor."""

from typing import NamedTuple


class Tiling(NamedTuple):
    """What one of Winograd's algorithms takes, along each axis."""

    tile: int  # outputs
    taps: int
    stride: int = 1

    @property
    def products(self):
        """Per tile, filter and channel."""
        return self.stride * (self.tile - 1) + self.taps


# Winograd's minimal filtering, the most accurate first.
WINOGRAD = {
    "winograd_f2x3": Tiling(2, 3),
    "winograd_f4x3": Tiling(4, 3),
    "winograd_f6x3": Tiling(6, 3),
    "winograd_f2x5": Tiling(2, 5),
    "winograd_f4x5": Tiling(4, 5),
    "winograd_f2x3s2": Tiling(2, 3, stride=2),
    "winograd_f4x3s2": Tiling(4, 3, stride=2),
}
ALGORITHMS = ("direct", "im2col", "depthwise", *WINOGRAD)
TENSOR_CORES = ("tf32", "bf16")  # direct, with numbers rounded to these formats and summed in float32: on a GPU only
CHOICES = ("auto", "accurate", *ALGORITHMS)  # what a caller may ask for, anywhere
# What a floor tells apart, where that is not all CHOICES; it computes the others as the first of these.
DISTINCT = {"cuda": ("direct", *TENSOR_CORES)}


def applies(name, w_shape, stride, pad, dilation, groups):
    """Whether algorithm `name` computes a convolution with filters w (F, C/groups, HH, WW).

    stride, pad and dilation are pairs (vertical, horizontal).

    Winograd's algorithms take filters of as many taps and the stride that their names say (without one, 1), dilation 1,
    one group, and padding of less than a filter; "depthwise" takes filters of one channel.
    """
    if name == "depthwise":
        return w_shape[1] == 1
    if name not in WINOGRAD:
        return True
    _, taps, step = WINOGRAD[name]
    fits = tuple(w_shape[2:]) == (taps, taps) and w_shape[1] > 0
    return fits and stride == (step, step) and dilation == (1, 1) and groups == 1 and max(pad) < taps
