"""`eopt measure` as a library: latency and energy of every operator and of the whole, beside what is predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eopt.backends.base import Unknown
from eopt.backends.harness import bench
from eopt.backends.harness.base import Prepared, Setup, Timing, Workload
from eopt.backends.meters import library
from eopt.backends.meters.base import EnergyReading, Meter
from eopt.backends.meters.clock import Clock
from eopt.backends.meters.closure import Closure, closure
from eopt.backends.meters.window import measure_energy
from eopt.costmodel import measured_rows
from eopt.costmodel.asked import operator_model, whole_workload
from eopt.costmodel.pieces import pieces
from eopt.costmodel.query import Cost
from eopt.costmodel.records import record
from eopt.costmodel.tree import Situation, bindings_for, price
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.tools import frontdoor
from eopt.tools.calibrate import timings
from eopt.tools.measurement import Energy, Measurement, Operator
from eopt.tools.measuring import Reach, setup_of, store_of
from eopt.tools.situation import cost_model_of, hardware

Progress = Callable[[str, int, int], None]


def quiet(label: str, done: int, total: int) -> None:
    """Show no progress."""


def measure_model(
    model: Model | str | Path,
    target: str = "auto",
    executor: str | None = None,
    *,
    batch: int | None = None,
    bind: Mapping[str, int] | None = None,
    tune: int | None = None,
    away: Reach | None = None,
    cache: str | Path | None = None,
    name: str = "model",
    meter: Meter | Unknown | None = None,
    progress: Progress = quiet,
) -> Measurement:
    """Measure every kernel of a model alone, and the model whole; what fails is `Unknown`, and the rest goes on.

    Latencies come from the cache where they were measured before; energies are always measured.

    Args:
        batch, bind: extents of symbolic dims.
        tune: trials of the search for a schedule, with executor tvm.
        away: a tracker with the devices, instead of this machine.
        name: of the model, in the table.
        meter: of the device; found by default.

    Raises:
        UsageError: no such target, executor or dim; the target is not this machine, or its executor not installed.
        InputError: unusable model.
        OutputError: a measurement cannot be kept.
    """
    found, runs_it = hardware(target, executor)
    setup = setup_of(found, runs_it, tune, away)
    model = model if isinstance(model, Model) else frontdoor.load(model)
    situation = Situation(found, runs_it, bindings_for(model, batch, bind or {}), cost_model_of(None, found, runs_it))
    priced = price(model, situation)
    asked = [_whole(model, situation, name)]
    for piece in pieces(model, situation, setup.executor != "tvm"):
        where = "/".join(filter(None, (model.path(piece.uids[0]), "+".join(piece.names))))
        predicted = priced.costs.get(piece.uids[0], Unknown(("not priced",)))
        asked.append(_asked("+".join(piece.names), where, len(piece.uids), predicted, piece.workload))
    whole = replace(
        asked[0][0],
        predicted_s=priced.latency_s if priced.known else Unknown(("no operator can be priced",)),
        predicted_j=priced.energy_j if priced.known else Unknown(("no operator can be priced",)),
    )
    asked[0] = whole, asked[0][1]
    done = _measured(asked, setup, situation, away, cache, meter, progress)
    dims = [value.shape[0] for value in model.feeds if value.shape]
    first = dims[0] if dims else None
    samples = first if isinstance(first, int) else situation.bindings.get(first) if first else None
    closed = _closure(done[1:], done[0])
    return Measurement(name, situation, setup, bench.versions(setup), tuple(done[1:]), done[0], closed, samples)


def measure_operators(
    queries: Iterable[Mapping[str, Any]],
    target: str = "auto",
    executor: str | None = None,
    *,
    tune: int | None = None,
    away: Reach | None = None,
    cache: str | Path | None = None,
    name: str = "operators",
    meter: Meter | Unknown | None = None,
    progress: Progress = quiet,
) -> Measurement:
    """Measure the operators of cost queries, each alone; arguments as of `measure_model`.

    Raises:
        UsageError, OutputError: as of `measure_model`.
        InputError: a malformed query, by its line.
    """
    found, runs_it = hardware(target, executor)
    setup = setup_of(found, runs_it, tune, away)
    situation = Situation(found, runs_it, cost_model=cost_model_of(None, found, runs_it))
    asked = [_query(row, line, situation, setup) for line, row in enumerate(queries, 1)]
    done = _measured(asked, setup, situation, away, cache, meter, progress)
    none = Unknown(("a list of operators is no whole",))
    return Measurement(name, situation, setup, bench.versions(setup), tuple(done), None, none)


Asked = tuple[Operator, Workload | Unknown]


def _whole(model: Model, situation: Situation, name: str) -> Asked:
    nothing = Unknown(("not priced",))
    try:
        return _asked(name, name, 1, nothing, whole_workload(model, situation.bindings, name))
    except InputError as error:
        return _asked(name, name, 1, nothing, Unknown((str(error),)))


def _asked(name: str, where: str, count: int, predicted: Cost | Unknown, workload: Workload | Unknown) -> Asked:
    """Something that is not measured yet."""
    latency_s = predicted if isinstance(predicted, Unknown) else predicted.latency_s
    energy_j = predicted if isinstance(predicted, Unknown) else predicted.energy_j
    row = {} if isinstance(workload, Unknown) else measured_rows.described(workload)
    later = Unknown(("not measured",))
    return Operator(name, where, count, row, latency_s, energy_j, later, later), workload


def _query(row: Mapping[str, Any], line: int, situation: Situation, setup: Setup) -> Asked:
    name, where = str(row.get("op")), f"line {line}"
    try:
        model = operator_model(row)
        if isinstance(model, Unknown):
            return _asked(name, where, 1, model, model)
        kernels = record(row)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    found = list(pieces(model, situation, setup.executor != "tvm"))
    workload = found[0].workload if len(found) == 1 else Unknown((f"{name}: the executor executes nothing for it",))
    predicted: Cost | Unknown = kernels if isinstance(kernels, Unknown) else Unknown(("several kernels",))
    if not isinstance(kernels, Unknown) and len(kernels) == 1:
        predicted = situation.cost_model.query(kernels[0], situation.target, situation.executor)
    one, _ = _asked(name, where, _count(row), predicted, workload)
    return replace(one, row=measured_rows.asked(row)), workload


def _count(row: Mapping[str, Any]) -> int:
    count = row.get("count", 1)
    return count if isinstance(count, int) and count > 0 else 1


def _measured(
    asked: Sequence[Asked],
    setup: Setup,
    situation: Situation,
    away: Reach | None,
    cache: str | Path | None,
    meter: Meter | Unknown | None,
    progress: Progress,
) -> list[Operator]:
    """Latencies of all, then energies of those that ran."""
    workloads = [workload for _, workload in asked if isinstance(workload, Workload)]
    results = iter(timings(workloads, setup, store_of(cache, situation.target), away, progress))
    latencies = [workload if isinstance(workload, Unknown) else next(results) for _, workload in asked]
    if away is not None:
        meter = Unknown(("the meters of devices behind a tracker are not read",))
    meter = library.find(situation.target) if meter is None else meter
    ran = [
        workload
        for (_, workload), latency in zip(asked, latencies, strict=True)
        if isinstance(workload, Workload) and isinstance(latency, Timing)
    ]
    drawn = iter(energies(ran, setup, meter, progress))
    unmeasured = Unknown(("it did not run",))
    return [
        replace(one, latency=latency, energy=next(drawn) if isinstance(latency, Timing) else unmeasured)
        for (one, _), latency in zip(asked, latencies, strict=True)
    ]


def energies(
    workloads: Sequence[Workload],
    setup: Setup,
    meter: Meter | Unknown,
    progress: Progress = quiet,
    clock: Clock | None = None,
) -> list[Energy]:
    """The energy of one copy of each workload, one after the other in a process of their own; 15 to 30 s each."""
    if isinstance(meter, Unknown):
        return [meter for _ in workloads]
    found: list[Energy] = []
    for number, workload in enumerate(workloads):
        progress("energy", number, len(workloads))
        found.append(_energy(workload, setup, meter, clock))
    progress("energy", len(workloads), len(workloads))
    return found


def _energy(workload: Workload, setup: Setup, meter: Meter, clock: Clock | None) -> Energy:
    from eopt.backends.harness.process import worker

    try:
        with worker(setup) as process:
            return per_copy(energy_of(process.prepare(workload), meter, clock), workload.copies)
    except InputError as error:
        return Unknown((f"{workload.name}: {error}",))


def energy_of(prepared: Prepared, meter: Meter, clock: Clock | None = None) -> Energy:
    """The energy of one call of something prepared, in J."""
    return measure_energy(prepared.run, meter, clock=clock)


def per_copy(energy: Energy, copies: int) -> Energy:
    """From the energy of all copies of a workload to that of one."""
    if isinstance(energy, Unknown):
        return energy
    names = ("energy_j", "energy_j_lo", "energy_j_hi", "net_j")
    return replace(energy, **{name: getattr(energy, name) / copies for name in names})


def _closure(operators: Sequence[Operator], whole: Operator) -> Closure | Unknown:
    """Joules of the operators against those of the whole."""
    if isinstance(whole.energy, Unknown):
        return whole.energy
    missing = [one.name for one in operators if isinstance(one.energy, Unknown)]
    if missing:
        return Unknown((f"the energy of {', '.join(missing[:3])} is unknown, so the sum is",))
    return closure(
        [(one.energy, one.count) for one in operators if isinstance(one.energy, EnergyReading)], whole.energy
    )
