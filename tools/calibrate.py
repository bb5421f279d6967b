"""`eopt calibrate` as a library: measure the operators that tell most about a device, and keep what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
HELD_OUT = 40  # never learned from: what the errors that are printed are of
LEAST = 10
LONGEST_S = 0.05  # predicted; one that takes longer costs a minute in an untuned schedule
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
    """Measure `ops` operators of a target through an executor, and as many as `HELD_OUT` to see what that gained.

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
        tuple(Measured(one.kernel, timing.latency_s, timing.cv) for one, timing in rows),
        {},
    )
    scored = _scored(made, unseen, base, found, runs_it)
    return Outcome(made, calibration.keep(made), scored, failed)
