"""Plots as text: well-formed, true to the numbers, and robust against those that cannot be drawn."""

import base64
import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fastcnn.train import plots
from fastcnn.train.plots import Line, image_grid, line_plot, picture, spread_plot


def tree(text):
    """The parsed SVG; there is no number in it that is none."""
    assert not re.search(r"\bnan\b|\binf\b|None", text)
    return ElementTree.fromstring(text)


def marks(plot):
    """(x, y, title) of the marks of the points."""
    circles = tree(plot).findall(".//circle")
    return [(float(c.get("cx")), float(c.get("cy")), c.find("title").text) for c in circles]


def texts(plot):
    return [text.text for text in tree(plot).findall(".//text")]


def test_points_lie_where_the_axes_say():
    plot = line_plot([Line("a & <b>", [0, 1, 2, 4], [1.0, 3.0, 2.0, 5.0], "red")], "time", "loss")
    x, y, titles = map(np.array, zip(*marks(plot), strict=True))
    assert_allclose(np.polyval(np.polyfit(x, [0, 1, 2, 4], 1), x), [0, 1, 2, 4], atol=0.01)
    assert_allclose(np.polyval(np.polyfit(y, [1, 3, 2, 5], 1), y), [1, 3, 2, 5], atol=0.02)
    assert y[3] < y[0], "up is more"
    assert titles[1] == "a & <b>, 1: 3"
    found = tree(plot)
    ticks = {t.text: float(t.get("y")) - 4 for t in found.findall(".//text") if t.get("text-anchor") == "end"}
    for tick, place in ticks.items():
        assert_allclose(np.interp(float(tick), [1, 5], [y[0], y[3]]), place, atol=0.2)
    assert {"time", "loss", "a & <b>"} <= set(texts(plot))


def test_logarithmic():
    plot = line_plot([Line("a", [0, 1, 2, 3], [1e-4, 1e-2, 0.0, 1.0], "red")], "x", "y", log=True)
    _, y, _ = zip(*marks(plot), strict=True)
    assert len(y) == 3, "0 has no place"
    assert_allclose(y[0] - y[1], y[1] - y[2], atol=0.2)
    assert "0.01" in texts(plot)


def test_gaps():
    values = [1.0, None, 2.0, math.nan, math.inf, 3.0, 2.0]
    plot = line_plot([Line("a", range(7), values, "red")], "x", "y")
    assert len(marks(plot)) == 4
    paths = [p.get("d") for p in tree(plot).iter("path") if p.get("class") == "line"]
    assert paths[0].count("M") == 3 and paths[0].count("L") == 1


@pytest.mark.parametrize("lines", [[], [Line("a", [1, 2], [None, math.nan], "red")]])
def test_nothing_to_draw(lines):
    assert texts(line_plot(lines, "x", "y")) == ["nothing to draw"]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values", [[5.0], [5.0, 5.0], [1e-300, 1e300], [1.0, 1.0 + 1e-12], [1e-30, 2e-30], [0.0, 0.0], [-1.0, 1.0]]
)
def test_ranges(values, log):
    plot = line_plot([Line("a", range(len(values)), values, "red")], "x", "y", log=log)
    for x, y, _ in marks(plot):
        assert 0 <= x <= 560 and 0 <= y <= 300


def test_band_and_limits():
    line = Line("a", [0, 1], [0.4, 0.5], "red")
    found = tree(line_plot([line], "x", "y", limits=(0, 1), band=(0.2, 0.6, "fine")))
    (band,) = found.findall("rect")
    (_, a, _), (_, b, _) = marks(line_plot([line], "x", "y", limits=(0, 1), band=(0.2, 0.6, "fine")))
    unit = (a - b) / 0.1
    assert_allclose(float(band.get("height")), 0.4 * unit, rtol=0.02)
    assert {"0", "1", "fine"} <= {text.text for text in found.findall(".//text")}


def test_names():
    names = [f"layer {i}" for i in range(40)]
    plot = line_plot([Line("a", range(40), np.arange(1.0, 41), "red")], "x", "y", (1000, 300), names=names)
    shown = [text for text in texts(plot) if text.startswith("layer")]
    assert shown[0] == "layer 0" and 5 < len(shown) < 20, "as many as there is room for"
    assert marks(plot)[7][2] == "a, layer 7: 8"


def test_many_points_have_no_marks():
    assert not marks(line_plot([Line("a", range(500), np.arange(500.0), "red")], "x", "y"))


def test_ticks_are_round():
    assert_allclose(plots._ticks(0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1])
    assert_allclose(plots._ticks(1, 3, 8, whole=True), [1, 2, 3])
    assert_allclose(plots._ticks(-0.3, 0.7), [-0.2, 0, 0.2, 0.4, 0.6])
    assert_allclose(plots._log_ticks(1e-4, 1), [1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert_allclose(plots._log_ticks(0.3, 3), [0.5, 1, 2])


def histogram(values):
    counts, edges = np.histogram(values, 32)
    return {"low": edges[0], "high": edges[-1], "counts": counts.tolist()}


def test_spread():
    rng = np.random.default_rng(0)
    histograms = [histogram(rng.standard_normal(5000) * scale) for scale in (1, 2)]
    found = tree(spread_plot([0, 1], histograms))
    polygons = found.findall("polygon")
    assert len(polygons) == 2 and len(found.findall("polyline")) == 1
    top = [float(point.split(",")[1]) for point in polygons[0].get("points").split()]
    assert_allclose((top[2] - top[1]) / (top[3] - top[0]), 2, rtol=0.1)  # the band is twice as wide


def test_spread_quantiles():
    values = np.random.default_rng(1).exponential(size=20_000)
    assert_allclose(plots._quantiles(histogram(values)), np.quantile(values, plots._QUANTILES), atol=0.1)


@pytest.mark.parametrize("histograms", [[], [None], [None, histogram([1.0, 2.0])], [histogram(np.zeros(5))] * 2])
def test_spread_of_little(histograms):
    tree(spread_plot(range(len(histograms)), histograms))


def decoded(img):
    from PIL import Image

    assert img.startswith("<img ") and ElementTree.fromstring(img.replace(">", "/>")).get("alt") is not None
    data = re.search(r'src="data:image/png;base64,([^"]+)"', img).group(1)
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
        pixels = np.asarray(picture)
    assert f'width="{pixels.shape[1]}" height="{pixels.shape[0]}"' in img
    return pixels


@pytest.mark.parametrize("channels", [1, 3])
def test_picture(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, channels), np.uint8)
    assert_array_equal(decoded(picture(pixels)), pixels[..., 0] if channels == 1 else pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid(channels):
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, channels), np.uint8)
    pixels = decoded(image_grid(images, columns=2, scale=2, gap=1))
    assert pixels.shape == (3 * 7, 2 * 9, 4)
    tile = pixels[7 : 7 + 6, 9 : 9 + 8]
    assert_array_equal(tile[::2, ::2, :3], np.broadcast_to(images[3], (3, 4, 3)))
    assert (tile[..., 3] == 255).all() and (pixels[6::7, :, 3] == 0).all() and (pixels[14:, 9:] == 0).all()
