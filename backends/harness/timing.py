"""Time a prepared workload: warmed up, in windows long enough for the clock, as the faster ones of them agree.

Whatever else a machine does can only add to a latency, so the figure is the lowest tenth of the windows. On a quiet
machine that is the median less two percent; on a busy one medians are off by tens.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from eopt.backends.harness.base import Prepared, Timing

REPEATS = 9
QUANTILE = 0.1
WINDOW_S = 0.005  # of one repeat; clocks resolve 100 ns, so their share is below 1e-5
MAX_CALLS = 1 << 20
WARM_UP_S = 0.005


def time(prepared: Prepared, copies: int = 1, repeats: int = REPEATS, window_s: float = WINDOW_S) -> Timing:
    """The latency of one copy in seconds.

    The first execution is never counted: it pays for memory, caches and lazy compilation.
    """
    calls = calibrated_calls(prepared, window_s)
    return summarised([prepared.run(calls) / calls / copies for _ in range(repeats)], calls)


def calibrated_calls(prepared: Prepared, window_s: float) -> int:
    """Executions that fill a window, found while warming up."""
    prepared.run(1)
    calls, taken_s = 1, prepared.run(1)
    while taken_s < min(WARM_UP_S, window_s) and calls < MAX_CALLS:
        calls *= 2
        taken_s = prepared.run(calls)
    each_s = max(taken_s / calls, 1e-9)
    return int(min(MAX_CALLS, max(1, ceil(window_s / each_s))))


def summarised(each_s: list[float], calls: int) -> Timing:
    """A timing from the seconds of single executions, one for each repeat."""
    spread = float(np.std(each_s, ddof=1) / np.mean(each_s)) if len(each_s) > 1 else 0.0
    return Timing(float(np.quantile(each_s, QUANTILE)), spread, len(each_s), calls)
