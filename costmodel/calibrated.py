"""A cost model that was corrected by measurements of the very device and executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any

import numpy as np

from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel.costs import plus, times, total
from eopt.costmodel.energy import DEFAULT_MEMORY_PJ, MEMORY_PJ, PICO, static_power_w
from eopt.costmodel.query import Basis, Cost, CostModel, Interval, Kernel, Unknown, Whole, WholeCostModel
from eopt.costmodel.residual import Residual, points
from eopt.costmodel.roofline import CPU, Latency, latency

Array = np.ndarray[Any, Any]
Z90 = 1.645  # standard deviations of half a 90 % interval


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Asks another cost model, and corrects what it says of one executor on one target.

    Attributes:
        base: what is corrected.
        target, executor: names; others are answered as by `base`.
        says: of every answer, what it is corrected by.
    """

    base: CostModel
    residual: Residual
    target: str
    executor: str
    says: str

    def query(self, kernel: Kernel, target: Target, executor: Executor) -> Cost | Unknown:
        """See `CostModel.query`."""
        return self.query_many([kernel], target, executor)[0]

    def query_many(self, kernels: Sequence[Kernel], target: Target, executor: Executor) -> list[Cost | Unknown]:
        """See `CostModel.query_many`."""
        found = self.base.query_many(kernels, target, executor)
        if not self._is_of(target, executor):
            return found
        known = [(place, cost) for place, cost in enumerate(found) if isinstance(cost, Cost)]
        if not known:
            return found
        asked = [kernels[place] for place, _ in known]
        seconds = references(asked, [cost for _, cost in known], target, executor)
        means, spreads = self.residual.predict(points(asked, seconds))
        for (place, cost), latency_s, spread in zip(known, seconds * np.exp(means), spreads, strict=True):
            found[place] = corrected(cost, float(latency_s), float(spread), self.says)
        return found

    def whole(
        self, kernels: Sequence[Kernel], counts: Sequence[int], target: Target, executor: Executor, training: bool
    ) -> Whole | None:
        """What the base says of a whole model, times what its kernels are off together; their sum where it says
        nothing, and what weights cost that no cache holds until the next execution."""
        base = self.base
        found = base.whole(kernels, counts, target, executor, training) if isinstance(base, WholeCostModel) else None
        if not self._is_of(target, executor):
            return found
        after = [cost for cost in self.query_many(kernels, target, executor) if isinstance(cost, Cost)]
        if len(after) < len(kernels):
            return found
        latency_s = total([times(cost.latency_s, count) for cost, count in zip(after, counts, strict=True)])
        energy_j = total([times(cost.energy_j, count) for cost, count in zip(after, counts, strict=True)])
        if found is None:
            waits_s, waits_j = cold(kernels, counts, target)
            return Whole(plus(latency_s, waits_s), plus(energy_j, waits_j))
        before = [cost for cost in base.query_many(kernels, target, executor) if isinstance(cost, Cost)]
        old_s = sum(cost.latency_s.mid * count for cost, count in zip(before, counts, strict=True))
        old_j = sum(cost.energy_j.mid * count for cost, count in zip(before, counts, strict=True))
        return Whole(times(found.latency_s, latency_s.mid / old_s), times(found.energy_j, energy_j.mid / old_j))

    def _is_of(self, target: Target, executor: Executor) -> bool:
        return (target.name, executor.name) == (self.target, self.executor)


def references(kernels: Sequence[Kernel], costs: Sequence[Cost], target: Target, executor: Executor) -> Array:
    """float64[n] seconds that measurements are compared with.

    A network says what it predicts. Of the physics prior they are compute, memory and launch one after the other:
    which of them is longer changes suddenly from kernel to kernel where the sheet is wrong, their sum does not.
    """
    found = []
    for kernel, cost in zip(kernels, costs, strict=True):
        time = latency(kernel, target, executor) if cost.basis is Basis.ESTIMATED else None
        parts = isinstance(time, Latency) and time.compute_s + time.memory_s + time.launch_s
        found.append(parts or cost.latency_s.mid)
    return np.array(found, dtype=float)


def cold(kernels: Sequence[Kernel], counts: Sequence[int], target: Target) -> tuple[float, float]:
    """Seconds and joules of weights that come from memory at every execution, which operators measured one by one find
    in the cache: all of them once they are larger than it, as each pushes out the next that is needed."""
    weights = sum(kernel.weight_bytes * count for kernel, count in zip(kernels, counts, strict=True))
    bandwidth = (target.bandwidth_bytes_per_s or 0.0) * CPU.dram
    if target.kind != "cpu" or not bandwidth or not target.l2_bytes or weights <= target.l2_bytes:
        return 0.0, 0.0
    waits_s = weights / bandwidth
    per_byte = MEMORY_PJ.get((target.memory_type or "").lower(), DEFAULT_MEMORY_PJ) * PICO
    return waits_s, waits_s * static_power_w(target)[0] + weights * per_byte


def around(latency_s: float, spread: float) -> Interval:
    """The 90 % interval of a latency whose logarithm is known to a standard deviation."""
    wide = exp(Z90 * spread)
    return Interval(latency_s, latency_s / wide, latency_s * wide)


def corrected(cost: Cost, latency_s: float, spread: float, says: str) -> Cost:
    """A cost with another latency, known to a standard deviation of its logarithm.

    Operations and bytes draw the joules that they drew; static power is drawn for longer or shorter.
    """
    factor = latency_s / cost.latency_s.mid
    terms = {name: joules * (factor if name == "static" else 1.0) for name, joules in cost.terms.items()}
    scale = sum(terms.values()) / sum(cost.terms.values()) if sum(cost.terms.values()) else factor
    return replace(
        cost,
        latency_s=around(latency_s, spread),
        energy_j=times(cost.energy_j, scale),
        basis=Basis.PREDICTED,
        terms=terms,
        launch_s=min(cost.launch_s * factor, latency_s),
        reasons=(*cost.reasons, says),
    )
