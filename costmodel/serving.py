"""Serving under load: how requests batch, how long they take, and the joules of each.

Requests arrive at random (Poisson) at one device. Whenever it is idle it takes all that wait as one batch, up to a
largest size. This is the queue of Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching: a
closed-form characterization", Performance Evaluation 147, 2021, with a limit on the batch and any batch time. His
closed form bounds the mean of linear batch times without a limit. Objectives are set for the tail, which has none, so
the queue is played through with seeded arrivals.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

import numpy as np

from eopt.costmodel.query import Interval

Array = np.ndarray[Any, Any]
LARGEST_BATCH = 256
REQUESTS = 20_000  # played through: the slowest percent is 180 of them once the queue has filled
WARM_UP = REQUESTS // 10
TAIL = 99.0
STEPS = 12  # bisections of the load that a device sustains: to 1/4000 of its capacity


@dataclass(frozen=True)
class Served:
    """One device at a load.

    Attributes:
        max_batch: most requests it takes at once; `mean_batch` and `largest_batch` are what it took.
        latency_mean_s, latency_p99_s: from arrival to answer.
        utilisation: share of the time it computes.
        request_j: joules of a request with its share of the idle time.
        power_w: mean, idle time included.
    """

    qps: float
    max_batch: int
    mean_batch: float
    largest_batch: int
    latency_mean_s: float
    latency_p99_s: float
    utilisation: float
    request_j: Interval
    power_w: Interval


@dataclass(frozen=True)
class Server:
    """A model on a device at batches of any size.

    Attributes:
        batches: sizes that were priced, rising; between them figures are on straight lines.
        latency_s, energy_j: of a batch of each.
        idle_w: power of the device with nothing to do, in W.
    """

    batches: tuple[int, ...]
    latency_s: tuple[float, ...]
    energy_j: tuple[Interval, ...]
    idle_w: float

    @cached_property
    def service_s(self) -> Array:
        """float64[largest + 1], seconds of a batch by its size. A batch may be padded to one that takes less."""
        return self._by_size(self.latency_s)

    def _by_size(self, figures: Sequence[float]) -> Array:
        least = np.minimum.accumulate(np.asarray(figures)[::-1])[::-1]
        return np.interp(np.arange(self.batches[-1] + 1), self.batches, least)

    @cached_property
    def _joules(self) -> Array:
        """float64[3, largest + 1], joules of a batch by its size: estimate and bounds."""
        return np.stack([self._by_size([getattr(j, name) for j in self.energy_j]) for name in ("mid", "lo", "hi")])

    def capacity(self, batch: int) -> float:
        """Requests a second when every batch is full."""
        return batch / float(self.service_s[batch])

    def at(self, qps: float, batch: int) -> Served | None:
        """The device at a load in requests a second; None where more come than it can serve."""
        if qps >= self.capacity(batch):
            return None
        arrivals = _UNIT_ARRIVALS / qps
        ends, sizes = _played(arrivals.tolist(), self.service_s[: batch + 1].tolist())
        latency_s = (np.repeat(ends, sizes) - arrivals)[WARM_UP:]
        busy_s, whole_s = float(self.service_s[sizes].sum()), ends[-1]
        mid, lo, hi = (self._joules[:, sizes].sum(1) + self.idle_w * (whole_s - busy_s)).tolist()
        return Served(
            qps,
            batch,
            float(np.mean(sizes)),
            max(sizes),
            float(latency_s.mean()),
            float(np.percentile(latency_s, TAIL)),
            busy_s / whole_s,
            Interval(mid / REQUESTS, lo / REQUESTS, hi / REQUESTS),
            Interval(mid / whole_s, lo / whole_s, hi / whole_s),
        )


_UNIT_ARRIVALS = np.cumsum(np.random.default_rng(0).exponential(size=REQUESTS))  # one a second: all loads share them


def _played(arrivals: Sequence[float], service_s: Sequence[float]) -> tuple[list[float], list[int]]:
    """End and size of every batch."""
    ends, sizes = list[float](), list[int]()
    place, free, largest = 0, 0.0, len(service_s) - 1
    while place < len(arrivals):
        start = max(free, arrivals[place])
        behind = bisect_right(arrivals, start, place, min(place + largest, len(arrivals)))
        free = start + service_s[behind - place]
        ends.append(free)
        sizes.append(behind - place)
        place = behind
    return ends, sizes


@dataclass(frozen=True)
class Plan:
    """How a load is served.

    Attributes:
        devices: how many share it evenly; None where no number does, as not even a light load is held.
        sustained_qps: the largest load one device serves within the objective.
        each: one of the devices at its share.
    """

    devices: int | None
    sustained_qps: float
    each: Served | None


def plan(server: Server, qps: float, slo_s: float | None = None, batches: Sequence[int] | None = None) -> Plan:
    """The batch with the fewest joules a request among those that hold the objective, on as few devices as do.

    Args:
        slo_s: bound of the 99th percentile of the latency: an objective is for nearly every request, not for the mean.
        batches: largest batches to choose from; those that were priced by default.
    """
    sizes = tuple(batches or server.batches)
    best = _best(server, qps, slo_s, sizes)
    sustained_qps = _sustained(server, slo_s, sizes)
    if best is not None or not sustained_qps:
        return Plan(1 if best else None, sustained_qps, best)
    for devices in count(max(2, int(qps / sustained_qps))):
        best = _best(server, qps / devices, slo_s, sizes)
        if best is not None:
            return Plan(devices, sustained_qps, best)
    raise AssertionError("a share of the load that is small enough is served")


def _best(server: Server, qps: float, slo_s: float | None, batches: Sequence[int]) -> Served | None:
    held = list[Served]()
    for batch in sorted(batches):
        served = _held(server, qps, slo_s, batch)
        held += [served] if served else []
        if served and served.largest_batch < batch:
            break  # what never fills is the same at any larger size
    return min(held, key=lambda served: (served.request_j.mid, served.max_batch), default=None)


def _held(server: Server, qps: float, slo_s: float | None, batch: int) -> Served | None:
    served = server.at(qps, batch)
    return served if served and (slo_s is None or served.latency_p99_s <= slo_s) else None


def _sustained(server: Server, slo_s: float | None, batches: Sequence[int]) -> float:
    """The largest load within the objective, by bisection; all below the capacity without one."""
    if slo_s is None:
        return max(map(server.capacity, batches))
    if server.service_s[1] > slo_s:
        return 0.0
    most = 0.0
    for batch in sorted(batches, reverse=True):
        low, high = most, server.capacity(batch)
        least = low + (high - low) / 2**STEPS
        if high <= low or not _held(server, least, slo_s, batch):
            continue
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if _held(server, middle, slo_s, batch) else (low, middle)
        most = max(low, least)
    return most
