"""`eopt calibrate` as a library: measure the operators that tell most about a device, and keep what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from eopt.backends.base import Unknown
from eopt.backends.executor import Executor
from eopt.backends.harness import bench
from eopt.backends.harness.base import Setup, Timing, Workload
from eopt.backends.harness.store import Store
from eopt.backends.target import Target
from eopt.costmodel import adapt, calibration, design, residual, suite
from eopt.costmodel.calibrated import references
from eopt.costmodel.calibration import Calibration, Measured
from eopt.costmodel.embedding import device
from eopt.costmodel.learned import Learned, current
from eopt.costmodel.pieces import pieces
from eopt.costmodel.query import Cost, CostModel, Kernel
from eopt.costmodel.tree import Situation
from eopt.ir.errors import InputError
from eopt.tools.measuring import Reach, setup_of, store_of
from eopt.tools.situation import hardware

POOL = 400  # candidates; more choice adds little to what the best of them tell
HELD_OUT = 40  # not learned from until the errors that are printed are known, which are of these
LEAST = 10
LONGEST_S = {"tvm": 0.004}  # predicted; schedules that nobody tuned are up to a hundred times slower
USUAL_LONGEST_S = 0.05
Array = np.ndarray[Any, Any]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """An operator that could be measured, and what is predicted of it in seconds."""

    kind: str
    kernel: Kernel
    workload: Workload
    predicted_s: float


@dataclass(frozen=True)
class Outcome:
    """A calibration that was made.

    Attributes:
        path: where it is kept.
        held_out: by operator that it does not learn from: kind, measured seconds, and those predicted before and after.
        failed: operators without a figure, with reasons.
    """

    calibration: Calibration
    path: Path
    held_out: tuple[tuple[str, float, float, float], ...]
    failed: tuple[str, ...]


def calibrate(
    target: str,
    executor: str | None = None,
    *,
    ops: int = 60,
    tune: int | None = None,
    away: Reach | None = None,
    cache: str | Path | None = None,
    seed: int = 0,
    progress: Progress = lambda label, done, total: None,
) -> Outcome:
    """Measure `ops` operators of a target through an executor, and `HELD_OUT` more to see what that gained.

    The errors are of what the `ops` say of the others. What is kept holds all of them: they are measured anyway.

    Args:
        tune: trials of the search for a schedule, with executor tvm.
        away: a tracker with the devices, instead of this machine.

    Raises:
        UsageError: no such target or executor, the target is not this machine, or its executor is not installed.
        InputError: too few operators could be measured, the first reason named.
        OutputError: measurements or the calibration cannot be kept.
    """
    found, runs_it = hardware(target, executor)
    setup, base = setup_of(found, runs_it, tune, away), current()
    pool = candidates(found, runs_it, base, seed, setup.executor != "tvm")
    chosen, held_out = split(pool, found, runs_it, base, ops, seed)
    asked = [*chosen, *held_out]
    results = timings([one.workload for one in asked], setup, store_of(cache, found), away, progress)
    pairs = list(zip(asked, results, strict=True))
    failed = tuple(dict.fromkeys(reason for _, one in pairs if isinstance(one, Unknown) for reason in one.reasons))
    rows = [(one, timing) for one, timing in pairs[: len(chosen)] if isinstance(timing, Timing)]
    unseen = [(one, timing) for one, timing in pairs[len(chosen) :] if isinstance(timing, Timing)]
    if len(rows) < min(LEAST, ops) or not unseen:
        reason = f": {failed[0]}" if failed else ""
        raise InputError(f"only {len(rows)} of {len(chosen)} operators could be measured on {found.name}{reason}")
    made = Calibration(
        found.name,
        found.model,
        runs_it.name,
        setup.schedule,
        bench.versions(setup),
        datetime.now(UTC).isoformat("T", "seconds"),
        _measured(rows),
        {},
    )
    scored = _scored(made, unseen, base, found, runs_it)
    errors = {"count": len(scored), "before": median_error(scored, 2), "after": median_error(scored, 3)}
    made = replace(made, rows=made.rows + _measured(unseen), unseen={"learned": len(rows), **errors})
    return Outcome(made, calibration.keep(made), scored, failed)


def _measured(pairs: Sequence[tuple[Candidate, Timing]]) -> tuple[Measured, ...]:
    return tuple(Measured(one.kernel, timing.latency_s, timing.cv) for one, timing in pairs)


def candidates(target: Target, executor: Executor, base: CostModel, seed: int, copied: bool) -> list[Candidate]:
    """Operators that the executor runs as one kernel and the cost model can price."""
    dtypes = ("float",) if target.kind == "cpu" else ("float", "float16")
    found: list[tuple[str, Kernel, Workload]] = []
    situation = Situation(target, executor)
    for one in suite.draw(POOL, seed, dtypes):
        parts = list(pieces(one.model(), situation, copied))
        if len(parts) != 1:
            continue
        kernel, workload = parts[0].kernel, parts[0].workload
        if not isinstance(kernel, Unknown) and not isinstance(workload, Unknown):
            found.append((one.kind, kernel, workload))
    costs = base.query_many([kernel for _, kernel, _ in found], target, executor)
    longest_s = LONGEST_S.get(executor.name, USUAL_LONGEST_S)
    return [
        Candidate(*one, cost.latency_s.mid)
        for one, cost in zip(found, costs, strict=True)
        if isinstance(cost, Cost) and cost.latency_s.mid < longest_s
    ]


def split(
    pool: Sequence[Candidate], target: Target, executor: Executor, base: CostModel, ops: int, seed: int
) -> tuple[list[Candidate], list[Candidate]]:
    """Those that tell most of the pool, and some at random that nobody learns from.

    Raises:
        InputError: the cost model prices none.
    """
    order = np.random.default_rng(seed).permutation(len(pool))
    held_out, rest = [pool[place] for place in order[:HELD_OUT]], [pool[place] for place in order[HELD_OUT:]]
    if not rest:
        raise InputError(f"nothing can be priced on {target.name} with {executor.name}, so nothing tells about it")
    kernels, seconds = [one.kernel for one in rest], np.array([one.predicted_s for one in rest])
    along = _sensitivity(kernels, seconds, target, executor, base)
    costs = [cost for cost in base.query_many(kernels, target, executor) if isinstance(cost, Cost)]
    pool_points = residual.points(kernels, references(kernels, costs, target, executor))
    chosen = design.choose(design.joint(pool_points, *along), ops)
    return [rest[place] for place in chosen], held_out


def _sensitivity(
    kernels: Sequence[Kernel], seconds: Array, target: Target, executor: Executor, base: CostModel
) -> tuple[Array, Array] | tuple[None, None]:
    """How predictions hang on the embedding of a device, where a network makes them."""
    if not isinstance(base, Learned) or not all(base.covers(kernel, target) for kernel in kernels):
        return None, None
    chip = device(target)
    return adapt.sensitivity(base.model.network, adapt.few(kernels, seconds, chip, executor), chip)


def timings(
    workloads: Sequence[Workload], setup: Setup, store: Store, away: Reach | None, progress: Progress
) -> list[bench.Result]:
    """Measured here, or by the devices behind a tracker.

    Raises:
        UsageError, InputError, OutputError: as of `bench.measure` and `fleet.measure`.
    """
    if away is None:
        return bench.measure(workloads, setup, store, progress)
    from eopt.backends.harness.worker import feed_of
    from eopt.backends.tvm import fleet

    version = bench.versions(setup)
    place = replace(store, machine=f"{store.machine}, {away.key} at {away.tracker[0]}:{away.tracker[1]}")
    found, left = bench.known(workloads, setup, place, version)
    running = fleet.measure(
        left, setup, away.tracker, away.key, feed_of, store.folder / "tvm", trust_network=away.trust_network
    )
    for number, (workload, result) in enumerate(running if left else (), 1):
        found[workload.key] = result if isinstance(result, Unknown) else result.timing
        if not isinstance(result, Unknown):
            place.keep(workload, setup, version, result.timing)
        progress(f"measuring ({away.key})", number, len(left))
    return [found[workload.key] for workload in workloads]


def _scored(
    made: Calibration,
    unseen: Sequence[tuple[Candidate, Timing]],
    base: CostModel,
    target: Target,
    executor: Executor,
) -> tuple[tuple[str, float, float, float], ...]:
    """Kind, measured seconds, and what is predicted without and with the calibration."""
    kernels = [one.kernel for one, _ in unseen]
    models = (base, made.apply(base, target, executor))
    before, after = (
        [
            cost.latency_s.mid if isinstance(cost, Cost) else np.nan
            for cost in model.query_many(kernels, target, executor)
        ]
        for model in models
    )
    return tuple(
        (one.kind, timing.latency_s, float(old), float(new))
        for (one, timing), old, new in zip(unseen, before, after, strict=True)
    )


def median_error(held_out: Sequence[tuple[str, float, float, float]], which: int) -> float:
    """Median absolute error as a share: `which` is 2 for before, 3 for after."""
    return float(np.median([abs(float(one[which]) / one[1] - 1) for one in held_out]))
