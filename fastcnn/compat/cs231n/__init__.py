"""The modules of Stanford's CS231n assignments, with the course's names and contracts, only fast.

Replace ``from cs231n.layers import *`` by ``from fastcnn.compat.cs231n.layers import *``; likewise `fast_layers`,
`layer_utils`, `optim` and `im2col`.
"""
