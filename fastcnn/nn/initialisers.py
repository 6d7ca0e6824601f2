"""Initial weights. Every function draws from the generator given and returns an array of the shape and dtype given.

Sources: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010),
equations 12 and 16; He et al., "Delving Deep into Rectifiers" (2015), equation 10.
"""

import math

import numpy as np


def fans(shape):
    """(fan_in, fan_out) of a weight: affine (D, M), or convolution (F, C, HH, WW).

    Raises
    ------
    ValueError
        If the shape is neither.
    """
    if len(shape) == 2:
        return shape
    if len(shape) == 4:
        field = shape[2] * shape[3]
        return shape[1] * field, shape[0] * field
    raise ValueError(f"shape: expected an affine weight (D, M) or a convolution's (F, C, HH, WW), got {shape}")


def constant(shape, value=0.0, dtype=np.float32):
    """Every element is `value`; zeros are for biases."""
    return np.full(shape, value, dtype)


def normal(rng, shape, std=0.01, dtype=np.float32):
    """Normal numbers of mean 0 and standard deviation `std`: "small random" with 0.01, unit normal with 1."""
    return (rng.standard_normal(shape) * std).astype(dtype)


def uniform(rng, shape, std, dtype=np.float32):
    """Uniform numbers of mean 0 and standard deviation `std`: on [-sqrt(3) std, sqrt(3) std)."""
    bound = math.sqrt(3) * std
    return rng.uniform(-bound, bound, shape).astype(dtype)


def xavier(rng, shape, distribution="normal", form="in", dtype=np.float32):
    """Xavier/Glorot: variance 1/fan_in (`form="in"`), or 2/(fan_in + fan_out) (`form="both"`)."""
    fan_in, fan_out = fans(shape)
    variance = {"in": 1 / fan_in, "both": 2 / (fan_in + fan_out)}[_one_of("form", form, ("in", "both"))]
    return _draw(rng, shape, variance, distribution, dtype)


def kaiming(rng, shape, distribution="normal", dtype=np.float32):
    """Kaiming/He/MSRA, for layers that a ReLU follows: variance 2/fan_in."""
    return _draw(rng, shape, 2 / fans(shape)[0], distribution, dtype)


def _draw(rng, shape, variance, distribution, dtype):
    draw = {"normal": normal, "uniform": uniform}[_one_of("distribution", distribution, ("normal", "uniform"))]
    return draw(rng, shape, math.sqrt(variance), dtype)


def _one_of(name, value, options):
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}, got {value!r}")
    return value
