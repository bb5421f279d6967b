"""Cost queries answered by measurements: from the cache, or made now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eopt.backends.base import Unknown
from eopt.backends.executor import Executor
from eopt.backends.harness import bench
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.harness.store import Store
from eopt.backends.target import Target
from eopt.costmodel.asked import workload_of
from eopt.costmodel.calibrated import around, corrected
from eopt.costmodel.query import Basis, Cost, CostModel
from eopt.costmodel.records import record
from eopt.costmodel.service import FIGURES, NOTHING, count_of, scope
from eopt.ir.errors import InputError, UsageError
from eopt.tools.calibrate import timings
from eopt.tools.measuring import Reach, elsewhere, setup_for, store_of

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
    Of a target that is not this machine, and not behind a tracker, only what the cache holds is known.

    Raises:
        InputError: a malformed query, by its line; too many.
        UsageError: the executor cannot be measured, or somebody set a clock or a power cap.
    """
    if target.clock_hz is not None or target.power_cap_w is not None:
        raise UsageError("--clock and --power-cap are for predictions: a device is measured as it is set")
    if len(rows) > MAX_ROWS:
        raise InputError(f"more than {MAX_ROWS} queries to measure; leave out --with measured, or split them")
    asked = [_asked(row, line) for line, row in enumerate(rows, 1)]
    setup, store = setup_for(target, executor, tune, away), store_of(cache, target)
    workloads = [one for one in asked if isinstance(one, Workload)]
    why = elsewhere(target) if away is None else None
    kept = timings(workloads, setup, store, away, progress) if why is None else _known(workloads, setup, store, why)
    results = iter(kept)
    found = [next(results) if isinstance(one, Workload) else one for one in asked]
    by = _measured_by(setup, away)
    return [_answer(row, one, target, executor, model, setup, by) for row, one in zip(rows, found, strict=True)]


def checked(row: Row) -> None:
    """Look at a query without measuring it.

    Raises:
        InputError: it is malformed.
    """
    count_of(row)
    record(row)


def _asked(row: Row, line: int) -> Workload | Unknown:
    try:
        checked(row)
        return workload_of(row)
    except InputError as error:
        raise InputError(f"line {line}: {error}") from None


def _known(workloads: Sequence[Workload], setup: Setup, store: Store, why: str) -> list[bench.Result]:
    """What was measured before; the rest is unknown."""
    version = bench.versions(setup)
    return [store.find(workload, setup, version) or Unknown((why,)) for workload in workloads]


def _measured_by(setup: Setup, away: Reach | None) -> str:
    schedule = f", {setup.schedule}" if setup.schedule else ""
    where = f", {away.key} at {away.tracker[0]}:{away.tracker[1]}" if away else ""
    return f"measured with {setup.executor} {bench.versions(setup)}{schedule}{where}"


def _answer(
    row: Row, found: Timing | Unknown, target: Target, executor: Executor, model: CostModel, setup: Setup, by: str
) -> dict[str, Any]:
    who = {"executor": executor.name, "schedule": setup.schedule}
    if isinstance(found, Unknown):
        basis, reasons = str(Basis.UNKNOWN), list(found.reasons)
        return {**row, **NOTHING, "energy_scope": scope(target), "basis": basis, "reasons": reasons, **who}
    spread = max(found.cv, LEAST_CV)
    reasons = [f"{by}; {found.repeats} windows, {found.cv:.1%} apart"]
    cost = _at(row, found.latency_s, spread, target, executor, model)
    if isinstance(cost, Unknown):
        span = around(found.latency_s, spread)
        figures = dict(zip(FIGURES[:3], (span.mid, span.lo, span.hi), strict=True))
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
