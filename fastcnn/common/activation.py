"""Activation formulas on one number, and their derivatives, for the compiled floors.

Constants are made with ``type(x)(...)``: a plain literal would turn float32 arithmetic into float64.
Every formula hands a NaN on.
"""

import math


def relu(x):
    """max(x, 0)."""
    return type(x)(0) if x < 0 else x


def relu_derivative(x):
    """1 for x > 0, else 0."""
    return type(x)(1) if x > 0 else (type(x)(0) if x <= 0 else x)


def leaky_relu(x, slope):
    """x for x > 0, else slope x."""
    return slope * x if x < 0 else x


def leaky_relu_derivative(x, slope):
    """1 for x > 0, else slope."""
    return type(x)(1) if x > 0 else (slope if x <= 0 else x)


def leaky_relu_slope_derivative(x):
    """With respect to the slope: 0 for x > 0, else x."""
    return type(x)(0) if x > 0 else x


def elu(x, alpha):
    """x for x > 0, else alpha (e^x - 1)."""
    return x if x > 0 else alpha * type(x)(math.expm1(x))


def elu_derivative(x, alpha):
    """1 for x > 0, else alpha e^x."""
    return type(x)(1) if x > 0 else alpha * type(x)(math.exp(x))


def sigmoid(x):
    """1 / (1 + e^-x), from e^-|x| so that nothing overflows."""
    small = type(x)(math.exp(-abs(x)))
    return (small if x < 0 else type(x)(1)) / (type(x)(1) + small)


def sigmoid_derivative(y):
    """In terms of the output y."""
    return y * (type(y)(1) - y)


def tanh(x):
    """tanh x."""
    return type(x)(math.tanh(x))


def tanh_derivative(y):
    """In terms of the output y."""
    return type(y)(1) - y * y


def gelu(x):
    """x Phi(x) with the normal distribution function Phi(x) = erfc(-x / sqrt 2) / 2, accurate far to the left, too."""
    return x * type(x)(0.5) * type(x)(math.erfc(-x * type(x)(math.sqrt(0.5))))


def gelu_derivative(x):
    """Phi(x) + x phi(x)."""
    phi = type(x)(1 / math.sqrt(2 * math.pi)) * type(x)(math.exp(type(x)(-0.5) * x * x))
    return type(x)(0.5) * type(x)(math.erfc(-x * type(x)(math.sqrt(0.5)))) + x * phi


def gelu_tanh(x):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    u = type(x)(math.sqrt(2 / math.pi)) * (x + type(x)(0.044715) * x * x * x)
    return type(x)(0.5) * x * (type(x)(1) + type(x)(math.tanh(u)))


def gelu_tanh_derivative(x):
    """The derivative of `gelu_tanh`."""
    root, cubic = type(x)(math.sqrt(2 / math.pi)), type(x)(0.044715)
    t = type(x)(math.tanh(root * (x + cubic * x * x * x)))
    slope = root * (type(x)(1) + type(x)(3) * cubic * x * x)
    return type(x)(0.5) * (type(x)(1) + t) + type(x)(0.5) * x * (type(x)(1) - t * t) * slope


def replaces(value, best):
    """Whether `value`, met later, takes the place of `best` as the maximum: the first one wins, a NaN beats all.

    Without `and` and `or`, which would be branches that cannot be predicted.
    """
    return (value > best) | ((value != value) & (best == best))
