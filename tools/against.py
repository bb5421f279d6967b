"""Two models on the same inputs, run in turns (`tools/turns.py`): what the second saves, and how outputs differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from eopt.backends import data
from eopt.backends.base import Array, Feed, Unknown
from eopt.backends.harness.base import Setup
from eopt.backends.harness.process import worker
from eopt.backends.meters import library
from eopt.backends.meters.base import Meter
from eopt.backends.meters.clock import Clock, WallClock
from eopt.costmodel.asked import whole_workload
from eopt.costmodel.tree import Situation, bindings_for, price
from eopt.ir.analysis import index_limits
from eopt.ir.errors import InputError, UsageError
from eopt.ir.model import Model
from eopt.ir.types import Value, bind
from eopt.passes.contract import sqnr_db
from eopt.tools.measuring import setup_of
from eopt.tools.situation import cost_model_of, hardware
from eopt.tools.turns import SEED, Progress, Saved, compared_energy, compared_latency


@dataclass(frozen=True)
class Differs:
    """How far one output of the second is from that of the first.

    Attributes:
        max_abs: largest absolute difference; infinite where shapes differ or one is not finite.
        sqnr_db: signal to the noise of the difference; infinite where there is none.
    """

    output: str
    max_abs: float
    sqnr_db: float


@dataclass(frozen=True)
class Comparison:
    """Two models, measured in turns.

    Attributes:
        latency: in s, of one execution.
        energy: in J, or why it is not known.
        outputs: on the same inputs.
        predicted_s, predicted_j: what is predicted to be saved; None where neither or not all can be priced.
    """

    latency: Saved
    energy: Saved | Unknown
    outputs: tuple[Differs, ...]
    predicted_s: float | None
    predicted_j: float | None

    @property
    def by(self) -> str:
        """What decides: `energy` where it was metered, else `latency`."""
        return "latency" if isinstance(self.energy, Unknown) else "energy"

    @property
    def verdict(self) -> str:
        """`saved`, `no difference` or `worse`."""
        return (self.latency if isinstance(self.energy, Unknown) else self.energy).verdict


def differences(before: Mapping[str, Array], after: Mapping[str, Array]) -> tuple[Differs, ...]:
    """Every output of the first against that of the second.

    Raises:
        UsageError: their names differ.
    """
    if set(before) != set(after):
        odd = sorted(set(before) ^ set(after))
        raise UsageError(f"--against: the models differ in their outputs: {', '.join(odd)}; compare models of one kind")
    return tuple(
        Differs(name, _max_abs(before[name], after[name]), sqnr_db([dict(before)], [dict(after)], name))
        for name in before
    )


def _max_abs(before: Array, after: Array) -> float:
    if before.shape != after.shape:
        return inf
    wide, other = before.astype(np.float64), after.astype(np.float64)
    same = (wide == other) | (np.isnan(wide) & np.isnan(other))
    largest = float(np.max(np.abs(np.where(same, 0.0, wide - other)), initial=0.0))
    return largest if isfinite(largest) else inf


def same_inputs(before: Model, after: Model, bindings: Mapping[str, int]) -> Feed:
    """Inputs both take, drawn with a fixed seed.

    Raises:
        UsageError: a name, type or shape differs; the message says which.
        InputError: an input has no type or rank.
    """
    first, second = ({value.id: _bound(value, bindings) for value in model.feeds} for model in (before, after))
    for name in dict.fromkeys((*first, *second)):
        if name not in first or name not in second:
            where = "first" if name in first else "second"
            raise UsageError(f"--against: only the {where} model has an input {name!r}; compare models of one kind")
        if (one := first[name]) != (other := second[name]):
            raise UsageError(
                f"--against: input {name!r} is {one.dtype}{list(one.shape or ())} in the first model and "
                f"{other.dtype}{list(other.shape or ())} in the second; they must agree"
            )
    limits = index_limits(after)
    for name, limit in index_limits(before).items():
        limits[name] = min(limit, limits.get(name, limit))
    return data.synthetic(list(first.values()), limits, SEED).arrays


def _bound(value: Value, bindings: Mapping[str, int]) -> Value:
    return Value(value.id, value.dtype, None if value.shape is None else bind(value.shape, bindings))


def compare(
    before: Model,
    after: Model,
    situation: Situation,
    setup: Setup,
    meter: Meter | Unknown,
    *,
    names: tuple[str, str] = ("before", "after"),
    seed: int = SEED,
    clock: Clock | None = None,
    progress: Progress = lambda label, done, total: None,
) -> Comparison:
    """Run two models in turns in one process; see the module.

    Args:
        situation: target, executor, and extents of the symbolic dims of both.
        names: of the models, for errors.

    Raises:
        UsageError: their inputs or outputs differ.
        InputError: the executor cannot run one of them, or dies of it.
    """
    clock = clock or WallClock()
    feed = same_inputs(before, after, situation.bindings)
    models = [
        whole_workload(model, situation.bindings, name) for model, name in zip((before, after), names, strict=True)
    ]
    with worker(setup) as process:
        one, other = (process.prepare(model, feed) for model in models)
        outputs = differences(one.outputs(), other.outputs())
        latency = compared_latency(one, other, clock, seed, progress)
        energy = compared_energy(one, other, meter, clock, seed, progress)
    return Comparison(latency, energy, outputs, *_predicted(before, after, situation))


def _predicted(before: Model, after: Model, situation: Situation) -> tuple[float | None, float | None]:
    """Seconds and joules that are predicted to be saved."""
    try:
        first, second = price(before, situation), price(after, situation)
    except InputError:
        return None, None
    if not first.known or not second.known or first.unknown or second.unknown:
        return None, None
    return first.latency_s.mid - second.latency_s.mid, first.energy_j.mid - second.energy_j.mid


def compare_models(
    before: Model,
    after: Model,
    target: str = "auto",
    executor: str | None = None,
    *,
    batch: int | None = None,
    bind: Mapping[str, int] | None = None,
    meter: Meter | Unknown | None = None,
    names: tuple[str, str] = ("before", "after"),
    progress: Progress = lambda label, done, total: None,
) -> Comparison:
    """Run two models in turns on this machine, as `eopt measure --against`.

    Args:
        batch, bind: extents of symbolic dims of both.
        meter: of the device; found by default.

    Raises:
        UsageError: the target is not this machine, its executor not installed, or inputs or outputs differ.
        InputError: the executor cannot run one of the models.
    """
    found, runs_it = hardware(target, executor)
    setup = setup_of(found, runs_it, None, None)
    bindings = bindings_for(before, batch, bind or {})
    situation = Situation(found, runs_it, bindings, cost_model_of(None, found, runs_it))
    meter = library.find(found) if meter is None else meter
    return compare(before, after, situation, setup, meter, names=names, progress=progress)
