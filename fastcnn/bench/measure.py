"""Measuring one case: all contestants in turn, each in its own process."""

import dataclasses
import math
from typing import NamedTuple

from fastcnn.bench import processes, runners
from fastcnn.bench.timer import alternate, ratios, spread
from fastcnn.bench.worker import WorkerError, agree

OURS, REFERENCE = runners.OURS


class Settings(NamedTuple):
    """How long to measure: rounds of alternation, and seconds for each contestant in all of them; the largest work, in
    operations, that the (slow) NumPy reference is given; contestants that are left out."""

    rounds: int = 9
    seconds: float = 0.2
    reference_flops: float = math.inf
    left_out: tuple = ()


def measure(case, pool, peers, settings):
    """Measure a case; returns its row of the results, a dictionary of plain numbers and texts.

    Parameters
    ----------
    case : cases.Case
    pool : worker.Pool
    peers : names of `runners.PEERS`
    settings : Settings
    """
    if case.kind != "time":
        return {**dataclasses.asdict(case), "results": getattr(processes, case.kind)(case, pool, peers, settings)}
    row = {**dataclasses.asdict(case), "results": {}}
    names = [name for name in runners.contestants(case.work, peers, pool.backend) if name not in settings.left_out]
    if case.flops > settings.reference_flops and REFERENCE in names:
        names.remove(REFERENCE)
    prepared = {}
    for name in names:
        try:
            prepared[name] = pool.ask(runners.CONTESTANTS[name], "prepare", case, name)
            row |= prepared[name].pop("costs")
            pool.pause()
        except WorkerError as error:
            row["results"][name] = {"error": str(error)}
    in_turn = [name for name in prepared if name != REFERENCE]
    slot = settings.seconds / settings.rounds
    times = alternate({name: _measure(pool, name, slot) for name in in_turn}, settings.rounds)
    if REFERENCE in prepared:
        times[REFERENCE] = _reference_times(pool, prepared[REFERENCE]["first"], settings)
    launching = {}
    if pool.backend == "cuda":
        launching = {name: spread([launch for _, launch in found]).median for name, found in times.items()}
        times = {name: [seconds for seconds, _ in found] for name, found in times.items()}
    for name, seconds in times.items():
        row["results"][name] = _result(name, seconds, times.get(OURS), prepared, case.comparable)
    for name, seconds in launching.items():
        row["results"][name]["launching"] = seconds
    for name in prepared:
        pool.ask(runners.CONTESTANTS[name], "forget")
    return row


def _measure(pool, name, seconds):
    def once():
        time = pool.ask(runners.CONTESTANTS[name], "measure", name, seconds)
        pool.pause()
        return time

    return once


def _reference_times(pool, first, settings):
    """The reference is slow, and its first call has nothing to compile: that is enough where it took long."""
    if first > settings.seconds:
        return [first]
    return [pool.ask(runners.CONTESTANTS[REFERENCE], "measure", REFERENCE, settings.seconds)]


def _result(name, seconds, ours, prepared, comparable):
    """What is kept of one contestant; `ratio` says how many times as long as ours it took."""
    times = spread(seconds)
    result = {"seconds": times.median, "low": times.low, "high": times.high, "rounds": times.count}
    result |= {key: value for key, value in prepared[name].items() if key != "looks"}
    if ours and name != OURS:
        pairs = ratios(ours, seconds) if len(ours) == len(seconds) else ratios(ours, [times.median] * len(ours))
        result["ratio"] = {"median": pairs.median, "low": pairs.low, "high": pairs.high}
        if comparable:
            result["agrees"] = agree(prepared[OURS]["looks"], prepared[name]["looks"])
    return result
