"""CS231n's ``layer_utils.py``; as there, it also brings the names of `layers` and `fast_layers`."""

from fastcnn import layers as _layers
from fastcnn.compat.cs231n import fast_layers as _fast_layers
from fastcnn.compat.cs231n import layers as _course_layers
from fastcnn.compat.cs231n._integers import accept_integers as _accept_integers
from fastcnn.compat.cs231n.fast_layers import *  # noqa: F403
from fastcnn.compat.cs231n.layers import *  # noqa: F403
from fastcnn.layers import (
    affine_bn_relu_backward,
    affine_relu_backward,
    conv_bn_relu_backward,
    conv_relu_backward,
    conv_relu_pool_backward,
)

affine_relu_forward = _accept_integers(_layers.affine_relu_forward)
affine_bn_relu_forward = _accept_integers(_layers.affine_bn_relu_forward)
conv_relu_forward = _accept_integers(_layers.conv_relu_forward)
conv_bn_relu_forward = _accept_integers(_layers.conv_bn_relu_forward)
conv_relu_pool_forward = _accept_integers(_layers.conv_relu_pool_forward)

__all__ = [
    "affine_bn_relu_backward",
    "affine_bn_relu_forward",
    "affine_relu_backward",
    "affine_relu_forward",
    "conv_bn_relu_backward",
    "conv_bn_relu_forward",
    "conv_relu_backward",
    "conv_relu_forward",
    "conv_relu_pool_backward",
    "conv_relu_pool_forward",
]
__all__ += _course_layers.__all__
__all__ += _fast_layers.__all__
