"""What floors share about resampling images: how finely coordinates are told apart, how many samples make a pixel."""

import numpy as np

STEPS = 1 << 16  # per pixel: coordinates are rounded to these, so that no rounding error decides what is inside
_MOST = 64  # samples per axis, for maps that shrink an image without measure


def samples(maps):
    """How many samples, along rows and columns, the mean of which is an output pixel.

    Parameters
    ----------
    maps : (N, 2, 3), from output to input pixels

    Returns
    -------
    (N, 2) intp
        One where an image is enlarged; as many as the input pixels that a step in the output spans where it is shrunk.
    """
    steps = np.hypot(maps[:, 0, :2], maps[:, 1, :2])
    # fmax and fmin take the number where the other is a NaN
    return np.fmin(np.fmax(np.ceil(steps - 1 / STEPS), 1), _MOST).astype(np.intp)
