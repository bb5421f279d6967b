"""The physics prior: a roofline for latency, and energy from operations, bytes and static power.

    t  = max(compute, memory) + launch
    E  = P_static t + kappa(process) sum e_flop F + sum e_byte B,   stretched where E / t would exceed the power cap

Everything is monotone: more bandwidth, rate or cache never predicts a longer time, more work never a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.costmodel.energy import static_power_w, work_energy_j
from eopt.costmodel.query import Basis, Cost, Interval, Kernel, Unknown
from eopt.costmodel.roofline import Latency, latency

# Width of the 90 % interval as a factor around the estimate, for a prior that nothing was fitted to: published
# rooflines on unseen GPUs err by a factor of 1.3 to 3 (NeuSight, ASPLOS 2025, table of baselines).
SPREAD = 2.0
SPREAD_IMPUTED = 2.5  # a spec-sheet field had to be assumed
SPREAD_LAUNCH = 3.0  # host overhead, which no spec sheet states, dominates


@dataclass(frozen=True)
class Prior:
    """The first cost model: needs a spec sheet and nothing else. Every answer is marked `estimated`."""

    def query(self, kernel: Kernel, target: Target, executor: Executor) -> Cost | Unknown:
        """See `CostModel.query`."""
        return _query(kernel, target, executor)

    def query_many(self, kernels: Sequence[Kernel], target: Target, executor: Executor) -> list[Cost | Unknown]:
        """See `CostModel.query_many`."""
        return [self.query(kernel, target, executor) for kernel in kernels]


@lru_cache(maxsize=1 << 16)
def _query(kernel: Kernel, target: Target, executor: Executor) -> Cost | Unknown:
    if not executor.runs_on(target):
        return Unknown((f"executor {executor.name} does not run on {target.name}",))
    if target.bandwidth_bytes_per_s is None or not target.vector:
        return Unknown((f"sheet of {target.name} lacks the memory bandwidth or the vector peak",))
    time = latency(kernel, target, executor)
    if isinstance(time, Unknown):
        return time
    static_w, reasons = static_power_w(target)
    terms = work_energy_j(target, time)
    stretched_s = _stretched(time, sum(terms.values()), static_w, target)
    terms["static"] = static_w * stretched_s
    estimated = [target.factors.get(name, 1.0) for name in ("bandwidth_bytes_per_s", "vector.float32")]
    spread = max(_spread(time, bool(reasons) or bool(target.imputed)), *estimated)
    reasons = (*time.reasons, *reasons, *(f"{name} imputed" for name in sorted(target.factors)))
    return Cost(
        _around(stretched_s, spread),
        _around(sum(terms.values()), spread),
        "package" if target.kind == "cpu" else "board",
        Basis.ESTIMATED,
        terms,
        time.launch_s,
        reasons,
    )


def _stretched(time: Latency, dynamic_j: float, static_w: float, target: Target) -> float:
    """Latency under the power cap: clocks fall until the dynamic energy fits into what static power leaves."""
    if target.tdp_w is None or target.tdp_w <= static_w:
        return time.total_s
    return max(time.total_s, dynamic_j / (target.tdp_w - static_w))


def _spread(time: Latency, imputed: bool) -> float:
    if time.launch_s > time.total_s / 2:
        return SPREAD_LAUNCH
    return SPREAD_IMPUTED if imputed else SPREAD


def _around(value: float, spread: float) -> Interval:
    return Interval(value, value / spread, value * spread)
