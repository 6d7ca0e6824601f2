"""Which algorithm computes a convolution on this floor."""

from fastcnn.cpu.conv import im2col

ALGORITHMS = {"im2col": im2col}


def algorithm(name, direction, x_shape, w_shape, stride, pad, dilation, groups, dtype):
    """The module that computes by algorithm `name`; "auto" leaves the choice to this function."""
    return im2col if name == "auto" else ALGORITHMS[name]
