"""How pictures look: fonts that can be read, colours that the colour-blind can tell apart."""

import functools

from fastcnn.train import files
from fastcnn.train.extras import need

# Okabe and Ito, "Color Universal Design" (2008); the order is that of use.
BLUE, ORANGE, GREEN, PINK, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY)
MARKERS = "osD^v"

_STYLE = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}


def save(draw, path):
    """Write what `draw` draws into a figure as a PNG file, without a screen.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    with need("matplotlib").rc_context(_STYLE):
        figure = need("matplotlib.figure").Figure(figsize=(10.5, 4.4), layout="constrained")
        draw(figure)
        files.replace(path, functools.partial(figure.savefig, dpi=110))
