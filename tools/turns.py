"""Two prepared models in turns: what one call of the second saves, with an interval.

Runs go A B B A or B A A B, by chance, so that what drifts hits both alike. Each such turn is one pair, whose difference
is free of linear drift; the interval is Student's over the pairs (Abramowitz and Stegun 26.7.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np

from eopt.backends.base import Unknown
from eopt.backends.harness import timing
from eopt.backends.harness.base import Prepared
from eopt.backends.meters.base import Meter
from eopt.backends.meters.clock import Clock
from eopt.backends.meters.summary import student_95
from eopt.backends.meters.trace import counted, sampled, watch
from eopt.backends.meters.window import LEAD_S, WINDOW_S
from eopt.ir.errors import UsageError

PAIRS, LEAST_PAIRS = 20, 10
ENERGY_PAIRS = 10
LATENCY_WINDOW_S = 0.03
PHASE_S = 0.01  # turns start at random within it: longer than a tick of the scheduler
POLL_S = 0.005
SEED = 0
SAVED, SAME, WORSE = "saved", "no difference", "worse"

Progress = Callable[[str, int, int], None]
Pairs = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Saved:
    """What the second of two saves, in the unit of what was paired; negative where it takes more.

    Attributes:
        before, after: means of the first and of the second.
        mean, lo, hi: of the differences, with a 95 % interval.
        pairs: how many there were.
    """

    before: float
    after: float
    mean: float
    lo: float
    hi: float
    pairs: int

    @property
    def verdict(self) -> str:
        """`saved`, `worse`, or `no difference` where the interval contains 0."""
        return SAVED if self.lo > 0 else WORSE if self.hi < 0 else SAME


def saved(pairs: Sequence[tuple[float, float]]) -> Saved:
    """The mean of before less after, with Student's 95 % interval.

    Raises:
        UsageError: fewer than `LEAST_PAIRS` pairs.
    """
    if len(pairs) < LEAST_PAIRS:
        raise UsageError(f"an interval that means something takes {LEAST_PAIRS} pairs, not {len(pairs)}")
    values = np.array(pairs, float)
    differences = values[:, 0] - values[:, 1]
    mean = float(differences.mean())
    half = student_95(len(pairs) - 1) * float(differences.std(ddof=1)) / sqrt(len(pairs))
    before, after = (float(side) for side in values.mean(axis=0))
    return Saved(before, after, mean, mean - half, mean + half, len(pairs))


def in_turns(
    one: Callable[[], float],
    other: Callable[[], float],
    pairs: int,
    clock: Clock,
    seed: int = SEED,
    progress: Progress = lambda label, done, total: None,
    label: str = "in turns",
) -> Pairs:
    """So many pairs of means over one turn each, ABBA or BAAB, started at a random phase."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(pairs):
        progress(label, number, pairs)
        clock.sleep(float(rng.uniform(0, PHASE_S)))
        order = (0, 1, 1, 0) if rng.random() < 0.5 else (1, 0, 0, 1)
        taken = [(side, (one, other)[side]()) for side in order]
        first, second = (sum(value for place, value in taken if place == side) / 2 for side in (0, 1))
        found.append((first, second))
    progress(label, pairs, pairs)
    return tuple(found)


def compared_latency(
    one: Prepared, other: Prepared, clock: Clock, seed: int = SEED, progress: Progress = lambda *_: None
) -> Saved:
    """Seconds of one call that the second saves."""
    sides = [(side, timing.calibrated_calls(side, LATENCY_WINDOW_S)) for side in (one, other)]

    def window(place: int) -> float:
        side, calls = sides[place]
        side.run(1)  # the other has emptied the caches
        return side.run(calls) / calls

    return saved(in_turns(lambda: window(0), lambda: window(1), PAIRS, clock, seed, progress, "latency in turns"))


class _NoReading(Exception):
    """A window without a figure; its argument is `Unknown`."""


def compared_energy(
    one: Prepared,
    other: Prepared,
    meter: Meter | Unknown,
    clock: Clock,
    seed: int = SEED,
    progress: Progress = lambda *_: None,
) -> Saved | Unknown:
    """Joules of one call that the second saves; about two minutes."""
    if isinstance(meter, Unknown):
        return meter
    counts = not isinstance(meter.energy_j(), Unknown)
    sides = [(side, _calls(side)) for side in (one, other)]

    def window(place: int) -> float:
        energy_j = _window(*sides[place], meter, clock, counts)
        if isinstance(energy_j, Unknown):
            raise _NoReading(energy_j)
        return energy_j

    try:
        pairs = in_turns(lambda: window(0), lambda: window(1), ENERGY_PAIRS, clock, seed, progress, "energy in turns")
    except _NoReading as lost:
        reading: Unknown = lost.args[0]
        return Unknown((f"a window on {meter.name} could not be read", *reading.reasons))
    return saved(pairs)


def _calls(side: Prepared) -> int:
    """Executions that fill the lead-in and a window of a meter."""
    calls = timing.calibrated_calls(side, LATENCY_WINDOW_S)
    return ceil(1.05 * (LEAD_S + WINDOW_S) * calls / max(side.run(calls), 1e-9))


def _window(side: Prepared, calls: int, meter: Meter, clock: Clock, counts: bool) -> float | Unknown:
    """Joules of one call: mean power after the lead-in, times the latency."""

    def timed() -> tuple[float, float, float]:
        begin_s = clock.now_s()
        return begin_s, side.run(calls), clock.now_s()

    trace, (begin_s, taken_s, end_s) = watch(meter, clock, POLL_S, timed)
    loaded = trace.between(max(begin_s, end_s - taken_s) + LEAD_S, end_s)
    level = (counted if counts else sampled)(loaded)
    return level if isinstance(level, Unknown) else level.power_w * taken_s / calls
