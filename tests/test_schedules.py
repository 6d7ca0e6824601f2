"""fastcnn.optim.schedules: the factors at known places, and what all schedules have in common."""

import math
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fastcnn.optim import SCHEDULES
from fastcnn.optim.schedules import (
    Chain,
    Constant,
    Cosine,
    Cyclical,
    InverseSquareRoot,
    Linear,
    Milestones,
    OneCycle,
    Repeated,
    Scaled,
    Step,
    WarmUp,
)

NESTED = Scaled(WarmUp(5, Chain([(10, Repeated(Cosine(), 5, decay=0.5)), (20, Step(5, 0.5))], Linear(15, end=0.1))), 50)
ALL = {**SCHEDULES, "milestones": Milestones([0.2, 0.7]), "nested": NESTED}
every_schedule = pytest.mark.parametrize("name", ALL)

# schedule, positions, factors
PLACES = [
    (Constant(0.3), [0, 7], [0.3, 0.3]),
    (Linear(), [0, 0.25, 1, 2], [1, 0.75, 0, 0]),
    (Linear(20, start=0.5, end=2.5), [0, 5, 20, 21], [0.5, 1, 2.5, 2.5]),
    (Cosine(), [0, 1 / 3, 0.5, 1, 3], [1, 0.75, 0.5, 0, 0]),
    (Cosine(10, end=0.2), [0, 5, 10], [1, 0.6, 0.2]),
    (InverseSquareRoot(1), [0, 3, 8, 99], [1, 1 / 2, 1 / 3, 1 / 10]),
    (WarmUp(400, InverseSquareRoot(400)), [0, 100, 400, 1600], [0, 0.25, 1, 0.5]),  # min(t/400, sqrt(400/t))
    (Step(5, 0.5), [0, 4.99, 5, 9, 10, 52], [1, 1, 0.5, 0.5, 0.25, 2**-10]),
    (Step(20, 0.1), [19, 20, 40], [1, 0.1, 0.01]),
    (Milestones((80, 120)), [79, 80, 119, 120, 500], [1, 0.1, 0.1, 0.01, 0.01]),
    (Cyclical(8, 0.2), [0, 2, 4, 6, 8, 12], [0.2, 0.6, 1, 0.6, 0.2, 1]),
    (Cyclical(8, 0.2, "triangular2"), [4, 8, 12, 20, 22], [1, 0.2, 0.6, 0.4, 0.3]),
    (Cyclical(8, 0.2, "exp_range", 0.9), [0, 4, 12], [0.2, 0.2 + 0.8 * 0.9**4, 0.2 + 0.8 * 0.9**12]),
    (OneCycle(100, 0.4, 0.1, 0.01), [0, 20, 40, 70, 100, 200], [0.1, 0.55, 1, 0.505, 0.01, 0.01]),
    (WarmUp(4, Linear(10)), [0, 1, 3, 4, 9, 14], [0, 0.25, 0.75, 1, 0.5, 0]),
    (WarmUp(4, Constant(3), start=1), [0, 2, 4], [1, 2, 3]),
    (Chain([(2, Constant(0.5)), (4, Linear(8))], Step(1, 0.1)), [0, 1, 2, 4, 6, 7], [0.5, 0.5, 1, 0.75, 1, 0.1]),
    (Repeated(Linear(), 4), [0, 3, 4, 6, 8, 401], [1, 0.25, 1, 0.5, 1, 0.75]),
    (Repeated(Linear(), 4, growth=2, decay=0.5), [0, 2, 4, 8, 12, 20], [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
    (Scaled(Step(20, 0.1), 90), [0, 0.2, 0.25, 0.5], [1, 1, 0.1, 0.01]),
    (Scaled(Cosine(), 1 / 1000), [0, 500, 1000], [1, 0.5, 0]),
]


@pytest.mark.parametrize("schedule, positions, factors", PLACES, ids=lambda value: str(value)[:40])
def test_places(schedule, positions, factors):
    assert_allclose([schedule(t) for t in positions], factors, rtol=1e-12, atol=1e-15)


def test_a_change_comes_with_the_step_that_it_is_for():
    """Positions that are made of progress are rounded; epoch 5 is the fifth all the same."""
    for epochs in range(1, 200):
        for epoch in range(epochs):
            progress = (epoch + 0 / 7) / epochs
            assert Scaled(Step(5, 0.5), epochs)(progress) == 0.5 ** (epoch // 5)
            assert Scaled(Milestones((3, 11)), epochs)(progress) == 0.1 ** ((epoch >= 3) + (epoch >= 11))
            again = [Scaled(Repeated(Linear(), 3, growth), epochs)(progress) for growth in (1, 2)]
            assert_allclose(again[0], 1 - epoch % 3 / 3, atol=1e-12)
            assert abs(again[1] - 1) < 1e-12 or epoch not in (0, 3, 9, 21, 45, 93, 189)


def test_names_of_the_command_line():
    ends = {name: (schedule(0.0), schedule(1.0)) for name, schedule in SCHEDULES.items()}
    assert ends["constant"] == (1, 1) and ends["linear"] == ends["cosine"] == (1, 0)
    assert_allclose(ends["step"], (1, 0.01))
    assert_allclose([SCHEDULES["step"](t) for t in (0.33, 1 / 3, 0.66, 2 / 3)], [1, 0.1, 0.1, 0.01])
    assert_allclose(ends["one-cycle"], (1 / 25, 4e-6))
    assert ends["cyclical"] == (0.25, 0.25) and ends["inverse-sqrt"] == (1, math.sqrt(0.01 / 1.01))


@every_schedule
def test_factors_lie_between_0_and_1(name):
    assert all(0 <= ALL[name](t) <= 1 for t in np.linspace(0, 1, 1001))


@every_schedule
def test_schedules_are_values(name):
    """What a schedule gives depends on the position alone, and survives pickling."""
    schedule, positions = ALL[name], np.random.default_rng(0).uniform(0, 1, 50)
    factors = [schedule(t) for t in positions]
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule and hash(again) == hash(schedule) and repr(again) == repr(schedule)
    assert [again(t) for t in positions[::-1]] == factors[::-1]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Linear(0), "length"),
        (lambda: Linear(end=-1), "end"),
        (lambda: Step(-5, 0.1), "length"),
        (lambda: Step(5, -0.1), "factor"),
        (lambda: Cosine(math.nan), "length"),
        (lambda: Cyclical(2, mode="sawtooth"), "mode: expected one of 'triangular', 'triangular2', 'exp_range'"),
        (lambda: OneCycle(rise=1), "rise"),
        (lambda: WarmUp(-1, Linear()), "length"),
        (lambda: Chain([(0, Linear())], Constant()), "parts: length"),
        (lambda: Repeated(Linear(), 3, growth=0.5), "growth"),
        (lambda: Scaled(Linear(), 0), "by"),
    ],
)
def test_refused(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
