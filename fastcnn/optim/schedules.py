"""Learning-rate schedules: functions of the position in training that give a factor of the initial rate.

A schedule is a value: it is called with a position, has no state, and compares, prints and pickles as what it was made
of, so that a run which is resumed goes on exactly. Positions and lengths are in any one unit. The trainer's is
progress, 0 at the start of training and 1 at its end; `Scaled` changes units::

    Scaled(WarmUp(5, Step(20, 0.1)), by=90)  # laid out in epochs, for a training of 90

Sources: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017); Smith and Topin, "Super-Convergence"
(2018); Loshchilov and Hutter, "SGDR" (2017); Goyal et al., "Accurate, Large Minibatch SGD" (2017), for the warm-up;
Vaswani et al., "Attention Is All You Need" (2017), section 5.3, for the inverse square root.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fastcnn.layers import checks

_ROUNDING = 1e-9  # a position this close to a multiple of a length counts as that: 5/90 of 90 epochs is the fifth


class Schedule:
    """What schedules share: lengths are checked when one is made."""

    _positive, _not_negative = ("length",), ()  # names of numbers that must be

    def __post_init__(self):
        for name in self._positive:
            checks.number(name, getattr(self, name), above=0)
        for name in self._not_negative:
            checks.number(name, getattr(self, name), 0)

    def __call__(self, t):
        """The factor at position t."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """Always `factor`."""

    factor: float = 1.0
    _positive, _not_negative = (), ("factor",)

    def __call__(self, t):
        return self.factor


@dataclass(frozen=True)
class Linear(Schedule):
    """From `start` to `end` in a straight line over `length`, and `end` from there on."""

    length: float = 1.0
    start: float = 1.0
    end: float = 0.0
    _not_negative = ("start", "end")

    def __call__(self, t):
        return _between(self.start, self.end, _share(t, self.length))


@dataclass(frozen=True)
class Cosine(Schedule):
    """From 1 to `end` along half a cosine wave over `length`, and `end` from there on. Restarts: `Repeated`."""

    length: float = 1.0
    end: float = 0.0
    _not_negative = ("end",)

    def __call__(self, t):
        return _along_cosine(1.0, self.end, _share(t, self.length))


@dataclass(frozen=True)
class InverseSquareRoot(Schedule):
    """sqrt(length / (length + t)): 1 at first, then as 1/sqrt(t).

    Behind a warm-up of the same length it is sqrt(length / t), t counted from the start of training.
    """

    length: float

    def __call__(self, t):
        return math.sqrt(self.length / (self.length + t))


@dataclass(frozen=True)
class Step(Schedule):
    """Multiplied by `factor` after every `length`: Step(5, 0.5) halves every 5, Step(20, 0.1) is x0.1 every 20."""

    length: float
    factor: float
    _not_negative = ("factor",)

    def __call__(self, t):
        return self.factor ** _whole(t / self.length)


@dataclass(frozen=True)
class Milestones(Schedule):
    """Multiplied by `factor` at each of the positions `at`."""

    at: tuple
    factor: float = 0.1
    _positive, _not_negative = (), ("factor",)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "at", tuple(self.at))  # lists do not hash

    def __call__(self, t):
        return self.factor ** sum(t >= at - _ROUNDING * abs(at) for at in self.at)


@dataclass(frozen=True)
class Cyclical(Schedule):
    """Up from `low` to 1 and back in straight lines, again and again; a cycle takes `length`.

    Parameters
    ----------
    length : float
    low : float, the lower bound of the rate as a factor of the upper
    mode : {"triangular", "triangular2", "exp_range"}
        The height above `low` stays, or is halved after each cycle, or is multiplied by gamma^t.
    gamma : float
    """

    length: float
    low: float = 0.25
    mode: str = "triangular"
    gamma: float = 1.0
    _not_negative = ("low", "gamma")

    def __post_init__(self):
        super().__post_init__()
        checks.choice("mode", self.mode, ("triangular", "triangular2", "exp_range"))

    def __call__(self, t):
        cycle = _whole(t / self.length)
        height = 1.0 - abs(2.0 * max(t / self.length - cycle, 0.0) - 1.0)
        decay = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.gamma**t}[self.mode]
        return _between(self.low, 1.0, height * decay)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up from `start` to 1 over the share `rise` of `length`, then down to `end`, both along half a cosine wave."""

    length: float = 1.0
    rise: float = 0.3
    start: float = 0.04
    end: float = 4e-6
    _not_negative = ("start", "end")

    def __post_init__(self):
        super().__post_init__()
        if not 0 < checks.number("rise", self.rise) < 1:
            raise ValueError(f"rise: expected a number in (0, 1), got {self.rise}")

    def __call__(self, t):
        top = self.rise * self.length
        if t < top:
            return _along_cosine(self.start, 1.0, t / top)
        return _along_cosine(1.0, self.end, _share(t - top, self.length - top))


@dataclass(frozen=True)
class WarmUp(Schedule):
    """In a straight line from `start` to where `then` begins, over `length`; then `then`, from its own beginning."""

    length: float
    then: Callable
    start: float = 0.0
    _not_negative = ("start",)

    def __call__(self, t):
        if t < self.length:
            return _between(self.start, self.then(0.0), t / self.length)
        return self.then(t - self.length)


@dataclass(frozen=True)
class Chain(Schedule):
    """Schedules one after the other, each from its own beginning: `parts` of (length, schedule), then `last`."""

    parts: tuple
    last: Callable
    _positive = ()

    def __post_init__(self):
        object.__setattr__(self, "parts", tuple(map(tuple, self.parts)))
        for length, _ in self.parts:
            checks.number("parts: length", length, above=0)

    def __call__(self, t):
        for length, schedule in self.parts:
            if t < length * (1 - _ROUNDING):
                return schedule(t)
            t = max(t - length, 0.0)
        return self.last(t)


@dataclass(frozen=True)
class Repeated(Schedule):
    """A schedule of progress run through again and again, as in `Repeated(Cosine(), 10, growth=2)`.

    Parameters
    ----------
    schedule : function of progress in [0, 1]
    length : float, of the first run
    growth : float of at least 1; each run is so many times as long as the one before
    decay : float; each run's factors are so many times those of the one before
    """

    schedule: Callable
    length: float
    growth: float = 1.0
    decay: float = 1.0
    _not_negative = ("decay",)

    def __post_init__(self):
        super().__post_init__()
        checks.number("growth", self.growth, 1)

    def __call__(self, t):
        run, length = 0, self.length
        if self.growth == 1.0:
            run = _whole(t / length)
            t -= run * length
        while t >= length * (1 - _ROUNDING):
            t, length, run = t - length, length * self.growth, run + 1
        return self.decay**run * self.schedule(max(t / length, 0.0))


@dataclass(frozen=True)
class Scaled(Schedule):
    """`schedule` at `by` times the position.

    With `by` the number of epochs (or steps) of the whole training, what is laid out in epochs becomes a function of
    progress; with 1/1000, what is a function of progress takes 1000 steps.
    """

    schedule: Callable
    by: float
    _positive = ("by",)

    def __call__(self, t):
        return self.schedule(self.by * t)


# Of progress, by the names of the command line.
SCHEDULES = {
    "constant": Constant(),
    "linear": Linear(),
    "cosine": Cosine(),
    "step": Milestones((1 / 3, 2 / 3), 0.1),
    "inverse-sqrt": InverseSquareRoot(0.01),
    "cyclical": Cyclical(0.25, mode="triangular2"),
    "one-cycle": OneCycle(),
}


def _share(t, length):
    return min(t / length, 1.0)


def _whole(quotient):
    return math.floor(quotient + _ROUNDING)


def _between(first, last, share):
    return first + (last - first) * share


def _along_cosine(first, last, share):
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * share))
