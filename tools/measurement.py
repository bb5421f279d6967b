"""Operators and models, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from typing import Any

from eopt.backends.base import Unknown
from eopt.backends.harness.base import Setup, Timing
from eopt.backends.meters.base import EnergyReading
from eopt.backends.meters.closure import Closure
from eopt.costmodel import measured_rows
from eopt.costmodel.query import Interval
from eopt.costmodel.tree import Situation

Energy = EnergyReading | Unknown


@dataclass(frozen=True)
class Operator:
    """A kernel, or a whole model, predicted and measured.

    Attributes:
        name: its operators, or the model's name.
        where: path of the first place it runs at; the number of the line, of a query.
        count: how often one execution of the model runs it.
        row: the columns of a query that describe it.
        predicted_s, predicted_j: of one execution, in s and J, with 90 % intervals.
    """

    name: str
    where: str
    count: int
    row: Mapping[str, Any]
    predicted_s: Interval | Unknown
    predicted_j: Interval | Unknown
    latency: Timing | Unknown
    energy: Energy

    @property
    def error(self) -> float | None:
        """The predicted latency over the measured one, less 1; None where either is unknown."""
        if isinstance(self.predicted_s, Unknown) or isinstance(self.latency, Unknown):
            return None
        return self.predicted_s.mid / self.latency.latency_s - 1

    @property
    def missed(self) -> float:
        """How far off the prediction is, the same for twice as for half; -1 where that is unknown."""
        return -1.0 if self.error is None else abs(log(1 + self.error))


@dataclass(frozen=True)
class Measurement:
    """What was measured of a model, or of a list of operators.

    Attributes:
        name: of the model, the workload in the table.
        version: of the executor's library.
        operators: in the order of the model.
        whole: the model executed at once; None for a list of operators.
        latency_share: the sum of the operators' latencies over the whole's; None where one is unknown.
        energy_closure: the same of energies, with its interval.
        batch: samples of one execution; None for a list.
    """

    name: str
    situation: Situation
    setup: Setup
    version: str
    operators: tuple[Operator, ...]
    whole: Operator | None
    energy_closure: Closure | Unknown
    batch: int | None = None

    @property
    def latency_share(self) -> float | None:
        """See the class."""
        if self.whole is None or isinstance(self.whole.latency, Unknown):
            return None
        timed = [(one.latency, one.count) for one in self.operators]
        sum_s = sum(count * timing.latency_s for timing, count in timed if isinstance(timing, Timing))
        complete = all(isinstance(timing, Timing) for timing, _ in timed)
        return sum_s / self.whole.latency.latency_s if complete else None

    @property
    def everything(self) -> tuple[Operator, ...]:
        """The whole, if there is one, and the operators."""
        return (self.whole, *self.operators) if self.whole else self.operators

    @property
    def failed(self) -> tuple[str, ...]:
        """What has no latency, named, with the reason."""
        return tuple(
            f"{one.where}: {'; '.join(one.latency.reasons)}"
            for one in self.everything
            if isinstance(one.latency, Unknown)
        )

    @property
    def without_energy(self) -> tuple[str, ...]:
        """Why energies are missing where there are latencies, each reason once."""
        missing = [one.energy for one in self.everything if isinstance(one.latency, Timing)]
        return tuple(dict.fromkeys(reason for one in missing if isinstance(one, Unknown) for reason in one.reasons))

    def rows(self) -> list[dict[str, Any]]:
        """What was measured as rows of the typed table."""
        target, executor = self.situation.target, self.situation.executor.name
        made = f"{self.setup.executor} {self.version} {self.setup.schedule}".strip()
        return [
            measured_rows.row(one.row, one.latency, one.energy, target, executor, made, self.name, self.batch)
            for one in self.everything
            if isinstance(one.latency, Timing)
        ]
