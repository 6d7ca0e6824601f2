"""Sizes of sliding windows (convolution and pooling), the same on every floor."""


def output_size(size, kernel, stride, pad, dilation=1):
    """Number of window positions along one axis.

    Parameters
    ----------
    size, kernel, stride, pad, dilation : int
        Input length, window length, step, zeros added at *each* end, distance between neighbouring taps.

    Returns
    -------
    int
        ``1 + (size + 2 pad - dilation (kernel - 1) - 1) // stride``; below 1 when the window does not fit.
    """
    return 1 + (size + 2 * pad - dilation * (kernel - 1) - 1) // stride


def output_shape(size, kernel, stride, pad, dilation=(1, 1)):
    """`output_size` for both image axes; every argument is a pair (vertical, horizontal)."""
    return tuple(output_size(*axis) for axis in zip(size, kernel, stride, pad, dilation))
