"""The page of results, `README.md` in the output folder: targets, a table per family, the machine, how it was done."""

from fastcnn.bench import table, targets
from fastcnn.bench.cases import FAMILIES

_METHOD = """\
## How it was measured

Each library runs in a process of its own, and they work in turn: fastcnn, the others, fastcnn, the others, ... with a
pause in between in which waiting threads fall asleep. A time is the median over the rounds, of the median call in each
round. A ratio is the other library's time divided by fastcnn's in the same round (above 1, fastcnn is faster), the
median over the rounds with the quartiles; the NumPy reference, which is slow, is timed once, after the rounds. `!`
marks results that differ from fastcnn's by more than rounding. float32 everywhere but in the column bf16.

*ceiling*: share of the speed that the machine's own limits allow, which are measured in the same run: fused
multiply-adds that never leave the registers, and a large copy (bytes read plus bytes written). The operations are those
of the direct algorithm, so that a faster algorithm can exceed 100 %; so can work that fits into the caches.

fastcnn writes into buffers that outlive the call, as its stateful layers do; PyTorch allocates its results, as its
modules do.

*step alone* is fastcnn's training step on a batch that is ready, as often as the case makes, or takes, one. Above 1,
batches are made faster than steps use them up; at 1, to make them meanwhile costs the steps nothing.
"""
_GPU_METHOD = """\
## How it was measured

Each library runs in a process of its own, and they work in turn, one at a time on the GPU. Times are the GPU's own,
between two events around a batch of calls, after calls that compile, allocate and, for cuDNN, try its algorithms. The
calls go round sets of arrays, results included, that together exceed the L2 cache three times (64 sets at most, so that
the smallest work stays in cache). Before a batch the GPU is given large copies that keep it busy until the host has
launched the calls: the time does not depend on how fast Python launches. It does where a call waits for its own
results, and for whole nets (training steps, inference), whose calls are timed as they come. *launch* is what the host
takes to launch a call; no program calls faster than that.

A time is the median over the rounds, of the median batch in each round. A ratio is the other library's time divided by
fastcnn's in the same round (above 1, fastcnn is faster), the median over the rounds with the quartiles. `!` marks
results that differ from fastcnn's by more than rounding. All in float32; where a name ends in tf32, both round the
factors of products to TF32, and nowhere else.

*ceiling*: share of the speed that the GPU's own limits allow, which are measured in the same run: fused multiply-adds
in float32 that never leave the registers, and a large copy, ours or the driver's (bytes read plus bytes written). The
operations are those of the direct algorithm, so that a faster algorithm, and TF32, can exceed 100 %; so can work that
fits into the cache. Batch norm is counted as two passes over its inputs.

fastcnn writes into buffers that outlive the call, as its stateful layers do; PyTorch and CuPy allocate their results.
"""
_SIMULATED = "**A simulation on a CPU: the times say nothing about a GPU.**\n"


def write(results):
    """Write the page for a `Results`."""
    rows = sorted(results.cases.values(), key=lambda row: FAMILIES.index(row["family"]))
    on_gpu = results.backend == "cuda"
    simulated = any("simulator" in run["machine"].get("gpu", "") for run in results.runs)
    parts = ["# Benchmark results\n", _machines(results.runs)]
    parts += [_SIMULATED] if simulated else [_targets(results, rows)]
    if (results.folder / "speedup.png").exists():
        parts.append("![How many times as fast as other libraries](speedup.png)\n\n![Roofline](roofline.png)\n")
    for family in FAMILIES:
        here = [row for row in rows if row["family"] == family]
        if here:
            parts.append(_family(results, family, here))
    parts.append(_GPU_METHOD if on_gpu else _METHOD)
    (results.folder / "README.md").write_text("\n".join(parts))


def _machines(runs):
    """Each machine once; then a line for each run."""
    lines = []
    for machine in {tuple(run["machine"].items()): run["machine"] for run in runs}.values():
        lines.append("- " + ", ".join(f"{name} {fact}" for name, fact in machine.items()))
    versions = {name: version for run in runs for name, version in run["versions"].items()}
    lines.append("- " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    unavailable = {name: why for run in runs for name, why in run.get("unavailable", {}).items()}
    lines += [f"- {name} could not be used: {why}" for name, why in unavailable.items()]
    return "\n".join([*lines, "", *(_gpu_runs(runs) if runs[-1].get("backend") == "cuda" else _cpu_runs(runs))]) + "\n"


def _gpu_runs(runs):
    lines = ["| run | FMA rate | copy | host: load average before | after |", "|---|--:|--:|--:|--:|"]
    for run in runs:
        lines.append(
            f"| {run['date']} | {_limits(run)} | {_load(run['load']['before'])} | {_load(run['load']['after'])} |"
        )
    return lines


def _cpu_runs(runs):
    lines = [
        "| run | threads | waiting | FMA rate | copy | others' share of the cores, load average before | after |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for run in runs:
        load = run["load"]
        lines.append(
            f"| {run['date']} | {run['threads']} | {run['waiting']} | {_limits(run)} | "
            f"{_load(load['before'])} | {_load(load['after'])} |"
        )
    return lines


def _limits(run):
    return f"{run['ceilings']['gflops']:.0f} GFLOP/s | {run['ceilings']['gbytes']:.1f} GB/s"


def _load(load):
    """A run's load before or after it; that after it is not known when it was interrupted."""
    if load is None:
        return "interrupted"
    share = "" if load["busy"] is None else f"{load['busy']:.0%}, "
    return f"{share}{load['average']}"


def _targets(results, rows):
    lines = [
        "## Targets\n",
        "| work | against | at least | aim | mean | worst case | |",
        "|---|---|--:|--:|--:|---|---|",
    ]
    for target in targets.TARGETS[results.backend]:
        verdict = targets.judge(target, rows, lambda row: table.share(row, results.run_of(row)))
        against = target.against if isinstance(target.against, str) else "best of " + ", ".join(target.against)
        against = against.removeprefix("best of ") if "," not in against else against
        aim = "" if target.aim is None else _number(target, target.aim)
        limit = _number(target, target.least) + (f", none below {target.worst:g}x" if target.worst else "")
        if verdict.mean is None:
            found = " | not measured | "
        else:
            worst = f"{_number(target, verdict.smallest)} {verdict.case}" if verdict.cases > 1 else ""
            found = f"{_number(target, verdict.mean)} | {worst} | {'met' if verdict.met else '**missed**'}"
        lines.append(f"| {target.text} | {against} | {limit} | {aim} | {found} |")
    return "\n".join(lines) + "\n"


def _number(target, value):
    return {"seconds": f"{value:.3g} s", "ceiling": f"{value:.0%}"}.get(str(target.against), f"{value:.2f}x")


def _family(results, family, rows):
    """A table of one family; columns in which nothing stands are left out."""
    peers = [name for name in table.COLUMNS if any(name in row["results"] for row in rows)]
    first = "memory" if family == "memory" else "time"
    heads = ["case", first, "GFLOP/s", "GB/s", "ceiling", "NumPy", "launch", *peers, "images/s"]
    lines = [
        [row["name"], *table.cells(row, results.run_of(row)), table.launching(row["results"].get("fastcnn", {})),
         *(_spread(row["results"].get(name)) for name in peers), _rates(row, peers)]
        for row in rows
    ]  # fmt: skip
    kept = [i for i in range(len(heads)) if any(line[i] for line in lines)]
    text = [f"## {family}\n", _line([heads[i] for i in kept]), "|---|" + "--:|" * (len(kept) - 1)]
    text += [_line([line[i] for i in kept]) for line in lines]
    errors = {
        f"- {name}: {result['error']}" for row in rows for name, result in row["results"].items() if "error" in result
    }
    return "\n".join([*text, "", *sorted(errors)]) + "\n"


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def _spread(result):
    """A ratio with its quartiles."""
    text = table.ratio(result)
    if result and "low" in result.get("ratio", {}):
        return f"{text} ({result['ratio']['low']:.2f}-{result['ratio']['high']:.2f})"
    return text


def _rates(row, peers):
    """Images per second of ours and of each peer."""
    names = [name for name in ("fastcnn", *peers) if table.per_second(row, name)]
    return ", ".join(f"{table.SHORT.get(name, name)} {table.per_second(row, name):,.0f}" for name in names)
