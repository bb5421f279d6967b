"""Several models in turns, so that load from elsewhere hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Run = Callable[[], object]
MOST_RUNS = 1000  # in one timing


def interleaved(runs: Mapping[str, Run], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds of a run, by name one figure per round; the order rotates, and one round before the first is left out."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        shift = number % len(names)
        for name in (*names[shift:], *names[:shift]):
            times[name].append(_timed(runs[name], seconds))
    return {name: series[1:] for name, series in times.items()}


def ratio(series: Sequence[float], other: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(series, other, strict=True))


def _timed(run: Run, seconds: float) -> float:
    """Seconds of the fastest run: others on the machine only add to it. The first is not counted, for threads of other
    sessions may still be spinning then."""
    run()
    taken: list[float] = []
    spent = 0.0
    while (spent < seconds or len(taken) < 3) and len(taken) < MOST_RUNS:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
        spent += taken[-1]
    return min(taken)
