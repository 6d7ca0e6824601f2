"""CS231n's ``im2col.py``: columns run over output positions, and within one position over the images."""

import numpy as np

from fastcnn.compat.cs231n._integers import accept_integers
from fastcnn.layers import col2im, im2col
from fastcnn.layers.checks import integer, window

__all__ = ["col2im_indices", "get_im2col_indices", "im2col_indices"]


def get_im2col_indices(x_shape, field_height, field_width, padding=1, stride=1):
    """Indices k, i, j such that ``x_padded[:, k, i, j]`` is (N, C HH WW, H' W').

    k is (C HH WW, 1), i and j are (C HH WW, H' W'). Raises ValueError where the window does not fit into the padded
    image.
    """
    channels = x_shape[1]
    stride, padding = integer("stride", stride, 1), integer("padding", padding, 0)
    H_out, W_out = window(x_shape[2:], (field_height, field_width), (stride, stride), (padding, padding))
    k, tap_i, tap_j = np.indices((channels, field_height, field_width)).reshape(3, -1, 1)
    p, q = np.indices((H_out, W_out)).reshape(2, -1)
    return k, tap_i + stride * p, tap_j + stride * q


@accept_integers
def im2col_indices(x, field_height, field_width, padding=1, stride=1):
    """The windows of x (N, C, H, W) as columns, (C HH WW, H' W' N)."""
    cols = im2col(x, (field_height, field_width), stride, padding)
    return cols.transpose(1, 2, 0).reshape(cols.shape[1], cols.shape[2] * cols.shape[0])


@accept_integers
def col2im_indices(cols, x_shape, field_height=3, field_width=3, padding=1, stride=1):
    """The transpose of `im2col_indices`: cols (C HH WW, H' W' N) summed into x (N, C, H, W)."""
    cols = cols.reshape(len(cols), -1, x_shape[0]).transpose(2, 0, 1)
    return col2im(cols, x_shape, (field_height, field_width), stride, padding)
