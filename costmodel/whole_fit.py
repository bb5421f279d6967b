"""Fit the head of whole models for a release, with intervals from generations neither it nor the network has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from eopt.costmodel import folds, intervals, whole_head
from eopt.costmodel.network import Network
from eopt.costmodel.whole_head import Head
from eopt.costmodel.wholes import Wholes, covers, sums

Array = np.ndarray[Any, Any]
UNTRIED = 1.0
"""Half an interval where no generation could be left out."""


class WholeFit:
    """Whole models of a table; errors are gathered while generations are left out one after the other."""

    def __init__(self, wholes: Wholes) -> None:
        self._wholes = wholes
        self._groups = wholes.measured().group
        count = len(wholes.frame)
        self._errors = {"latency": np.full(count, np.nan), "energy": np.full(count, np.nan)}

    def leave_out(self, network: Network, generations: Sequence[str]) -> None:
        """Predict these generations by a head fitted to all others; `network` has seen none of their operators."""
        covered = covers(network, self._wholes)
        wholes = self._wholes.take(covered)
        gone = wholes.frame["generation"].isin(generations).to_numpy(dtype=bool)
        if not gone.any() or gone.all():
            return
        every, known = sums(network, wholes), wholes.take(~gone)
        found = whole_head.apply(whole_head.fit(every.take(~gone), known.measured()), every.take(gone))
        for name, column in (("latency", "latency_s"), ("energy", "energy_j")):
            error = np.log(found[column] / wholes.frame[column].to_numpy(float)[gone])
            self._errors[name][np.flatnonzero(covered)[gone]] = error

    def head(self, network: Network) -> Head:
        """Fitted to all of them."""
        wholes = self._wholes.take(covers(network, self._wholes))
        return whole_head.fit(sums(network, wholes), wholes.measured()) if len(wholes.frame) else whole_head.PRIOR

    def spread(self) -> dict[str, float]:
        """Half of a 90 % interval, in the logarithm, by quantity; every device in a source counts the same."""
        found = {}
        for name, error in self._errors.items():
            known = np.isfinite(error)
            found[name] = intervals.half(np.abs(error[known]), self._groups[known]) if known.any() else UNTRIED
        return found

    def about(self) -> dict[str, Any]:
        """How many there are, and mean and median absolute errors in percent, devices weighted equally."""
        found: dict[str, Any] = {"rows": len(self._wholes.frame), "sources": sorted(set(self._wholes.frame["source"]))}
        scores = {name: folds.score(error, self._groups) for name, error in self._errors.items()}
        return found | {name: score for name, score in scores.items() if score}
