"""Pictures of the results: how many times as fast as other libraries, and the roofline."""

import math

from fastcnn.bench import table
from fastcnn.bench.targets import best_ratio
from fastcnn.train.extras import need

_FLOAT32 = tuple(name for name in table.PEERS if name != "torch bf16")


def draw(results):
    """Draw `speedup.png` and `roofline.png` into the folder of a `Results`.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    need("matplotlib", "bench").use("Agg")
    _save(results, "speedup.png", _speedup)
    _save(results, "roofline.png", _roofline)


def _save(results, name, fill):
    figure = fill(results, need("matplotlib.pyplot", "bench"))
    part = results.folder / f"part-{name}"
    figure.savefig(part, dpi=110)
    need("matplotlib.pyplot", "bench").close(figure)
    part.replace(results.folder / name)


def _speedup(results, pyplot):
    """A group of bars for each work, a bar for each contestant: geometric means, with the range over the cases."""
    works = {}
    for row in results.cases.values():
        for name, result in row["results"].items():
            if "ratio" in result and row["kind"] == "time" and name in ("reference", *table.PEERS):
                works.setdefault(row["work"], {}).setdefault(name, []).append(result["ratio"]["median"])
    names = [name for name in ("reference", *table.PEERS) if any(name in found for found in works.values())]
    figure, axis = pyplot.subplots(figsize=(11, 2 + 0.2 * sum(map(len, works.values()))), layout="constrained")
    y, ticks = 0, []
    for found in works.values():
        ticks.append(y + (len(found) - 1) / 2)
        for name in filter(found.get, names):
            mean = math.exp(sum(map(math.log, found[name])) / len(found[name]))
            axis.barh(y, mean - 1, 1, left=1, color=f"C{names.index(name)}")  # a bar from 1 to the mean
            axis.plot([min(found[name]), max(found[name])], [y, y], color="black", lw=0.8)
            y += 1
        y += 1
    for j, name in enumerate(names):
        axis.barh(0, 0, color=f"C{j}", label="NumPy reference" if name == "reference" else name)
    axis.axvline(1, color="black", lw=1)
    axis.set(xscale="log", xlabel="how many times as fast as ..., geometric mean and range over the cases")
    axis.set_yticks(ticks, list(works))
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    if names:
        axis.legend(fontsize="small")
    return figure


def _roofline(results, pyplot):
    """GFLOP/s over operations per byte: our cases, the fastest peer's, and the ceilings of the last run."""
    figure, axis = pyplot.subplots(figsize=(9, 6), layout="constrained")
    rows = [row for row in results.cases.values() if row["flops"] and row["nbytes"] and _seconds(row)]
    ceilings = results.runs[-1]["ceilings"]
    x = [row["flops"] / row["nbytes"] for row in rows]
    works = list(dict.fromkeys(row["work"] for row in rows))
    for j, work in enumerate(works):
        here = [(a, row) for a, row in zip(x, rows) if row["work"] == work]
        rates = [row["flops"] / _seconds(row) / 1e9 for _, row in here]
        axis.plot([a for a, _ in here], rates, "o", ms=4, color=f"C{j}", label=work)
        peers = [(a, row["flops"] / _fastest_peer(row) / 1e9) for a, row in here if _fastest_peer(row)]
        axis.plot([a for a, _ in peers], [rate for _, rate in peers], "x", ms=4, alpha=0.5, color=f"C{j}")
    edge = ceilings["gflops"] / ceilings["gbytes"]
    span = [min([edge / 4, *x]), max([edge * 4, *x])]
    roof = [min(ceilings["gflops"], a * ceilings["gbytes"]) for a in (span[0], edge, span[1])]
    label = f"{ceilings['gflops']:.0f} GFLOP/s, {ceilings['gbytes']:.0f} GB/s"
    axis.plot([span[0], edge, span[1]], roof, color="black", lw=1, label=label)
    axis.set(xscale="log", yscale="log", xlabel="operations per byte (direct algorithm, least traffic)")
    axis.set(ylabel="GFLOP/s", title="dots: fastcnn, crosses: the fastest other library")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    return figure


def _seconds(row):
    return row["results"].get("fastcnn", {}).get("seconds")


def _fastest_peer(row):
    """Seconds of the fastest other library in float32, or None."""
    name = best_ratio(row, _FLOAT32)[1]
    return name and row["results"][name]["seconds"]
