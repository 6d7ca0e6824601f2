"""The algorithms that compute a convolution, by name, and where each applies: the same on every floor."""

# Winograd's minimal filtering: (output tile, taps) along each axis, the most accurate first.
WINOGRAD = {
    "winograd_f2x3": (2, 3),
    "winograd_f4x3": (4, 3),
    "winograd_f6x3": (6, 3),
    "winograd_f2x5": (2, 5),
    "winograd_f4x5": (4, 5),
}
ALGORITHMS = ("direct", "im2col", "depthwise", *WINOGRAD)
CHOICES = ("auto", "accurate", *ALGORITHMS)  # what a caller may ask for


def applies(name, w_shape, stride, pad, dilation, groups):
    """Whether algorithm `name` computes a convolution with filters w (F, C/groups, HH, WW).

    stride, pad and dilation are pairs (vertical, horizontal).

    Winograd's algorithms take filters of as many taps as their names say, stride and dilation 1, one group, and padding
    of less than a filter; "depthwise" takes filters of one channel.
    """
    if name == "depthwise":
        return w_shape[1] == 1
    if name not in WINOGRAD:
        return True
    taps = WINOGRAD[name][1]
    fits = tuple(w_shape[2:]) == (taps, taps) and w_shape[1] > 0
    return fits and stride == dilation == (1, 1) and groups == 1 and max(pad) < taps
