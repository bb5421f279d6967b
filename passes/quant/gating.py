"""Accepting clusters on predicted joules, once for all clusters that look alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import reduce

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Change, Context, Outcome
from eopt.passes.gate import Decision
from eopt.passes.quant.placement import Cluster
from eopt.passes.quant.scheme import Format
from eopt.passes.rewrite import where

UNGATED = Decision(None)


def decide(
    model: Model, clusters: Sequence[Cluster], apply: Callable[[Model, Cluster], Model], context: Context
) -> Outcome:
    """Apply the clusters that the gate accepts, or all of them without a gate.

    Clusters of equal structure cost the same, so the gate is asked once per structure (a transformer has a handful,
    however deep it is) and the joules saved are shared out evenly.
    """
    kinds: dict[Hashable, list[Cluster]] = {}
    for cluster in clusters:
        kinds.setdefault(_structure(model, cluster), []).append(cluster)
    current = model
    applied: list[Change] = []
    refused: list[Change] = []
    for number, alike in enumerate(kinds.values()):
        candidate = reduce(apply, alike, current)
        decision = UNGATED if context.gate is None else context.gate.decide(current, candidate)
        saved_j = None if decision.saved_j is None else decision.saved_j / len(alike)
        changes = [Change(_rule(cluster), _where(model, cluster), saved_j, decision.reason) for cluster in alike]
        (refused if decision.reason else applied).extend(changes)
        current = current if decision.reason else candidate
        context.progress("quant", number + 1, len(kinds))
    return Outcome(current, tuple(applied), tuple(refused))


def _rule(cluster: Cluster) -> str:
    return (Format.DYNAMIC if cluster.dynamic else Format.STATIC).rule


def _structure(model: Model, cluster: Cluster) -> Hashable:
    return tuple(_signature(model, op) for op in (*(anchor.op for anchor in cluster.anchors), *cluster.bridges))


def _signature(model: Model, op: Op) -> Hashable:
    read = tuple(model.value(name).shape if name else None for name in op.inputs)
    return op.op, op.attrs, read, tuple(value.shape for value in op.outputs)


def _where(model: Model, cluster: Cluster) -> str:
    first, *others = cluster.anchors
    place = where(model, first.op)
    return f"{place} and {len(others)} more" if others else place
