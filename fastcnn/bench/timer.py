"""Timing by alternation: A B A B ..., ratios pair by pair, their median and quartiles.

A clock speed that drifts, or a neighbour that wakes up, changes both halves of a pair, and spoils a few pairs rather
than the comparison.
"""

import gc
import statistics
import time
from typing import NamedTuple

WARM = 0.02  # seconds: a call that takes less is made once untimed in each slot, to bring caches and threads back


class Spread(NamedTuple):
    """Median and quartiles of some numbers, and how many they are."""

    median: float
    low: float
    high: float
    count: int


def spread(numbers):
    """The `Spread` of at least one number; quartiles are interpolated linearly.

    Raises
    ------
    ValueError
        If there are no numbers.
    """
    numbers = sorted(numbers)
    if not numbers:
        raise ValueError("numbers: expected at least one, got none")
    if len(numbers) == 1:
        return Spread(*numbers * 3, 1)
    low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
    return Spread(median, low, high, len(numbers))


def call_time(function, seconds, last=None):
    """Median seconds of the calls of `function` that fit into `seconds`; at least one is made.

    Parameters
    ----------
    function : callable without arguments
    seconds : float, how long to measure
    last : float or None, what a call took before; a short one (or an unknown) is first called once untimed
    """
    if last is None or last < WARM:
        function()
    times, collecting = [], gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        end = start + seconds
        while not times or start < end:
            function()
            last, start = start, time.perf_counter()
            times.append(start - last)
    finally:
        if collecting:
            gc.enable()
    return statistics.median(times)


def alternate(measures, rounds):
    """Measure in turn: {name: [seconds in round 1, in round 2, ...]}.

    Parameters
    ----------
    measures : {name: function without arguments that returns seconds}
    rounds : int
    """
    times = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            times[name].append(measure())
    return times


def ratios(times, other):
    """How many times as long `other` took, pair by pair; the `Spread` of the ratios."""
    return spread([b / a for a, b in zip(times, other, strict=True)])


def compare(functions, rounds, seconds):
    """`alternate` for callables in this process: {name: function} -> {name: [seconds per call, ...]}."""
    last = {}

    def measure(name):
        last[name] = call_time(functions[name], seconds, last.get(name))
        return last[name]

    return alternate({name: (lambda name=name: measure(name)) for name in functions}, rounds)
