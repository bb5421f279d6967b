"""What a meter said over a stretch of time, and the mean power that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from eopt.backends.base import Array, Unknown
from eopt.backends.meters.base import Meter, Reading
from eopt.backends.meters.clock import Clock

MAX_DROPPED = 0.2  # share of reads that may fail before nothing is concluded from the rest
T = TypeVar("T")


@dataclass(frozen=True)
class Trace:
    """Polls of a meter, in order.

    Attributes:
        at_s: when each was made, [polls].
        energy_j: the counter without its wrap-arounds, [polls]; NaN where a read failed.
        power_w: [polls]; NaN where a read failed.
        reasons: why reads failed, each once.
    """

    at_s: Array
    energy_j: Array
    power_w: Array
    reasons: tuple[str, ...]

    def between(self, from_s: float, until_s: float) -> Trace:
        """The polls of a stretch of time."""
        kept = (self.at_s >= from_s) & (self.at_s <= until_s)
        return Trace(self.at_s[kept], self.energy_j[kept], self.power_w[kept], self.reasons)

    def readings(self, counter: bool) -> Array:
        """Those of the counter, or of the power sensor, [polls]."""
        return self.energy_j if counter else self.power_w


@dataclass(frozen=True)
class Level:
    """A mean power.

    Attributes:
        power_w: the mean.
        slack: its relative error at worst, from not knowing better when the counter or sensor moved.
        window_s: how long it was observed.
    """

    power_w: float
    slack: float
    window_s: float


def watch(meter: Meter, clock: Clock, poll_s: float, act: Callable[[], T]) -> tuple[Trace, T]:
    """Do something while a meter is polled in the background."""
    polls: list[tuple[float, Reading, Reading]] = []

    def poll() -> None:
        energy, power = meter.energy_j(), meter.power_w()
        polls.append((clock.now_s(), energy, power))

    with clock.every(poll_s, poll):
        done = act()
    failed = [value for _, *values in polls for value in values if isinstance(value, Unknown)]
    reasons = tuple(dict.fromkeys(reason for unknown in failed for reason in unknown.reasons))
    energy_j = unwrapped(_numbers([energy for _, energy, _ in polls]), meter.wraps_j)
    at_s = np.array([at for at, _, _ in polls])
    return Trace(at_s, energy_j, _numbers([power for *_, power in polls]), reasons), done


def _numbers(readings: list[Reading]) -> Array:
    return np.array([np.nan if isinstance(value, Unknown) else value for value in readings], float)


def unwrapped(energy_j: Array, wraps_j: float | None) -> Array:
    """A counter [polls] that only rises, where it wraps; NaN stays.

    Increments are taken modulo the range. So a library that adds the range by itself, but late, does no harm.
    """
    known = np.flatnonzero(np.isfinite(energy_j))
    if wraps_j is None or len(known) < 2:
        return energy_j
    steps = np.diff(energy_j[known]) % wraps_j
    risen = energy_j.copy()
    risen[known] = energy_j[known[0]] + np.concatenate([[0.0], np.cumsum(steps)])
    return risen


def dropped(readings: Array) -> float:
    """Share of reads that failed; all of them where there were none."""
    return float(np.mean(~np.isfinite(readings))) if len(readings) else 1.0


def updates(at_s: Array, readings: Array) -> tuple[Array, Array, Array]:
    """When readings [polls] changed, to what, and how far off the moment may be, in s: three arrays [changes].

    A change lies between two polls; one with a failed read between them is left out.
    """
    moved = np.flatnonzero(np.isfinite(np.diff(readings)) & (np.diff(readings) != 0))
    before_s, after_s = at_s[moved], at_s[moved + 1]
    return (before_s + after_s) / 2, readings[moved + 1], (after_s - before_s) / 2


def period_s(at_s: Array, readings: Array) -> float | None:
    """Seconds between changes of readings [polls]; None for less than three."""
    moments, _, _ = updates(at_s, readings)
    return float(np.median(np.diff(moments))) if len(moments) > 2 else None


def counted(trace: Trace) -> Level | Unknown:
    """Mean power from update to update of the counter.

    Both ends are moments at which it moved, so that how much it lags behind cancels while the power is steady.
    """
    if dropped(trace.energy_j) > MAX_DROPPED:
        return Unknown((f"{dropped(trace.energy_j):.0%} of the counter's reads failed", *trace.reasons))
    moments, values, slack_s = updates(trace.at_s, trace.energy_j)
    if len(moments) < 2:
        return Unknown(("the energy counter does not move",))
    if np.any(np.diff(values) < 0):
        return Unknown(("the energy counter went backwards and names no range; was the driver loaded anew?",))
    window_s = float(moments[-1] - moments[0])
    power_w = float(values[-1] - values[0]) / window_s
    return Level(power_w, float(slack_s[0] + slack_s[-1]) / window_s, window_s)


def sampled(trace: Trace) -> Level | Unknown:
    """Mean power from the integral of samples (trapezoids over those that did not fail).

    A sensor that looks at a part of the time only errs by what it misses. That is in no single window; it shows in how
    windows of random phase differ.
    """
    if dropped(trace.power_w) > MAX_DROPPED or len(trace.power_w) < 2:
        return Unknown((f"{dropped(trace.power_w):.0%} of the power reads failed", *trace.reasons))
    known = np.isfinite(trace.power_w)
    at_s = trace.at_s[known]
    window_s = float(at_s[-1] - at_s[0])
    return Level(float(np.trapezoid(trace.power_w[known], at_s)) / window_s, 0.0, window_s)
