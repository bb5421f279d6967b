"""Modules of a graph whose nodes and weights are anonymous: regions between dominators, and blocks that repeat.

A position in a topological order at which a single computed value is live separates a dominator from a post-dominator:
everything later depends on everything earlier through that value alone, so what lies between two such positions has
one entry and one exit (https://doi.org/10.1145/178243.178258). Masks and position tables, which all layers read, do
not count; where two streams run side by side, their number takes the place of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate

import numpy as np

from eopt.ir.node import Op
from eopt.ir.scopes import Scope, common, neighbours
from eopt.ir.weights import WeightStore

MIN_OPERATORS = 2  # a region of one operator says nothing
MIN_BLOCK = 4  # operators of a block; two Relu in a row are no layers
PERIODS = 32  # candidates for the length of a repeated block
LONG = 0.4  # of the graph: of L layers a residual spans less than 1 / L, what all layers read at least (L - 1) / L
MAX_STAGES = 8  # stretches of different repeats one after the other, as the stages of a convolutional network

Kinds = np.ndarray[tuple[int], np.dtype[np.int64]]


def block_scopes(ops: Sequence[Op], weights: WeightStore) -> dict[int, Scope]:
    """Scopes of operators in topological order, by uid: `block.N` for repeats, `region.N` within and between them."""
    steering = _steering(ops, weights)
    groups = [[op for op in group if op.uid not in steering] for group in _regions(ops, steering)]
    kinds = _numbered([tuple(_kind(op) for op in group) for group in groups])
    sizes = np.array([len(group) for group in groups])
    scopes: dict[int, Scope] = {}
    blocks = regions = 0
    for start, period, count in _stretches(kinds, sizes):
        for first in range(start, start + period * count, period):
            outer: Scope = ((f"block.{blocks}", ""),) if count > 1 else ()
            members = groups[first : first + period]
            scopes.update(_named(members, outer, 0 if outer else regions))
            blocks += bool(outer)
            regions += 0 if outer else sum(len(group) >= MIN_OPERATORS for group in members)
    below = common([op.uid for op in reversed(ops)], neighbours(ops)[1], scopes)
    return {op.uid: below.get(op.uid, ()) for op in ops}


def _named(groups: Sequence[Sequence[Op]], outer: Scope, number: int) -> Iterator[tuple[int, Scope]]:
    """A region for each group worth one; a block that is one region needs no second name."""
    for group in groups:
        wide = len(group) >= MIN_OPERATORS and (not outer or len(groups) > 1)
        yield from ((op.uid, (*outer, (f"region.{number}", "")) if wide else outer) for op in group)
        number += wide


def _kind(op: Op) -> Hashable:
    return op.domain, op.op, len(op.inputs), tuple(op.attrs)


def _steering(ops: Sequence[Op], weights: WeightStore) -> set[int]:
    """Operators that compute shapes, masks and positions: nothing above them reads a parameter or the data of one.

    Exporters share them between layers as it happens, so they would blur what repeats.
    """
    parametric = any(weights.is_parameter(name) for op in ops for name in op.reads)
    made = {value.id for op in ops for value in op.outputs}
    found: set[int] = set()
    data: set[str] = set()
    for op in ops:
        begins = any(weights.is_parameter(name) if parametric else name not in made for name in op.reads)
        if op.op in ("Shape", "Size") or not (begins or data.intersection(op.reads)):
            found.add(op.uid)
        else:
            data.update(value.id for value in op.outputs)
    return found


def _regions(ops: Sequence[Op], steering: set[int]) -> list[Sequence[Op]]:
    """Operators between neighbouring cuts."""
    live = _live(ops, steering)
    inner = live[len(live) // 4 : 3 * len(live) // 4] or live or [1]
    least = max(1, min(inner))
    groups, start = [], 0
    for end, (op, count) in enumerate(zip(ops, live, strict=True), start=1):
        if (count <= least and op.uid not in steering) or end == len(ops):
            groups.append(ops[start:end])
            start = end
    return groups


def _live(ops: Sequence[Op], steering: set[int]) -> list[int]:
    """Behind each operator, how many computed values that carry data are still to be read.

    What stays live over much of the graph, as a table of rotary positions, crosses every boundary and is not counted.
    """
    rank = list(accumulate(op.uid not in steering for op in ops))
    last: dict[str, int] = {}
    for number, op in enumerate(ops):
        last.update((name, number) for name in op.reads)
    change = [0] * (len(ops) + 1)
    for number, op in enumerate(ops):
        ends = [last[value.id] for value in op.outputs if value.id in last and op.uid not in steering]
        for end in ends:
            if rank[end] - rank[number] <= LONG * rank[-1]:
                change[number] += 1
                change[end] -= 1
    return list(accumulate(change[:-1]))


def _numbered(items: Sequence[Hashable]) -> Kinds:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(item, len(numbers)) for item in items], np.int64)


def _stretches(kinds: Kinds, sizes: Kinds, offset: int = 0, depth: int = 0) -> list[tuple[int, int, int]]:
    """Cut a sequence into repeats, the one that covers most first: (start, period, count) from left to right.

    What repeats nothing is one stretch with count 1.
    """
    start, period, count = _longest_repeat(kinds, sizes) if depth < MAX_STAGES else (0, len(kinds), 1)
    if count == 1:
        return [(offset, len(kinds), 1)] if len(kinds) else []
    end = start + period * count
    before = _stretches(kinds[:start], sizes[:start], offset, depth + 1)
    behind = _stretches(kinds[end:], sizes[end:], offset + end, depth + 1)
    return [*before, (offset + start, period, count), *behind]


def _longest_repeat(kinds: Kinds, sizes: Kinds) -> tuple[int, int, int]:
    """The repeat with the most operators, of those the one with the shortest period."""
    covered, best = 0, (0, len(kinds), 1)
    operators = np.concatenate(([0], np.cumsum(sizes)))
    for period in _periods(kinds):
        same = np.concatenate(([0], kinds[:-period] == kinds[period:], [0])).astype(np.int8)
        edges = np.diff(same)
        for first, last in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
            count = int((last - first) // period + 1)
            inside = int(operators[first + period * count] - operators[first])
            if count == 1 or inside < count * MIN_BLOCK or inside < covered:
                continue
            if inside > covered or period < best[1]:
                covered, best = inside, (int(first), period, count)
    return best


def _periods(kinds: Kinds) -> list[int]:
    """Distances at which items come back, the most frequent ones."""
    gaps: Counter[int] = Counter()
    last: dict[int, int] = {}
    for number, kind in enumerate(kinds.tolist()):
        if kind in last:
            gaps[number - last[kind]] += 1
        last[kind] = number
    return [gap for gap, _ in gaps.most_common(PERIODS)]
