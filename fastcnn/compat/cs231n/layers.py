"""CS231n's ``layers.py``. Its naive loops are the same fast kernels as everything else here."""

from fastcnn import layers as _layers
from fastcnn.compat.cs231n._integers import accept_integers as _accept_integers
from fastcnn.layers import (
    affine_backward,
    batchnorm_backward,
    batchnorm_backward_alt,
    dropout_backward,
    layernorm_backward,
    relu_backward,
    softmax_loss,
    spatial_batchnorm_backward,
    spatial_groupnorm_backward,
    svm_loss,
)
from fastcnn.layers import conv_backward as conv_backward_naive
from fastcnn.layers import max_pool_backward as max_pool_backward_naive

affine_forward = _accept_integers(_layers.affine_forward)
relu_forward = _accept_integers(_layers.relu_forward)
batchnorm_forward = _accept_integers(_layers.batchnorm_forward)
layernorm_forward = _accept_integers(_layers.layernorm_forward)
dropout_forward = _accept_integers(_layers.dropout_forward)
conv_forward_naive = _accept_integers(_layers.conv_forward)
max_pool_forward_naive = _accept_integers(_layers.max_pool_forward)
spatial_batchnorm_forward = _accept_integers(_layers.spatial_batchnorm_forward)
spatial_groupnorm_forward = _accept_integers(_layers.spatial_groupnorm_forward)

__all__ = [
    "affine_backward",
    "affine_forward",
    "batchnorm_backward",
    "batchnorm_backward_alt",
    "batchnorm_forward",
    "conv_backward_naive",
    "conv_forward_naive",
    "dropout_backward",
    "dropout_forward",
    "layernorm_backward",
    "layernorm_forward",
    "max_pool_backward_naive",
    "max_pool_forward_naive",
    "relu_backward",
    "relu_forward",
    "softmax_loss",
    "spatial_batchnorm_backward",
    "spatial_batchnorm_forward",
    "spatial_groupnorm_backward",
    "spatial_groupnorm_forward",
    "svm_loss",
]
