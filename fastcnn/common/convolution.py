"""The algorithms that compute a convolution, by name, and where each applies: the same on every floor."""

ALGORITHMS = ("direct", "im2col", "winograd_f2x3", "winograd_f4x3", "winograd_f6x3")
CHOICES = ("auto", "accurate", *ALGORITHMS)  # what a caller may ask for


def applies(name, kernel, stride, pad, dilation, groups):
    """Whether algorithm `name` computes a convolution of this geometry; every argument a pair but `groups`.

    Winograd's algorithms take filters of 3 x 3 pixels with stride and dilation 1, one group, and padding of at most 2.
    """
    if not name.startswith("winograd"):
        return True
    return kernel == (3, 3) and stride == dilation == (1, 1) and groups == 1 and max(pad) <= 2
