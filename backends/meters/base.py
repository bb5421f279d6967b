"""What can be asked of a meter, and what a measured energy says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from eopt.backends.base import Unknown

Scope = Literal["board", "package", "wall"]
"""What draws the joules: an accelerator's board, a processor's package, or all behind the plug."""

Reading = float | Unknown
"""One reading in J or W, or why there is none."""


class Meter(Protocol):
    """A source of energy or power readings. A failed read is `Unknown`: never 0, never an exception.

    Attributes:
        name: of what is metered, for people.
        scope: what the joules are drawn by.
        wraps_j: where the counter starts again from 0, in J; None where it does not within a measurement.
        notes: what a reader of its figures has to know.
    """

    @property
    def name(self) -> str: ...
    @property
    def scope(self) -> Scope: ...
    @property
    def wraps_j(self) -> float | None: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def energy_j(self) -> Reading:
        """The cumulative counter, in J since some fixed moment."""
        ...

    def power_w(self) -> Reading:
        """The power now, in W, as far as the sensor resolves it."""
        ...


@dataclass(frozen=True)
class EnergyReading:
    """The measured energy of one call.

    Attributes:
        energy_j: gross, idle share included: the mean of the trials.
        energy_j_lo, energy_j_hi: 95 % interval of repeating the measurement; the sensor's own gain is no part of it.
        net_j: without what idling would have drawn in the same time.
        power_w: mean power while it ran.
        idle_w: mean power before and after.
        scope: what the joules are drawn by.
        trials, calls: windows measured, and executions in each.
        window_s: the shortest window.
        noisy: the interval is wider than is accepted, or two ways of measuring disagree: nothing to learn from.
        notes: what went wrong and was tolerated, and what the meter's figures mean.
    """

    energy_j: float
    energy_j_lo: float
    energy_j_hi: float
    net_j: float
    power_w: float
    idle_w: float
    scope: Scope
    trials: int
    calls: int
    window_s: float
    noisy: bool
    notes: tuple[str, ...]
