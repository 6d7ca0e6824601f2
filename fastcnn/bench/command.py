"""`fastcnn bench`: measure, show a table while it grows, and leave a folder of results."""

import datetime
import os
import sys

from fastcnn.bench import cases, measure, plots, report, runners, table
from fastcnn.bench.results import Results
from fastcnn.bench.worker import Pool, WorkerError
from fastcnn.train.extras import need

QUICK = measure.Settings(rounds=5, seconds=0.1, reference_flops=3e9)


def bench(arguments):
    """Measure as the command line asks; returns the exit status."""
    tqdm = None if arguments.no_progress else need("tqdm", "bench").tqdm
    need("matplotlib", "bench")  # before measuring, not after it
    peers = runners.peers(arguments.peers)
    chosen = cases.select(arguments.family, arguments.op, arguments.quick)
    settings = _settings(arguments)
    results = Results(arguments.output)
    if arguments.resume:
        chosen = [case for case in chosen if case.name not in results.cases]
    threads = arguments.threads or _cores()
    print(f"{len(chosen)} cases, {threads} threads, peers: {', '.join(peers) or 'none'}; results in {results.folder}")
    _warn_of_load(_load())
    with Pool(threads, spin=not arguments.passive) as pool:
        results.begin(_description(arguments, threads, settings, pool))
        _run(chosen, pool, peers, settings, results, tqdm)
        run = results.runs[-1]
        run["ceilings"] = _best_ceilings(run["ceilings"], pool)
        run["versions"] |= pool.versions
        run["unavailable"] = pool.broken
        run["load"]["after"] = _load()
        results.save()
    plots.draw(results)
    report.write(results)
    for file, reason in pool.broken.items():
        print(f"{file} could not be used: {reason}", file=sys.stderr)
    return 0


def _run(chosen, pool, peers, settings, results, tqdm):
    bar = tqdm(total=len(chosen), unit=" cases", leave=False, dynamic_ncols=True) if tqdm else None
    family = None
    for case in chosen:
        if bar:
            bar.set_postfix_str(case.name)
        results.add(measure.measure(case, pool, peers, settings))
        say = bar.write if bar else print
        if case.family != family:
            family = case.family
            say("\n" + table.head(family))
        say(table.line(results.cases[case.name], results.runs[-1]))
        if bar:
            bar.update()
    if bar:
        bar.close()


def _settings(arguments):
    settings = QUICK if arguments.quick else measure.Settings()
    given = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    return settings._replace(**{name: value for name, value in given.items() if value})


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _description(arguments, threads, settings, pool):
    """What goes with the results of a run."""
    try:
        gflops, gbytes, _ = pool.ask("ours", "ceilings")
    except WorkerError as error:
        raise OSError(f"the machine's limits could not be measured: {error}") from error
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "threads": threads,
        "waiting": "passive" if arguments.passive else "as each library does by itself",
        "settings": settings._asdict(),
        "machine": _machine(),
        "versions": dict(pool.versions),
        "ceilings": {"gflops": gflops, "gbytes": gbytes},
        "load": {"before": _load(), "after": None},
    }


def _best_ceilings(before, pool):
    """The larger of what was measured before the cases and after them."""
    gflops, gbytes, _ = pool.ask("ours", "ceilings")
    return {"gflops": max(before["gflops"], gflops), "gbytes": max(before["gbytes"], gbytes)}


def _machine():
    from fastcnn.info import collect

    facts = collect()
    facts["python"] = facts["python"].partition(" ")[0]  # without its path
    return {name: facts[name] for name in ("cpu", "cores", "vectors", "system", "python", "threading layer")}


def _load():
    """Processes that wanted a core in the last minute, on average; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _warn_of_load(load):
    if load is not None and load > 0.3:
        print(
            f"the machine is busy (load average {load}): the figures will not say much, unless it settles soon",
            file=sys.stderr,
        )
