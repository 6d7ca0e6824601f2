"""Which algorithm computes a convolution on this floor."""

from fastcnn.cpu.conv import direct, im2col, winograd

ALGORITHMS = {
    "direct": direct,
    "im2col": im2col,
    "winograd_f2x3": winograd.F2,
    "winograd_f4x3": winograd.F4,
    "winograd_f6x3": winograd.F6,
}


def algorithm(name, direction, x_shape, w_shape, stride, pad, dilation, groups, dtype):
    """The module that computes by algorithm `name`; "auto" leaves the choice to this function."""
    return im2col if name == "auto" else ALGORITHMS[name]
