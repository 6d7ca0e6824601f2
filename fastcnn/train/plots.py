"""Plots as text: SVG and PNG that stand within a page and need nothing else.

Text and axes have the colour of the page's text, series the colours `--series-0` ... of its style sheet, so that a plot
is legible on light and on dark paper.
"""

import base64
import html
import io
import math
from dataclasses import dataclass

import numpy as np

from fastcnn.train.extras import need

_CHARACTER = 6.6  # width of a character, in pixels, about
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Line:
    """One line of a plot: x and y of equal length, y with None or NaN where there is no point; colour as in CSS."""

    label: str
    x: list
    y: list
    color: str


def series(index):
    """The colour of a series of the page's style sheet."""
    return f"var(--series-{index})"


def by_depth(index, count):
    """A colour for one of so many layers in forward order, from blue to red; legible on light and dark."""
    return f"hsl({round(230 - 230 * index / max(1, count - 1))} 65% 56%)"


def line_plot(lines, xlabel, ylabel, size=(560, 300), log=False, band=None, limits=(), names=None, legend=True):
    """Lines over numbers, as SVG.

    Parameters
    ----------
    lines : list of Line
    log : bool, whether the y axis is logarithmic; values that are not positive are left out then
    band : (low, high, label) or None, a range of y that is marked
    limits : numbers that the y axis has to include
    names : list of str or None: those of x = 0, 1, ...
    """
    lines = [Line(line.label, list(line.x), [_drawn(value, log) for value in line.y], line.color) for line in lines]
    values = [value for line in lines for value in line.y if value is not None]
    if not values:
        return _svg(size, f"{ylabel}: nothing to draw", [_text(size[0] / 2, size[1] / 2, "nothing to draw", "middle")])
    values += [*limits, *(band[:2] if band else ())]
    x = [value for line in lines for value in line.x]
    frame = _Frame((66, 26, size[0] - 14, size[1] - 40), (min(x), max(x)), _round_range(values, log), log)
    parts = []
    if band:
        top, foot = frame.y(band[1]), frame.y(band[0])
        parts.append(
            f'<rect class="band" x="{frame.left}" y="{top:.1f}" width="{frame.width}" height="{foot - top:.1f}"/>'
        )
        parts.append(_text(frame.right - 4, top + 13, band[2], "end"))
    parts += _axes(frame, xlabel, ylabel, x, names)
    for line in lines:
        parts += _line(frame, line, names)
    if legend:
        parts += _legend(frame, lines)
    return _svg(size, f"{ylabel} over {xlabel}", parts)


def spread_plot(times, histograms, size=(213, 126)):
    """How values are spread, over time: bands of 50 and 90 % of them about the median; at the right the last histogram.

    Parameters
    ----------
    times : list of numbers
    histograms : list of {"low", "high", "counts"} or None, as many
    """
    known = [(time, histogram) for time, histogram in zip(times, histograms, strict=True) if histogram]
    if not known:
        return _svg(size, "no values", [_text(size[0] / 2, size[1] / 2, "no finite values", "middle")])
    times, histograms = zip(*known, strict=True)
    low, high = min(h["low"] for h in histograms), max(h["high"] for h in histograms)
    split = round(0.68 * size[0])
    frame = _Frame((44, 8, split, size[1] - 16), (times[0], times[-1]), (low, high), False)
    bands = np.array([_quantiles(histogram) for histogram in histograms]).T
    parts = [f'<path class="rule" d="M{frame.left} {frame.y(0):.1f}H{size[0] - 2}"/>'] if low < 0 < high else []
    for first, last, opacity in ((0, 4, 0.22), (1, 3, 0.4)):
        edge = [*_points(frame, times, bands[last]), *reversed(_points(frame, times, bands[first]))]
        parts.append(f'<polygon points="{" ".join(edge)}" fill="{series(0)}" opacity="{opacity}"/>')
    parts.append(f'<polyline points="{" ".join(_points(frame, times, bands[2]))}" class="line" stroke="{series(0)}"/>')
    parts += _bars(frame, histograms[-1], split + 6, size[0] - 2)
    parts += [_text(frame.left - 4, frame.y(value) + 4, _short(value, 2), "end") for value in (low, high)]
    parts += [_text(frame.left, size[1] - 3, _short(times[0])), _text(split, size[1] - 3, _short(times[-1]), "end")]
    return _svg(size, f"values from {_short(low)} to {_short(high)}", parts)


def image_grid(images, columns, scale, gap=1):
    """Images in rows of `columns`, as an <img>; each pixel is `scale` pixels wide.

    images : (N, H, W, 1 or 3) uint8
    """
    n, height, width, channels = images.shape
    rows = -(-n // columns)
    grid = np.zeros((rows, height * scale + gap, columns, width * scale + gap, 4), np.uint8)
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    for i in range(n):
        tile = grid[i // columns, : height * scale, i % columns, : width * scale]
        tile[..., :3], tile[..., 3] = large[i], 255
    return picture(grid.reshape(rows * (height * scale + gap), columns * (width * scale + gap), 4))


def picture(pixels, alt=""):
    """(H, W, 1, 3 or 4) uint8 as an <img> that holds its data."""
    buffer, pixels = io.BytesIO(), pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    need("PIL.Image").fromarray(pixels).save(buffer, "png", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    height, width = pixels.shape[:2]
    return f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'


class _Frame:
    """The part of a picture in which data are drawn, and where in it they lie."""

    def __init__(self, corners, x_range, y_range, log):
        self.left, self.top, self.right, self.bottom = corners
        self.width, self.height, self.log = self.right - self.left, self.bottom - self.top, log
        self.x_range, self.y_range = _widened(*x_range), _widened(*y_range, log)

    def x(self, value):
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * self.width

    def y(self, value):
        low, high = self.y_range
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.bottom - (value - low) / (high - low) * self.height


def _widened(low, high, log=False):
    """The range, with room in it if it is one number."""
    if high > low:
        return low, high
    return (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def _round_range(values, log):
    """From a round number below the values to one above them."""
    low, high = _widened(min(values), max(values), log)
    if log:
        return tuple(
            10 ** (digits(10 * math.log10(value)) / 10) for digits, value in ((math.floor, low), (math.ceil, high))
        )
    step = _step((high - low) / 5)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _step(least):
    """The least of 1, 2 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= least * (1 - 1e-9))


def _ticks(low, high, count=5, whole=False):
    """Round numbers from low to high: about so many, at steps of 1, 2 or 5 times a power of ten."""
    step = _step((high - low) / count)
    step = max(1.0, step) if whole else step
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low, high):
    """1, 2 and 5 times powers of ten from low to high, where they are few; else powers of ten alone."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    times, each = ((1, 2, 5), 1) if last - first <= 2 else ((1,), 1 + (last - first) // 6)
    found = [digit * 10.0**power for power in range(first, last + 1, each) for digit in times]
    return [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def _axes(frame, xlabel, ylabel, x, names):
    parts = []
    for tick in (_log_ticks if frame.log else _ticks)(*frame.y_range):
        y = frame.y(tick)
        parts.append(f'<path class="rule" d="M{frame.left} {y:.1f}H{frame.right}"/>')
        parts.append(_text(frame.left - 6, y + 4, _short(tick), "end"))
    for tick, label in _named_ticks(frame, names) if names else _numbered_ticks(frame, x):
        parts.append(f'<path class="axis" d="M{frame.x(tick):.1f} {frame.bottom}v4"/>')
        half = _CHARACTER * len(label) / 2
        parts.append(_text(min(frame.x(tick), frame.right + 14 - half), frame.bottom + 17, label, "middle"))
    parts.append(f'<path class="axis" d="M{frame.left} {frame.bottom}H{frame.right}"/>')
    parts.append(_text((frame.left + frame.right) / 2, frame.bottom + 34, xlabel, "middle"))
    middle = (frame.top + frame.bottom) / 2
    turned = f' transform="rotate(-90 13 {middle:.1f})"'
    return [*parts, _text(13, middle, ylabel, "middle", turned)]


def _numbered_ticks(frame, x):
    whole = all(float(value).is_integer() for value in x)
    return [(tick, _short(tick)) for tick in _ticks(*frame.x_range, 8, whole)]


def _named_ticks(frame, names):
    """(x, name) of as many names as there is room for side by side."""
    free = 0.0
    for i, name in enumerate(names):
        left = frame.x(i) - _CHARACTER * len(name) / 2
        if left >= free:
            yield i, name
            free = left + _CHARACTER * (len(name) + 2)


def _line(frame, line, names):
    """A line, broken where there are gaps, with a mark at each point unless they are many."""
    path, pen, marks = [], "M", []
    for x, y in zip(line.x, line.y, strict=True):
        if y is None:
            pen = "M"
            continue
        at = f"{frame.x(x):.1f} {frame.y(y):.1f}"
        path.append(f"{pen}{at}")
        pen = "L"
        marks.append((at, f"{line.label}, {names[x] if names else _short(x)}: {_short(y)}"))
    parts = [f'<path class="line" stroke="{line.color}" d="{"".join(path)}"/>']
    if len(marks) <= 60:
        for at, title in marks:
            x, y = at.split()
            parts.append(
                f'<circle cx="{x}" cy="{y}" r="2.6" fill="{line.color}"><title>{html.escape(title)}</title></circle>'
            )
    return parts


def _legend(frame, lines):
    parts, x = [], frame.left
    for line in lines:
        parts.append(f'<path class="line" stroke="{line.color}" d="M{x} 11h18"/>')
        parts.append(_text(x + 23, 15, line.label))
        x += 40 + round(_CHARACTER * len(line.label))
    return parts


def _bars(frame, histogram, left, right):
    """A histogram that lies on its side."""
    counts, n = histogram["counts"], len(histogram["counts"])
    edges = np.linspace(histogram["low"], histogram["high"], n + 1)
    path = [f"M{left} {frame.y(edges[0]):.1f}"]
    for count, edge in zip(counts, edges[1:], strict=True):
        path.append(f"H{left + count / max(counts) * (right - left):.1f}V{frame.y(edge):.1f}")
    return [f'<path fill="{series(0)}" opacity="0.75" d="{"".join(path)}H{left}Z"/>']


def _quantiles(histogram):
    """The values that the shares `_QUANTILES` of those in a histogram lie below, if they are even within its bins."""
    counts = np.array(histogram["counts"], float)
    edges = np.linspace(histogram["low"], histogram["high"], len(counts) + 1)
    return np.interp(_QUANTILES, np.r_[0, counts.cumsum() / counts.sum()], edges)


def _points(frame, x, y):
    return [f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in zip(x, y, strict=True)]


def _drawn(value, log):
    """The value, None if it cannot be drawn."""
    drawn = value is not None and math.isfinite(value) and (value > 0 or not log)
    return value if drawn else None


def _short(value, digits=3):
    """A number in few characters."""
    return f"{value:.{digits}g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e") if value else "0"


def _text(x, y, text, anchor="start", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(text)}</text>'


def _svg(size, label, parts):
    width, height = size
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
    return f'{head} aria-label="{html.escape(label)}">{"".join(parts)}</svg>'
