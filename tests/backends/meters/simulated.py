"""A device whose energy is known, and meters that read it as badly as real ones do. Time is virtual."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import cos, floor, pi
from typing import Any

import numpy as np

from eopt.backends.base import Unknown


class VirtualClock:
    """Time that passes only by sleeping; background actions happen while it does."""

    def __init__(self) -> None:
        self.at_s = 100.0
        self._due: list[list[Any]] = []

    def now_s(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        until_s = self.at_s + seconds
        while self._due and (soonest := min(self._due, key=lambda item: item[0]))[0] <= until_s:
            self.at_s = soonest[0]
            soonest[2]()
            soonest[0] += soonest[1]
        self.at_s = until_s

    @contextmanager
    def every(self, period_s: float, action: Callable[[], None]) -> Iterator[None]:
        item = [self.at_s, period_s, action]
        self._due.append(item)
        try:
            yield
        finally:
            self._due.remove(item)


class Device:
    """Draws `idle_w`, and while it runs `load_w` with a sine of `ripple_w` on it.

    `noise` is the relative spread of its power from run to run, `idle_drift` the relative rise of idle power per
    minute, `warming` the relative excess of power at the beginning of a run, gone after `warming_s`.
    """

    def __init__(
        self,
        clock: VirtualClock,
        *,
        idle_w: float = 60.0,
        load_w: float = 300.0,
        latency_s: float = 2e-4,
        ripple_w: float = 0.0,
        ripple_hz: float = 7.3,
        noise: float = 0.0,
        idle_drift: float = 0.0,
        warming: float = 0.0,
        warming_s: float = 0.3,
        seed: int = 0,
    ) -> None:
        self.clock, self.idle_w, self.load_w, self.latency_s = clock, idle_w, load_w, latency_s
        self.ripple_w, self.ripple_hz, self.noise, self.idle_drift = ripple_w, ripple_hz, noise, idle_drift
        self.warming, self.warming_s = warming, warming_s
        self._rng = np.random.default_rng(seed)
        self._starts_s, self._watts, self._ripples, self._joules = [0.0], [idle_w], [0.0], [0.0]

    @property
    def truth_j(self) -> float:
        """The energy of one call, in the mean."""
        return self.load_w * self.latency_s

    def run(self, calls: int) -> float:
        taken_s = calls * self.latency_s
        watts = self.load_w * (1 + self.noise * self._rng.standard_normal())
        warming_s = min(taken_s, self.warming_s if self.warming else 0.0)
        self._draw(watts * (1 + self.warming), self.ripple_w)
        self.clock.sleep(warming_s)
        self._draw(watts, self.ripple_w)
        self.clock.sleep(taken_s - warming_s)
        self._draw(self.idle_w * (1 + self.idle_drift * (self.clock.at_s - 100) / 60), 0.0)
        return taken_s

    def _draw(self, watts: float, ripple_w: float) -> None:
        joules = self.drawn_j(self.clock.at_s)
        self._starts_s.append(self.clock.at_s)
        self._watts.append(watts)
        self._ripples.append(ripple_w)
        self._joules.append(joules)

    def drawn_j(self, at_s: float) -> float:
        """Energy since time 0."""
        row = bisect_right(self._starts_s, at_s) - 1
        since_s, turn = at_s - self._starts_s[row], 2 * pi * self.ripple_hz
        wave_j = self._ripples[row] * (1 - cos(turn * since_s)) / turn
        return self._joules[row] + self._watts[row] * since_s + wave_j

    def mean_w(self, from_s: float, until_s: float) -> float:
        return (self.drawn_j(until_s) - self.drawn_j(from_s)) / (until_s - from_s)


@dataclass
class SimulatedMeter:
    """Reads a device every `period_s`, over the last `duty` of the period, `lag_s` late, in steps of `quantum_j`.

    `dropped` of its reads fail. `counts` and `senses` say whether it has a counter and a power sensor. Gains are
    systematic errors. `stuck` readings never move.
    """

    device: Device
    period_s: float = 0.1
    duty: float = 1.0
    lag_s: float = 0.0
    quantum_j: float = 1e-3
    wraps_j: float | None = None
    starts_j: float = 0.0
    dropped: float = 0.0
    sensor_noise: float = 0.0
    counter_gain: float = 1.0
    power_gain: float = 1.0
    counts: bool = True
    senses: bool = True
    stuck: bool = False
    seed: int = 0
    name: str = "simulated"
    scope: Any = "board"
    notes: tuple[str, ...] = ()
    reads: int = 0
    _ticks_j: list[float] = field(default_factory=lambda: [0.0])

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed + 1000)
        self._phase_s = float(self._rng.uniform(0, self.period_s))
        self._first = self._tick()

    def energy_j(self) -> float | Unknown:
        self.reads += 1
        if not self.counts:
            return Unknown(("it has no counter",))
        if self._rng.random() < self.dropped:
            return Unknown(("the driver timed out",))
        energy_j = self.starts_j + self.counter_gain * self._counted_j(self._first if self.stuck else self._tick())
        energy_j = floor(energy_j / self.quantum_j) * self.quantum_j
        return energy_j % self.wraps_j if self.wraps_j else energy_j

    def power_w(self) -> float | Unknown:
        if not self.senses:
            return Unknown(("it has no power sensor",))
        if self._rng.random() < self.dropped:
            return Unknown(("the driver timed out",))
        power_w = self.power_gain * self._seen_w(self._first if self.stuck else self._tick())
        return power_w * (1 + self.sensor_noise * float(self._rng.standard_normal()))

    def _tick(self) -> int:
        return floor((self.device.clock.at_s - self._phase_s) / self.period_s)

    def _seen_w(self, tick: int) -> float:
        end_s = tick * self.period_s + self._phase_s - self.lag_s
        return self.device.mean_w(end_s - self.duty * self.period_s, end_s)

    def _counted_j(self, tick: int) -> float:
        if self.duty == 1:
            return self.device.drawn_j(tick * self.period_s + self._phase_s - self.lag_s)
        while len(self._ticks_j) <= tick - self._first:
            seen_w = self._seen_w(self._first + len(self._ticks_j))
            self._ticks_j.append(self._ticks_j[-1] + seen_w * self.period_s)
        return self._ticks_j[tick - self._first]
