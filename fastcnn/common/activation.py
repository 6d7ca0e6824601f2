"""Activation formulas on one number, and their derivatives, for the compiled floors: those without exponentials.

Constants are made with ``type(x)(...)``: a plain literal would turn float32 arithmetic into float64.
Every formula hands a NaN on.
"""


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


def sigmoid_derivative(y):
    """In terms of the output y."""
    return y * (type(y)(1) - y)


def tanh_derivative(y):
    """In terms of the output y."""
    return type(y)(1) - y * y


def replaces(value, best):
    """Whether `value`, met later, takes the place of `best` as the maximum: the first one wins, a NaN beats all.

    Without `and` and `or`, which would be branches that cannot be predicted.
    """
    return (value > best) | ((value != value) & (best == best))
