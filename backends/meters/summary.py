"""From windows to the energy of one call: mean, interval, and what speaks against it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from eopt.backends.base import Array, Unknown
from eopt.backends.meters.base import EnergyReading, Meter
from eopt.backends.meters.trace import Level

ACCEPTED = 0.03  # half the 95 % interval over the energy; above it a reading is noisy
DISAGREEING = 0.05  # counter against sampled power, idle before against after: steady ones are closer


@dataclass(frozen=True)
class Idle:
    """A device with nothing to do.

    Attributes:
        level: its mean power.
        period_s: between updates of the counter, or of the power sensor.
        counter: False where the meter only has power readings.
    """

    level: Level
    period_s: float
    counter: bool


@dataclass(frozen=True)
class Trial:
    """One window of repeated calls.

    Attributes:
        level: mean power, from the counter or else from samples.
        latency_s: of one call.
        rise: of the power from the first half of the window to the second, relative.
        sampled: mean power from samples.
        dropped: share of reads that failed.
        reasons: why.
    """

    level: Level
    latency_s: float
    rise: float
    sampled: Level | Unknown
    dropped: float
    reasons: tuple[str, ...]


def summary(
    trials: list[Trial], calls: int, before: Idle, after: Idle | Unknown, meter: Meter
) -> EnergyReading | Unknown:
    """The mean of two or more trials, with Student's interval and the counter's resolution."""
    power_w = np.array([trial.level.power_w for trial in trials])
    latency_s = np.array([trial.latency_s for trial in trials])
    energy_j = float(np.mean(power_w * latency_s))
    if energy_j <= 0 or (not before.counter and _stuck(before, power_w)):
        return Unknown((f"{meter.name} reads {before.level.power_w:.4g} W whatever is done",))
    idle_w = before.level.power_w if isinstance(after, Unknown) else (before.level.power_w + after.level.power_w) / 2
    half_j = student_95(len(trials) - 1) * float(np.std(power_w * latency_s, ddof=1)) / sqrt(len(trials))
    half_j += energy_j * float(np.mean([trial.level.slack for trial in trials]))
    unsettled = _unsettled(trials)
    reading = EnergyReading(
        energy_j,
        energy_j - half_j,
        energy_j + half_j,
        float(np.mean((power_w - idle_w) * latency_s)),
        float(np.mean(power_w)),
        idle_w,
        meter.scope,
        len(trials),
        calls,
        min(trial.level.window_s for trial in trials),
        bool(half_j > ACCEPTED * energy_j or unsettled),
        (*meter.notes, *_losses(trials), *_drift(before, after), *unsettled),
    )
    return _cross_checked(reading, trials) if before.counter else reading


def _stuck(before: Idle, power_w: Array) -> bool:
    """True for a power sensor that shows one and the same figure at work and idle."""
    return bool(np.ptp([before.level.power_w, *power_w]) < 1e-9 * before.level.power_w)


def _unsettled(trials: list[Trial]) -> list[str]:
    rise = float(np.mean([trial.rise for trial in trials]))
    return [f"power changed by {rise:+.1%} from the first half of the windows to the second"] * (abs(rise) > ACCEPTED)


def _losses(trials: list[Trial]) -> list[str]:
    lost = float(np.mean([trial.dropped for trial in trials]))
    reasons = dict.fromkeys(reason for trial in trials for reason in trial.reasons)
    return [f"{lost:.1%} of the reads failed: {'; '.join(reasons)}"] if lost else []


def _drift(before: Idle, after: Idle | Unknown) -> list[str]:
    if isinstance(after, Unknown):
        return ["idle power after the trials is unknown: " + "; ".join(after.reasons)]
    first_w, last_w = before.level.power_w, after.level.power_w
    drifted = abs(last_w - first_w) > DISAGREEING * first_w
    return (
        [f"idle power drifted from {first_w:.4g} W to {last_w:.4g} W; the net energy is as unsure"] if drifted else []
    )


def _cross_checked(reading: EnergyReading, trials: list[Trial]) -> EnergyReading:
    """The counter against sampled power. Where they disagree nobody knows which is right: the interval spans both."""
    sampled_w = [trial.sampled.power_w for trial in trials if isinstance(trial.sampled, Level)]
    if not sampled_w:
        return replace(reading, notes=(*reading.notes, "not cross-checked: no power readings beside the counter"))
    ratio = float(np.mean(sampled_w)) / reading.power_w
    if abs(ratio - 1) <= DISAGREEING:
        return reading
    return replace(
        reading,
        energy_j_lo=min(1.0, ratio) * reading.energy_j_lo,
        energy_j_hi=max(1.0, ratio) * reading.energy_j_hi,
        noisy=True,
        notes=(*reading.notes, f"sampled power gives {ratio:.2f} times the counter's energy"),
    )


def student_95(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t (Abramowitz and Stegun 26.7.5).

    The series is within 1 % from three degrees of freedom; one and two are exact.
    """
    z = 1.959964
    if freedom <= 2:
        return (12.7062, 4.3027)[freedom - 1]
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(z + sum(term / float(freedom) ** power for power, term in enumerate(terms, 1)))
