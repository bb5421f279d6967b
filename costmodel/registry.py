"""Cost models by name: installed ones, through the entry points `eopt.costmodels`, and artefacts in folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from math import isfinite
from pathlib import Path
from typing import Any

from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel import artifact
from eopt.costmodel.learned import Learned
from eopt.costmodel.query import Cost, CostModel, Kernel, Unknown
from eopt.ir.errors import InputError, UsageError

GROUP = "eopt.costmodels"


@dataclass(frozen=True, eq=False)
class Foreign:
    """A cost model of somebody else, none of whose answers is taken unseen.

    Attributes:
        devices: those it was trained on, as far as it says.
    """

    name: str
    model: CostModel

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of targets; () where it says nothing."""
        return tuple(getattr(self.model, "devices", ()))

    def query(self, kernel: Kernel, target: Target, executor: Executor) -> Cost | Unknown:
        """See `CostModel.query`."""
        return self.query_many([kernel], target, executor)[0]

    def query_many(self, kernels: Sequence[Kernel], target: Target, executor: Executor) -> list[Cost | Unknown]:
        """See `CostModel.query_many`.

        Raises:
            InputError: the model fails, or an answer is no cost.
        """
        try:
            found = list(self.model.query_many(kernels, target, executor))
            faults = [next(_wrong(answer), "") for answer in found]
        except Exception as error:  # any code may stand behind a name
            raise InputError(f"cost model {self.name!r} failed: {type(error).__name__}: {error}") from error
        if len(found) != len(kernels):
            raise InputError(f"cost model {self.name!r}: {len(found)} answers to {len(kernels)} kernels")
        for kernel, fault in zip(kernels, faults, strict=True):
            if fault:
                raise InputError(f"cost model {self.name!r}: {kernel.name} on {target.name}: {fault}")
        return found


def load(name: str) -> CostModel:
    """The model of this name, or the artefact in a folder.

    An entry point names an object with the methods of `CostModel`, or something that makes one when called.

    Raises:
        UsageError: neither; the message lists what is installed.
        InputError: the folder holds no model, or the installed one cannot be made.
    """
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in entries:
        if Path(name).is_dir():
            return Learned(artifact.load(Path(name)))
        known = ", ".join(sorted(entries)) or "none"
        raise UsageError(f"no cost model {name!r}: no folder, and not installed ({GROUP}: {known})")
    try:
        found = entries[name].load()
        model = found() if isinstance(found, type) or not hasattr(found, "query_many") else found
    except Exception as error:  # any code may stand behind a name
        raise InputError(f"cost model {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not hasattr(model, "query_many"):
        raise UsageError(f"cost model {name!r}: {entries[name].value} is no eopt.costmodel.query.CostModel")
    return Foreign(name, model)


def _wrong(answer: Any) -> Iterator[str]:
    """What a consumer of costs could trip over."""
    if isinstance(answer, Unknown):
        return
    if not isinstance(answer, Cost):
        yield f"answered with {type(answer).__name__}, not with Cost or Unknown"
        return
    for quantity in ("latency_s", "energy_j"):
        bounds = getattr(answer, quantity)
        if not all(isfinite(figure) for figure in (bounds.lo, bounds.mid, bounds.hi)):
            yield f"{quantity} is not finite"
        if not 0 <= bounds.lo <= bounds.mid <= bounds.hi or not bounds.mid:
            yield f"{quantity} {bounds.mid:g} in [{bounds.lo:g}, {bounds.hi:g}]: want 0 <= lo <= mid <= hi and mid > 0"
    if not 0 <= answer.launch_s <= answer.latency_s.mid:
        yield f"launch_s {answer.launch_s:g} is no part of latency_s {answer.latency_s.mid:g}"
    if not all(isfinite(joules) and joules >= 0 for joules in answer.terms.values()):
        yield "terms holds something that is no number of joules"
