"""Sums and shares of costs."""

from __future__ import annotations

from collections.abc import Sequence

from eopt.costmodel.query import Basis, Cost, Interval, Unknown

_WEAKEST_LAST = (Basis.MEASURED, Basis.PREDICTED, Basis.EXTRAPOLATED, Basis.ESTIMATED, Basis.UNKNOWN)


def weaker(one: Basis, other: Basis | str) -> Basis:
    """The basis of a sum of two figures."""
    return max(one, Basis(other), key=_WEAKEST_LAST.index)


def total(parts: Sequence[Interval]) -> Interval:
    """Errors of one model point the same way, so bounds add up like the estimates."""
    return Interval(sum(p.mid for p in parts), sum(p.lo for p in parts), sum(p.hi for p in parts))


def times(interval: Interval, factor: float) -> Interval:
    """An interval `factor` times as large."""
    return Interval(interval.mid * factor, interval.lo * factor, interval.hi * factor)


def plus(interval: Interval, more: float) -> Interval:
    """An interval moved by a figure that is taken as known."""
    return Interval(interval.mid + more, interval.lo + more, interval.hi + more)


def added(costs: Sequence[Cost | Unknown]) -> Cost | Unknown:
    """Kernels one after the other, at least one; unknown where one of them is."""
    unknown = next((cost for cost in costs if isinstance(cost, Unknown)), None)
    known = [cost for cost in costs if isinstance(cost, Cost)]
    if unknown is not None or len(known) == 1:
        return unknown or known[0]
    basis = Basis.MEASURED
    for cost in known:
        basis = weaker(basis, cost.basis)
    names = dict.fromkeys(name for cost in known for name in cost.terms)
    return Cost(
        total([cost.latency_s for cost in known]),
        total([cost.energy_j for cost in known]),
        known[0].energy_scope,
        basis,
        {name: sum(cost.terms.get(name, 0.0) for cost in known) for name in names},
        sum(cost.launch_s for cost in known),
        tuple(dict.fromkeys(reason for cost in known for reason in cost.reasons)),
    )


def share_of(cost: Cost | Unknown, share: float) -> Cost | Unknown:
    """A part of a kernel that works for several operators."""
    if isinstance(cost, Unknown):
        return cost
    return Cost(
        times(cost.latency_s, share),
        times(cost.energy_j, share),
        cost.energy_scope,
        cost.basis,
        {name: joules * share for name, joules in cost.terms.items()},
        cost.launch_s * share,
        cost.reasons,
    )
