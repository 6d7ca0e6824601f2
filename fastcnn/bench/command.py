"""`fastcnn bench`: measure, show a table while it grows, and leave a folder of results."""

import contextlib
import datetime
import math
import os
import re
import sys
import time

from fastcnn.bench import cases, measure, plots, report, runners, table
from fastcnn.bench.results import Results
from fastcnn.bench.worker import Pool, WorkerError
from fastcnn.layers.device import unavailable
from fastcnn.train.extras import need

_BUSY = 0.05  # part of the cores in use by others, from which on a warning is given
QUICK = measure.Settings(rounds=5, seconds=0.1, reference_flops=3e9, left_out=("torch.compile",))


def bench(arguments):
    """Measure as the command line asks; returns the exit status.

    Where there is no GPU to measure, a line says so, and all is well.
    """
    backend = arguments.backend
    if backend == "cuda" and (lacking := unavailable()):
        print(f"nothing to measure: {lacking}")
        return 0
    tqdm = None if arguments.no_progress else need("tqdm", "bench").tqdm
    need("matplotlib", "bench")  # before measuring, not after it
    peers = runners.peers(arguments.peers, backend)
    chosen = cases.select(arguments.family, arguments.op, arguments.quick, backend)
    settings, facts = _settings(arguments), machine(backend)
    results = Results(arguments.output or folder(facts))
    if arguments.resume:
        chosen = [case for case in chosen if case.name not in results.cases]
    threads = arguments.threads or _cores()
    place = facts.get("gpu", f"{threads} threads")
    print(f"{len(chosen)} cases, {place}, peers: {', '.join(peers) or 'none'}; results in {results.folder}")
    with Pool(threads, not arguments.passive, backend) as pool:
        results.begin(_description(arguments, facts, settings, pool))
        run = results.runs[-1]
        try:
            _run(chosen, pool, peers, settings, results, tqdm, arguments.minutes)
            run["ceilings"] = _best_ceilings(run["ceilings"], pool)
            run["load"]["after"] = _load()
        finally:  # an interrupted run leaves a page, too
            run["versions"] |= pool.versions
            run["unavailable"] = pool.broken
            results.save()
            if results.cases:
                plots.draw(results)
                report.write(results)
    for file, reason in pool.broken.items():
        print(f"{file} could not be used: {reason}", file=sys.stderr)
    return 0


def machine(backend):
    """What goes with results, of the machine: {name: text}."""
    from fastcnn.info import collect

    facts = collect()
    facts["python"] = facts["python"].partition(" ")[0]  # without its path
    if backend == "cuda":
        return {name: facts[name] for name in ("gpu", "cpu", "system", "python")}
    return {name: facts[name] for name in ("cpu", "cores", "vectors", "system", "python", "threading layer")}


def folder(facts):
    """Where results of a `machine` go unless another folder is named."""
    if "gpu" not in facts:
        return "runs/bench"
    name = facts["gpu"].partition(",")[0]
    return "benchmarks/results/cuda-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _run(chosen, pool, peers, settings, results, tqdm, minutes):
    """Measure all cases that begin in time; each is shown, and in the file, as soon as it is done."""
    family, end = None, time.monotonic() + 60 * (minutes or math.inf)
    with _bar(tqdm, len(chosen)) as (say, begin):
        for number, case in enumerate(chosen):
            if time.monotonic() > end:
                say(f"\n{minutes:g} minutes are over: {len(chosen) - number} cases not measured; --resume goes on")
                break
            begin(case)
            results.add(measure.measure(case, pool, peers, settings))
            if case.family != family:
                family = case.family
                say("\n" + table.head(family, pool.backend))
            say(table.line(results.cases[case.name], results.runs[-1]))


@contextlib.contextmanager
def _bar(tqdm, count):
    """(function that prints a line, function to call before each case), with a progress bar if there is tqdm."""
    if tqdm is None:
        yield lambda text: print(text, flush=True), lambda case: None
        return
    with tqdm(total=count, unit=" cases", leave=False, dynamic_ncols=True) as bar:
        begun = []

        def begin(case):
            bar.update(len(begun) - bar.n)
            begun.append(case)
            bar.set_postfix_str(case.name)

        yield bar.write, begin


def _settings(arguments):
    settings = QUICK if arguments.quick else measure.Settings()
    given = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    return settings._replace(**{name: value for name, value in given.items() if value})


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _description(arguments, facts, settings, pool):
    """What goes with the results of a run; a warning, if the machine is busy."""
    load = _load()
    if load["busy"] and load["busy"] > _BUSY:
        print(f"something else uses {load['busy']:.0%} of the cores: the figures will not say much", file=sys.stderr)
    try:
        ceilings = pool.ask("ours", "ceilings")
    except WorkerError as error:
        raise OSError(f"the machine's limits could not be measured: {error}") from error
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "backend": pool.backend,
        "threads": pool.threads,
        "waiting": "passive" if arguments.passive else "as each library does by itself",
        "settings": {"rounds": settings.rounds, "seconds": settings.seconds},
        "machine": facts,
        "versions": dict(pool.versions),
        "ceilings": ceilings,
        "load": {"before": load, "after": None},
    }


def _best_ceilings(before, pool):
    """The larger of what was measured before the cases and after them."""
    after = pool.ask("ours", "ceilings")
    return {name: max(rate, after[name]) for name, rate in before.items()}


def _load():
    """The load average of the last minute, and the part of the cores that is in use while we wait; None: not known."""
    average = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    return {"average": average, "busy": _busy_share(0.5)}


def _busy_share(seconds):
    """The part of all cores' time that anything uses during so many seconds; None where the system does not say."""
    before = _core_times()
    time.sleep(seconds)
    after = _core_times()
    if not before:
        return None
    idle, total = (b - a for a, b in zip(before, after))
    return round(1 - idle / max(total, 1), 2)


def _core_times():
    """(idle time, all time) of all cores since the system was started; None where the system does not say."""
    try:
        with open("/proc/stat") as file:
            ticks = list(map(int, file.readline().split()[1:9]))
    except (OSError, ValueError):
        return None
    return ticks[3] + ticks[4], sum(ticks)
