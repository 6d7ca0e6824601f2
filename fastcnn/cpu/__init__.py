"""The CPU floor: Numba kernels, parallel, for float32 and float64."""
