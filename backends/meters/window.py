"""The energy of one call: windows long against the counter's period, between idle ones.

The period is inferred, never assumed. Each trial starts at a random phase of it, repeats the call for a lead-in and 50
periods, and takes the mean power between two updates of the counter inside. Power times the latency of one call is its
energy. Why so: counters lag, and sensors of A100 and H100 look at a quarter of the time (arXiv 2312.02741).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

import numpy as np

from eopt.backends.base import Unknown
from eopt.backends.meters.base import EnergyReading, Meter
from eopt.backends.meters.clock import Clock, WallClock
from eopt.backends.meters.summary import Idle, Trial, summary
from eopt.backends.meters.trace import Level, counted, dropped, period_s, sampled, watch
from eopt.ir.errors import UsageError

TRIALS = 5
WINDOW_S = 2.0
WINDOW_PERIODS = 50

LEAD_S, LEAD_PERIODS = 0.5, 5  # of a window that do not count: clocks rise, lagging counters still see the idle time
IDLE_S, PATIENCE_S = 2.0, 12.0  # idle watched; longer where the counter hardly moves
FINE_S = 0.002  # between polls of an idle device, to see how often the counter moves
POLL_S = (0.005, 0.05)  # limits between polls under load, else a tenth of the period: polling takes time from the work
SENSOR_PERIOD_S = 0.1  # of power sensors that show none because their reading is steady
WARM_UP_S, MAX_WARM_CALLS = 0.1, 1 << 24

Run = Callable[[int], float]
"""Executes so many calls back to back; returns the seconds they took."""


def measure_energy(
    run: Run, meter: Meter, *, trials: int = TRIALS, clock: Clock | None = None, seed: int = 0
) -> EnergyReading | Unknown:
    """The energy of one call of `run`, in J, with a 95 % interval.

    Takes `trials` windows of at least 2 s and 50 periods of the counter: five take about 20 s where it moves every
    20 ms, 35 s where every 100 ms. Nothing else should use the device meanwhile.

    Args:
        run: see `Run`; its calls must be alike, and nearly all of its time must be theirs.
        meter: a counter, or else power readings, which are integrated.
        trials: at least two; fewer than five are seldom accepted.
        clock: of which `run` takes the time.
        seed: of the phases.

    Raises:
        UsageError: fewer than two trials.
    """
    if trials < 2:
        raise UsageError(f"an interval takes two trials or more, not {trials}")
    clock = clock or WallClock()
    before = _idle(meter, clock)
    if isinstance(before, Unknown):
        return before
    lead_s = max(LEAD_S, LEAD_PERIODS * before.period_s)
    window_s = max(WINDOW_S, WINDOW_PERIODS * before.period_s)
    calls = _warm_calls(run, lead_s + window_s + 2 * before.period_s)
    rng = np.random.default_rng(seed)
    done: list[Trial] = []
    failed: list[str] = []
    for _ in range(2 * trials):
        clock.sleep(float(rng.uniform(0, before.period_s)))
        trial = _trial(run, calls, meter, clock, before, lead_s)
        if isinstance(trial, Unknown):
            failed += trial.reasons
            continue
        if trial.level.window_s < window_s:  # the device became faster
            calls = ceil(calls * 1.1 * (lead_s + window_s) / (lead_s + trial.level.window_s))
            continue
        done.append(trial)
        if len(done) == trials:
            clock.sleep(lead_s)
            return summary(done, calls, before, _idle(meter, clock), meter)
    return Unknown((f"{len(done)} of {trials} windows could be measured on {meter.name}", *dict.fromkeys(failed)))


def _idle(meter: Meter, clock: Clock) -> Idle | Unknown:
    """Power with nothing to do, and how often the meter's reading moves."""
    for seconds in (IDLE_S, PATIENCE_S):
        trace, _ = watch(meter, clock, FINE_S, partial(clock.sleep, seconds))
        if dropped(trace.energy_j) == 1:
            power = sampled(trace)
            period = min(SENSOR_PERIOD_S, period_s(trace.at_s, trace.power_w) or SENSOR_PERIOD_S)
            return _unmeasurable(meter, power) if isinstance(power, Unknown) else Idle(power, period, counter=False)
        level, moves_s = counted(trace), period_s(trace.at_s, trace.energy_j)
        if isinstance(level, Level) and moves_s is not None:
            return Idle(level, moves_s, counter=True)
    if isinstance(level, Level):
        level = Unknown((f"its counter moves less than thrice in {PATIENCE_S:g} s",))
    return _unmeasurable(meter, level)


def _unmeasurable(meter: Meter, why: Unknown) -> Unknown:
    return Unknown((f"{meter.name} cannot measure energy", *why.reasons))


def _warm_calls(run: Run, wanted_s: float) -> int:
    """Calls that take so long, with a margin, found while warming up; the first call pays for lazy compilation."""
    run(1)
    calls, taken_s = 1, run(1)
    while taken_s < WARM_UP_S and calls < MAX_WARM_CALLS:
        calls *= 2
        taken_s = run(calls)
    return ceil(1.05 * wanted_s * calls / max(taken_s, 1e-9))


def _trial(run: Run, calls: int, meter: Meter, clock: Clock, idle: Idle, lead_s: float) -> Trial | Unknown:
    """One window: the mean power of its part after the lead-in, as a whole and by halves, and what was lost."""
    poll_s = float(np.clip(idle.period_s / 10, *POLL_S))
    trace, (begin_s, taken_s, end_s) = watch(meter, clock, poll_s, lambda: _timed(run, calls, clock))
    start_s = max(begin_s, end_s - taken_s) + lead_s
    middle_s = (start_s + end_s) / 2
    loaded = trace.between(start_s, end_s)
    mean = counted if idle.counter else sampled
    level = mean(loaded)
    if isinstance(level, Unknown):
        return level
    first, second = mean(trace.between(start_s, middle_s)), mean(trace.between(middle_s, end_s))
    rise = 0.0
    if isinstance(first, Level) and isinstance(second, Level) and level.power_w > 0:
        rise = (second.power_w - first.power_w) / level.power_w
    return Trial(level, taken_s / calls, rise, sampled(loaded), dropped(loaded.readings(idle.counter)), trace.reasons)


def _timed(run: Run, calls: int, clock: Clock) -> tuple[float, float, float]:
    begin_s = clock.now_s()
    return begin_s, run(calls), clock.now_s()
