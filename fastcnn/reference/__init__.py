"""The reference floor: every op in plain NumPy, as short as its equation allows.

This is the oracle that compiled kernels are compared with, so being evidently right comes before being fast. Means,
variances, losses and bias gradients are summed in float64; products of matrices run in the dtype of their inputs (give
float64 arrays to have a float64 oracle). Functions check nothing, take arrays of any strides and return the dtype they
were given. Each result is complete before it is written, so `out` may be an input.
"""
