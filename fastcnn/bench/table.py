"""Results as lines of text that a person can read."""

_PEERS = ("torch", "torch channels_last", "torch.compile", "torch bf16", "onnxruntime", "jax")
_SHORT = {
    "torch channels_last": "t.ch.last",
    "torch.compile": "t.compile",
    "torch bf16": "t.bf16",
    "onnxruntime": "onnxrt",
}


def head(family):
    """The head of a family's table."""
    columns = "".join(f"{_SHORT.get(name, name):>10}" for name in _PEERS)
    return f"{family:<48}{'time':>10}{'GFLOP/s':>9}{'GB/s':>7}{'ceiling':>9}{'NumPy':>9}{columns}"


def line(row, run):
    """One case: our time and rates, share of the ceiling that binds, how many times as long each contestant took."""
    results = row["results"]
    ours = results.get("fastcnn", {})
    if "seconds" not in ours:
        return f"{row['name']:<48}{ours.get('error', 'not measured')}"
    seconds = ours["seconds"]
    cells = [
        f"{duration(seconds):>10}",
        f"{row['flops'] / seconds / 1e9:>9.1f}" if row["flops"] else f"{'-':>9}",
        f"{row['nbytes'] / seconds / 1e9:>7.1f}" if row["nbytes"] else f"{'-':>7}",
        f"{share(row, run):>8.0%} " if row["flops"] or row["nbytes"] else f"{'-':>9}",
        f"{ratio(results.get('reference')):>9}",
        *(f"{ratio(results.get(name)):>10}" for name in _PEERS),
    ]
    return f"{row['name']:<48}{''.join(cells)}"


def ratio(result):
    """How many times as long as ours it took; a "!" where its results differ from ours."""
    if result is None:
        return ""
    if "error" in result:
        return "failed"
    text = (
        f"{result['ratio']['median']:.2f}x" if result["ratio"]["median"] < 100 else f"{result['ratio']['median']:.0f}x"
    )
    return text + ("" if result.get("agrees", True) else "!")


def share(row, run):
    """Part of the speed that the binding ceiling of that run allows."""
    ceilings = run["ceilings"]
    least = max(row["flops"] / ceilings["gflops"], row["nbytes"] / ceilings["gbytes"]) / 1e9
    return least / row["results"]["fastcnn"]["seconds"]


def duration(seconds):
    """Like 12.3 ms."""
    for unit, name in ((1, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}" if seconds / unit < 100 else f"{seconds / unit:.0f} {name}"
    return f"{seconds / 1e-6:.3g} us"
