"""How often a host launches a kernel: a matter of the executor and its runtime, not of the device it feeds.

Measured, a latency is flat at this gap until a kernel takes as long (NeuSight's operators under torch: 30 µs on five
GPUs of ten years). Replayed graphs have nearly none, kernels that a profiler timed alone have none at all.
"""

from __future__ import annotations

from math import log
from typing import Any

from eopt.costmodel import physics
from eopt.costmodel.table import BACK_TO_BACK, EXECUTORS, FEATURES, FIRST_SCALE, RUNTIMES, SCALES

# Before anything is learned, by executor: eager, captured, captured, compiled, a session, and kernels timed alone.
LOG_KNOWN = tuple(log(seconds / physics.GAP_S) for seconds in (20e-6, 1e-6, 1e-6, 10e-6, 10e-6, 1e-8))
WEIGHTS = len(EXECUTORS) * (1 + len(RUNTIMES) + len(SCALES))


def log_known(xp: Any, seen: Any) -> Any:
    """(n,) logarithms over `physics.GAP_S` of what an executor is known for; `seen` as in `table.features`."""
    return _executors(seen) @ xp.asarray(LOG_KNOWN, dtype=seen.dtype)


def learned(seen: Any, shared: Any, own: Any) -> Any:
    """(n,) what was learned besides, in the logarithm.

    Args:
        shared: (`WEIGHTS`,) by executor, by executor and runtime, and by executor and scale: scaling of blocks on the
            host costs a hundred microseconds.
        own: (executors,) of a family of kernels.
    """
    executors = _executors(seen)
    runtimes, scales = seen[:, -len(RUNTIMES) :], seen[:, FIRST_SCALE : FIRST_SCALE + len(SCALES)]
    first, second = len(EXECUTORS), len(EXECUTORS) * (1 + len(RUNTIMES))
    by_runtime = ((executors @ shared[first:second].reshape(first, -1)) * runtimes).sum(1)
    by_scale = ((executors @ shared[second:].reshape(first, -1)) * scales).sum(1)
    found = executors @ (shared[:first] + own) + by_runtime + by_scale
    return found * (1 - executors[:, EXECUTORS.index(BACK_TO_BACK)])


def _executors(seen: Any) -> Any:
    return seen[:, FEATURES : FEATURES + len(EXECUTORS)]
