"""Latency and energy of a call by continuous load: the device is kept busy, and the counter is read at its own steps.

A board counts energy in steps of 10 to 100 ms, so power is taken between the first and the last step in a window of at
least two seconds and 50 steps; a constant lag of the counter then cancels. Power lags behind load, so half a second
goes by first. Joules of one call are that power times the latency of the same window.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.gpu.board import Board
from benchmarks.gpu.device import Device

# Two-sided 95 % points of Student's distribution by number of trials.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}
GOOD = 0.03  # half of the 95 % interval of the energy, relative; with more a figure is marked noisy
NOISY_CV = 0.05  # of latencies
IN_FLIGHT = 3  # chunks: the device never waits, and the host is never far ahead
LAUNCH_BOUND = 0.9  # a replayed graph that takes less than this share of the eager time stands for it
LONG_S = 500e-6  # no host needs that long for a launch, so nothing is captured
ROTATED = 2  # times the cache that the copies hold
Clock = Callable[[], float]


@dataclass(frozen=True)
class Budget:
    """How long is measured. Seconds, but for `periods` of the counter and the numbers of trials."""

    window_s: float = 2.0
    periods: int = 50
    fewest: int = 3
    trials: int = 5
    ramp_s: float = 0.5
    chunk_s: float = 0.01
    idle_s: float = 4.0


QUICK = Budget(window_s=0.004, periods=0, fewest=2, trials=2, ramp_s=0.0, chunk_s=0.001, idle_s=0.0)


@dataclass(frozen=True)
class Load:
    """Work that is repeated: `unit` launches so many calls."""

    unit: Callable[[], Any]
    calls: int


@dataclass(frozen=True)
class Window:
    """Seconds of one call, and watts meanwhile: None where the counter did not step at least twice or went back."""

    latency_s: float
    power_w: float | None
    seconds: float
    sample: dict[str, Any]


@dataclass
class Meter:
    """A device and the board it is on.

    Attributes:
        period_s: between two steps of the counter; None where it is not known to step.
        idle_w: of the board, None where it was not read.
    """

    device: Device
    board: Board
    budget: Budget = Budget()
    clock: Clock = time.perf_counter
    period_s: float | None = None
    idle_w: float | None = None

    def settle(self) -> None:
        """Infer the period of the counter, and read the power of the idle board."""
        steps = self._steps(self.budget.idle_s)
        gaps = [late[0] - soon[0] for soon, late in pairwise(steps)]
        self.period_s = statistics.median(gaps) if len(gaps) > 2 else None
        self.idle_w = power(steps)

    def _steps(self, seconds: float) -> list[tuple[float, float]]:
        """(seconds, joules) of every step of the counter, polled."""
        end, steps = self.clock() + seconds, list[tuple[float, float]]()
        last = self.board.energy_j()
        while last is not None and self.clock() < end:
            time.sleep(0.001)
            now = self.board.energy_j()
            if now is not None and now != last:
                steps.append((self.clock(), now))
                last = now
        return steps

    def seconds(self, load: Load, wanted_s: float) -> float:
        """Of one call, over about so many seconds."""
        once = self._time(load, 1)
        return self._time(load, max(1, int(wanted_s / max(once * load.calls, 1e-7))))

    def _time(self, load: Load, units: int) -> float:
        start = self.device.mark()
        for _ in range(units):
            load.unit()
        end = self.device.mark()
        self.device.wait(end)
        return self.device.seconds(start, end) / units / load.calls

    def windows(self, load: Load, latency_s: float) -> list[Window]:
        """Until the energies of `fewest` to `trials` windows agree."""
        units = max(1, int(self.budget.chunk_s / max(latency_s * load.calls, 1e-7)))
        if self.budget.ramp_s:
            self._window(load, units, self.budget.ramp_s)
        length_s = max(self.budget.window_s, self.budget.periods * (self.period_s or 0.0))
        found: list[Window] = []
        while len(found) < self.budget.trials:
            found.append(self._window(load, units, length_s))
            if len(found) >= self.budget.fewest and (spread(energies(found)) or 0.0) <= GOOD:
                break
        return found

    def _window(self, load: Load, units: int, length_s: float) -> Window:
        steps, pending, chunks = list[tuple[float, float]](), deque[Any](), 0
        last = self.board.energy_j()
        start, end_s = self.device.mark(), self.clock() + length_s
        while self.clock() < end_s or not chunks:
            for _ in range(units):
                load.unit()
            chunks += 1
            pending.append(self.device.mark())
            if len(pending) > IN_FLIGHT:
                self.device.wait(pending.popleft())
            now = self.board.energy_j()
            if now is not None and now != last:
                steps.append((self.clock(), now))
                last = now
        sample = self.board.sample()  # what is in flight still keeps the device busy
        self.device.wait(pending[-1])
        seconds = self.device.seconds(start, pending[-1])
        return Window(seconds / (chunks * units * load.calls), power(steps), seconds, sample)


def power(steps: list[tuple[float, float]]) -> float | None:
    """Watts between the first and the last step of the counter, None without two steps or where it went back."""
    if len(steps) < 2 or any(late[1] < soon[1] for soon, late in pairwise(steps)):
        return None
    return (steps[-1][1] - steps[0][1]) / (steps[-1][0] - steps[0][0])


def energies(windows: list[Window]) -> list[float]:
    """Joules of one call by window; [] unless every window has them."""
    known = [window.power_w * window.latency_s for window in windows if window.power_w is not None]
    return known if len(known) == len(windows) else []


def spread(values: list[float]) -> float | None:
    """Half of the 95 % interval of the mean, relative to it; None for fewer than two values."""
    if len(values) < 2:
        return None
    half = STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return float(half / statistics.mean(values))
