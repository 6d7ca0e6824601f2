"""Every kernel against its float64 reference, and every derivative against numerical differences.

What is compared is the relative error ||k - r|| / ||r|| of each result, with limits that stand in the catalogue.
Outputs are filled with NaN beforehand, so that an element that a kernel forgets to write shows.
"""

import dataclasses
import json
import math

import numpy as np

from fastcnn.catalogue import LEVELS, OPS, Floor, as_tuple, cast
from fastcnn.layers.device import unavailable

GRADIENT_LIMIT = 1e-6
GRADIENT_REASON = "central differences in float64: step 1e-6, so about 1e-16/1e-6 from rounding, 1e-12 from truncation"
_GRADIENT_ELEMENTS = 50_000  # larger cases say nothing more about a formula, and take long


@dataclasses.dataclass
class Verdict:
    """What validating one op in one dtype gave, and by one algorithm, where its cases name some (`algo`, or None).

    `error` and `gradient_error` are the worst over all cases (`gradient_error` None where there is no gradient),
    `failures` says for each failed comparison what was compared.
    """

    op: str
    algo: str | None
    dtype: str
    cases: int
    error: float
    limit: float
    reason: str
    gradient_error: float | None
    gradient_limit: float
    failures: list

    @property
    def passed(self):
        return not self.failures


def validate(names=None, backend="cpu", dtypes=("float32", "float64"), level="normal", seed=0):
    """Validate ops one after the other; a generator of `Verdict`, one per op, algorithm and dtype.

    Parameters
    ----------
    names : iterable of str, or None for all ops of the catalogue
    backend : str, the floor whose functions are validated
    dtypes : the dtypes to run it in
    level : "quick", "normal" or "thorough": how many and how large cases
    seed : int, of the random inputs

    Raises
    ------
    ValueError
        For an unknown op, dtype or level; the message lists what there is.
    """
    names = list(OPS if names is None else names)
    _known("op", names, OPS)
    _known("dtype", dtypes, ("float32", "float64"))
    _known("level", [level], LEVELS)
    floor = Floor(backend)
    return (
        _validate(OPS[name], algo, limit, cases, floor, dtype, seed)
        for name in names
        for algo, (limit, cases) in OPS[name].by_algorithm(level, backend).items()
        for dtype in dtypes
    )


def _known(what, names, known):
    for name in names:
        if name not in known:
            raise ValueError(f"{what}: expected one of {', '.join(known)}; got {name!r}")


def _validate(op, algo, limit, cases, floor, dtype, seed):
    verdict = Verdict(
        op.name, algo, dtype, len(cases), 0.0, getattr(limit, dtype), limit.reason, None, GRADIENT_LIMIT, []
    )
    for number, case in enumerate(cases):
        rng = np.random.default_rng([seed, number])
        arguments = op.arguments(rng, case, dtype)
        exact = as_tuple(op.function("reference")(**{k: cast(v, np.float64) for k, v in arguments.items()}))
        for call, results in _calls(op, floor, arguments):
            error = max(relative_error(k, r) for k, r in zip(results, exact, strict=True))
            verdict.error = float(np.maximum(verdict.error, error))  # hands a NaN on
            if not error <= verdict.limit:
                verdict.failures.append(f"{call}: error {error:.2g} for {case}")
            if any(isinstance(k, np.ndarray) and k.dtype != dtype for k in results):
                verdict.failures.append(f"{call}: a result is not {dtype} for {case}")
        size = sum(a.size for a in arguments.values() if isinstance(a, np.ndarray))
        if op.wrt and dtype == "float64" and 0 < size <= _GRADIENT_ELEMENTS:
            error = gradient_error(op, floor, case, rng)
            verdict.gradient_error = float(np.maximum(verdict.gradient_error or 0.0, error))
            if not error <= GRADIENT_LIMIT:
                verdict.failures.append(f"numerical gradient: error {error:.2g} for {case}")
    return verdict


def relative_error(result, exact):
    """||result - exact|| / ||exact|| of the finite elements; infinite where infinities and NaN are not the same."""
    result, exact = np.asarray(result, np.float64), np.asarray(exact, np.float64)
    finite = np.isfinite(exact)
    if result.shape != exact.shape or not np.array_equal(result[~finite], exact[~finite], equal_nan=True):
        return math.inf
    if not np.isfinite(result[finite]).all():
        return math.inf
    scale = np.linalg.norm(exact[finite])
    return float(np.linalg.norm(result[finite] - exact[finite]) / (scale if scale > 0 else 1.0))


def _calls(op, floor, arguments):
    """(how it was called, results) for the ways to call an op: layouts, read-only, given and in-place outputs."""

    def call(arguments, **out):
        return as_tuple(floor.get(floor.function(op)(**arguments, **out)))

    def poisoned(i):
        return floor.put(np.full_like(plain[i], np.nan))

    given = {name: floor.put(value) for name, value in arguments.items()}
    plain = call(given)
    yield "new output", plain
    for layout in ("strided", "fortran", "read-only"):
        yield f"{layout} inputs", call({name: _laid_out(value, layout, floor) for name, value in arguments.items()})
    if op.buffers:
        yield "given output", call(given, out=op.out([poisoned(i) for i in op.buffers]))
    if op.in_place:
        own = {name: floor.put(arguments[name].copy()) for name in op.in_place if name}
        names = zip(op.in_place, op.buffers, strict=True)
        targets = [own[name] if name else poisoned(i) for name, i in names]
        yield "in place", call({**given, **own}, out=op.out(targets))


def _laid_out(value, layout, floor):
    """`value` in another memory layout, on the floor."""
    if not isinstance(value, np.ndarray):
        return value
    if layout == "fortran":
        return floor.transposed(floor.put(np.ascontiguousarray(value.T)))
    if layout == "read-only":
        value = value.copy()
        value.flags.writeable = False
        return floor.put(value)
    poison = np.array(np.nan if value.dtype.kind == "f" else -1).astype(value.dtype)
    wide = np.full([2 * n for n in value.shape], poison)
    odd = tuple(slice(1, None, 2) for _ in value.shape)
    wide[odd] = value
    return floor.put(wide)[odd]


def gradient_error(op, floor, case, rng):
    """Largest relative error of an op's derivatives along random directions, against central differences in float64."""
    forward = OPS[op.derivative_of] if op.derivative_of else op
    given = forward.arguments(rng, case)
    results = as_tuple(floor.call(forward, given))
    if op.derivative_of:
        dout = rng.standard_normal(results[0].shape)
        gradients = as_tuple(floor.call(op, op.inputs(given, as_tuple(results), dout)))
    else:  # a loss returns its gradient along with its value
        dout, gradients = 1.0, results[1:]
    worst, step = 0.0, 1e-6
    for name, gradient in zip(op.wrt, gradients, strict=True):
        direction = rng.standard_normal(given[name].shape)

        def value(t, name=name, direction=direction):
            return as_tuple(floor.call(forward, {**given, name: given[name] + t * direction}))[0]

        slope = float(np.sum(dout * (value(step) - value(-step)))) / (2 * step)
        analytic = float(np.sum(gradient * direction))
        # A gradient that all but vanishes is judged by what it is the difference of.
        scale = max(np.linalg.norm(gradient), 1e-3 * np.linalg.norm(dout)) * np.linalg.norm(direction)
        error = abs(slope - analytic)
        worst = np.maximum(worst, error / scale if scale > 0 else error)  # hands a NaN on
    return float(worst)


def command(arguments):
    """`fastcnn validate`: print a table, a line per op, algorithm and dtype as it is done; returns the exit status.

    Where there is no GPU to validate on, a line says so, and all is well.
    """
    if arguments.backend == "cuda" and (lacking := unavailable()):
        print(f"nothing to validate: {lacking}")
        return 0
    if arguments.threads:
        from fastcnn.cpu.jit import set_num_threads

        set_num_threads(arguments.threads)
    dtypes = (arguments.dtype,) if arguments.dtype else ("float32", "float64")
    verdicts = []
    print(
        f"{'op':<34} {'dtype':<8} {'cases':>5} {'error':>8} {'limit':>8} {'gradient':>9}  verdict  reason of the limit"
    )
    for verdict in validate(arguments.op, arguments.backend, dtypes, arguments.level or "normal", arguments.seed):
        verdicts.append(verdict)
        name = f"{verdict.op} {verdict.algo or ''}"
        gradient = "-" if verdict.gradient_error is None else f"{verdict.gradient_error:.1e}"
        print(
            f"{name:<34} {verdict.dtype:<8} {verdict.cases:>5} {verdict.error:>8.1e} {verdict.limit:>8.1e} "
            f"{gradient:>9}  {'ok' if verdict.passed else 'FAILED':<7}  {verdict.reason}",
            flush=True,
        )
        for failure in verdict.failures:
            print(f"    {failure}")
    failed = sum(not verdict.passed for verdict in verdicts)
    print("error: worst ||kernel - reference|| / ||reference||, reference in float64")
    print(f"gradient: worst error against numerical differences, limit {GRADIENT_LIMIT:.0e} ({GRADIENT_REASON})")
    print(f"{len(verdicts) - failed} passed, {failed} failed")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump([_row(verdict) for verdict in verdicts], file, indent=2, allow_nan=False)
    return 1 if failed else 0


def _row(verdict):
    """A verdict for a JSON file, which knows no infinities: errors that are not finite become text."""
    row = {**dataclasses.asdict(verdict), "passed": verdict.passed}
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
