"""Cost queries answered by measurements: from the cache, or made now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eopt.backends.base import Unknown
from eopt.backends.executor import Executor
from eopt.backends.harness import bench
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.target import Target
from eopt.costmodel.asked import workload_of
from eopt.costmodel.calibrated import corrected
from eopt.costmodel.query import Basis, Cost, CostModel
from eopt.costmodel.records import record
from eopt.costmodel.service import FIGURES, NOTHING, scope
from eopt.ir.errors import InputError
from eopt.tools.calibrate import timings
from eopt.tools.measuring import Reach, setup_of, store_of

Row = Mapping[str, Any]
Progress = Callable[[str, int, int], None]
MAX_ROWS = 10_000  # each takes a tenth of a second at least
LEAST_CV = 0.02  # two passes on a quiet machine differ by that
NO_METER = "joules are predicted power over the measured latency"


def measured(
    rows: Sequence[Row],
    target: Target,
    executor: Executor,
    model: CostModel,
    *,
    tune: int | None = None,
    away: Reach | None = None,
    cache: str | Path | None = None,
    progress: Progress = lambda label, done, total: None,
) -> list[dict[str, Any]]:
    """The same objects with the measured cost of one execution, in order; what cannot be measured is null and says why.

    Latencies have the interval of their repeats. Without a meter joules are those of the cost model at that latency.

    Raises:
        InputError: a malformed query, by its line; too many.
        UsageError: the target is not this machine and no tracker is given, or the executor cannot be measured.
    """
    if len(rows) > MAX_ROWS:
        raise InputError(
            f"{len(rows)} queries to measure, more than {MAX_ROWS}; leave out --with measured, or split them"
        )
    setup = setup_of(target, executor, tune, away)
    asked = [_asked(row, line) for line, row in enumerate(rows, 1)]
    workloads = [one for one in asked if isinstance(one, Workload)]
    results = iter(timings(workloads, setup, store_of(cache, target), away, progress))
    found = [next(results) if isinstance(one, Workload) else one for one in asked]
    version = bench.versions(setup)
    return [_answer(row, one, target, executor, model, setup, version) for row, one in zip(rows, found, strict=True)]


def _asked(row: Row, line: int) -> Workload | Unknown:
    try:
        record(row)
        return workload_of(row)
    except InputError as error:
        raise InputError(f"line {line}: {error}") from None


def _answer(
    row: Row, found: Timing | Unknown, target: Target, executor: Executor, model: CostModel, setup: Setup, version: str
) -> dict[str, Any]:
    who = {"executor": executor.name, "schedule": setup.schedule}
    if isinstance(found, Unknown):
        basis, reasons = str(Basis.UNKNOWN), list(found.reasons)
        return {**row, **NOTHING, "energy_scope": scope(target), "basis": basis, "reasons": reasons, **who}
    spread = max(found.cv if found.noisy else LEAST_CV, LEAST_CV)
    reasons = [f"measured with {executor.name} {version}, {found.repeats} windows, {found.cv:.1%} apart"]
    cost = _at(row, found.latency_s, spread, target, executor, model)
    if isinstance(cost, Unknown):
        wide = (1 - 2 * spread, 1 + 2 * spread)
        figures = dict(zip(FIGURES, (found.latency_s, *(found.latency_s * bound for bound in wide)), strict=False))
        reasons += [f"no joules: {reason}" for reason in cost.reasons]
        return {**row, **NOTHING, **figures, **_tail(target, reasons), **who}
    spans = (cost.latency_s, cost.energy_j)
    values = [value for span in spans for value in (span.mid, span.lo, span.hi)]
    figures = {**dict(zip(FIGURES, values, strict=True)), "power_w": cost.power_w}
    return {**row, **figures, **_tail(target, [*reasons, NO_METER]), **who}


def _tail(target: Target, reasons: list[str]) -> dict[str, Any]:
    return {"energy_scope": scope(target), "basis": str(Basis.MEASURED), "reasons": reasons}


def _at(
    row: Row, latency_s: float, spread: float, target: Target, executor: Executor, model: CostModel
) -> Cost | Unknown:
    """What the cost model says of the joules, at the latency that was measured."""
    kernels = record(row)
    if isinstance(kernels, Unknown):
        return kernels
    (cost,) = model.query_many(kernels, target, executor)
    return cost if isinstance(cost, Unknown) else corrected(cost, latency_s, spread, NO_METER)
