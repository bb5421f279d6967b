"""Quantised models from one calibration: the same grids, whichever operators are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from eopt.ir.model import Model
from eopt.passes.quant import bias, dynamic, insert, placement
from eopt.passes.quant.bias import Means
from eopt.passes.quant.calibrate import Calibration
from eopt.passes.quant.params import Grid
from eopt.passes.quant.placement import Cluster
from eopt.passes.quant.scheme import Scheme
from eopt.passes.quant.weights import weight_grids


@dataclass(frozen=True, eq=False)
class Builder:
    """What is needed to quantise any of a model's operators.

    Attributes:
        seen: ranges of all tensors that are quantised on a fixed grid.
        means: for bias correction; empty without.
    """

    model: Model
    seen: Calibration
    numbers: Scheme
    per_channel: bool
    means: Means

    def applying(self, clusters: Sequence[Cluster]) -> Callable[[Model, Cluster], Model]:
        """A function that quantises any of these clusters in a model; weights tied between them are shared."""
        anchors = [anchor for cluster in clusters for anchor in cluster.anchors]
        grids = {id(cluster): self._grids(cluster) for cluster in clusters}
        every: dict[str, Grid | None] = {}
        for found in grids.values():
            every |= {name: grid for name, grid in found.items() if every.get(name) is None}
        weights = weight_grids(self.model, anchors, every, self.numbers.weight_limit, self.per_channel)

        def apply(current: Model, cluster: Cluster) -> Model:
            shifts = {a.op.uid: self.means.shift(a, weights[a.weight], self.numbers) for a in cluster.anchors}
            known = {uid: shift for uid, shift in shifts.items() if shift is not None}
            for anchor in (a for a in cluster.anchors if a.bias is None and a.op.uid in known):
                current = bias.behind(current, anchor, known[anchor.op.uid])
            if cluster.dynamic:
                current = dynamic.apart(current, [anchor.op for anchor in cluster.anchors])
            return insert.quantise(current, cluster, grids[id(cluster)], weights, self.numbers, known)

        return apply

    def quantised(self, clusters: Sequence[Cluster]) -> Model:
        """The model with these clusters quantised."""
        return reduce(self.applying(clusters), clusters, self.model).swept()

    def _grids(self, cluster: Cluster) -> dict[str, Grid | None]:
        if cluster.dynamic:
            return dict.fromkeys(cluster.tensors)
        grids: dict[str, Grid | None] = {name: self.numbers.grid(*self.seen.ranges[name]) for name in cluster.tensors}
        for name, source in placement.handed_on(self.model, cluster).items():
            grids[name] = grids[source]
        return grids
