"""Results as text that a person can read: lines for the terminal, cells for the page."""

from fastcnn.bench.runners import COMPETING

PEERS = ("torch", "torch channels_last", "torch.compile", "torch bf16", "onnxruntime", "jax", "cupy")
COLUMNS = (*PEERS, "step alone")  # everyone that ours is compared with, but the reference
SHORT = {
    "torch channels_last": "t.ch.last",
    "torch.compile": "t.compile",
    "torch bf16": "t.bf16",
    "onnxruntime": "onnxrt",
    "step alone": "alone",
}


def head(family, backend="cpu"):
    """The head of a family's table."""
    columns = "".join(f"{SHORT.get(name, name):>10}" for name in _columns(backend))
    own = "NumPy" if backend == "cpu" else "launch"
    return f"{family:<48}{'time':>10}{'GFLOP/s':>9}{'GB/s':>7}{'ceiling':>9}{own:>9}{columns}"


def line(row, run):
    """One case: our time and rates, share of the ceiling that binds, how many times as long each contestant took.

    On a GPU also what it takes to launch a call.
    """
    backend = run.get("backend", "cpu")
    first, *rates, numpy = cells(row, run)
    own = numpy if backend == "cpu" else launching(row["results"].get("fastcnn", {}))
    texts = f"{first:>10}{rates[0]:>9}{rates[1]:>7}{rates[2]:>9}{own:>9}"
    return f"{row['name']:<48}{texts}" + "".join(f"{ratio(row['results'].get(n)):>10}" for n in _columns(backend))


def _columns(backend):
    return [name for name in COLUMNS if name in COMPETING[backend]]


def cells(row, run):
    """Texts: our time (or memory), GFLOP/s, GB/s, share of the ceiling, speed-up over the reference."""
    ours = row["results"].get("fastcnn", {})
    if "bytes" in ours:
        return f"{ours['bytes'] / 1e6:.0f} MB", "", "", "", ""
    if "seconds" not in ours:
        return "failed", "", "", "", ""
    seconds = ours["seconds"]
    flops = f"{row['flops'] / seconds / 1e9:.1f}" if row["flops"] else ""
    nbytes = f"{row['nbytes'] / seconds / 1e9:.1f}" if row["nbytes"] else ""
    part = f"{share(row, run):.0%}" if flops or nbytes else ""
    return duration(seconds), flops, nbytes, part, ratio(row["results"].get("reference"))


def ratio(result):
    """How many times as long as ours it took; a "!" where its results differ from ours."""
    if result is None or "ratio" not in result:
        return "failed" if result and "error" in result else ""
    times = result["ratio"]["median"]
    return f"{times:.{0 if times >= 100 else 2}f}x" + ("" if result.get("agrees", True) else "!")


def launching(result):
    """What the host takes to launch a call on a GPU."""
    return duration(result["launching"]) if "launching" in result else ""


def share(row, run):
    """Part of the speed that the binding ceiling of that run allows."""
    ceilings = run["ceilings"]
    least = max(row["flops"] / ceilings["gflops"], row["nbytes"] / ceilings["gbytes"]) / 1e9
    return least / row["results"]["fastcnn"]["seconds"]


def duration(seconds):
    """Like 12.3 ms."""
    for unit, name in ((1, "s"), (1e-3, "ms")):
        if seconds >= unit:
            count = seconds / unit
            return f"{count:.0f} {name}" if count >= 100 else f"{count:.3g} {name}"
    return f"{seconds / 1e-6:.3g} us"


def per_second(row, name):
    """Images per second of a contestant, or None."""
    seconds = row["results"].get(name, {}).get("seconds")
    return row["images"] / seconds if seconds and row["images"] else None
