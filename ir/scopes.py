"""Grow the module tree from what exporters record about the origin of each node.

Sources, best first: `eopt.scope` (our own output), `pkg.torch.onnx.name_scopes` with `class_hierarchy` (torch's dynamo
exporter), slash-separated node names (TorchScript exporter). A module whose nodes do not stand together in any
topological order is split into instances `layer#0`, `layer#1`.
"""

from __future__ import annotations

import ast
import heapq
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, zip_longest

from onnx import NodeProto

from eopt.ir.index import Index
from eopt.ir.node import Op, Region

MAX_DEPTH = 64
MAX_TEXT = 65536

Scope = tuple[tuple[str, str], ...]
"""Modules from the outside in, each as (name relative to its parent, class name)."""

OWN_KEY = "eopt.scope"
_INSTANCE = re.compile(r"#\d+$")
_NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"  # torch's placeholder for nodes it lost the module of
_NAMES_KEY = "pkg.torch.onnx.name_scopes"
_CLASSES_KEY = "pkg.torch.onnx.class_hierarchy"


def scope_of(node: NodeProto) -> Scope | None:
    """Where an exporter says a node comes from: () is the top level, None when it says nothing."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    if OWN_KEY in metadata:
        return parse_own(metadata[OWN_KEY])
    names = _text_list(metadata.get(_NAMES_KEY, ""))
    if names:
        classes = _text_list(metadata.get(_CLASSES_KEY, ""))
        return (
            None if _NO_MODULE in names else from_dotted(list(zip_longest(names, classes[: len(names)], fillvalue="")))
        )
    if "/" in node.name:
        parts = [part for part in node.name.split("/")[:-1] if part]
        return tuple((part, "") for part in parts[:MAX_DEPTH])
    return None


def parse_own(text: str) -> Scope:
    """Read `encoder:Encoder/layer.0:Layer` as written by `format_own`."""
    parts = [part.partition(":") for part in text[:MAX_TEXT].split("/") if part]
    return tuple((name, cls) for name, _, cls in parts[:MAX_DEPTH])


def format_own(scope: Scope) -> str:
    """Write a scope into one line of node metadata."""
    return "/".join(f"{name}:{cls}" for name, cls in scope)


def _text_list(text: str) -> list[str]:
    if not text.startswith("[") or len(text) > MAX_TEXT:
        return []
    try:
        parsed = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(item) for item in parsed]


def from_dotted(modules: Sequence[tuple[str, str]]) -> Scope:
    """(full dotted name, class) from the root ('') to the operator itself, which is no module and is left out."""
    scope: list[tuple[str, str]] = []
    outer = ""
    for name, cls in modules[:-1][:MAX_DEPTH]:
        relative = name.removeprefix(outer).lstrip(".") if outer else name
        if relative:
            scope.append((relative.replace("/", "."), cls.rpartition(".")[2]))
            outer = name
    return tuple(scope)


def scope_in(index: Index, uid: int) -> Scope:
    """The scope of a node already in a tree; instances of one module are that module again, and may reunite."""
    regions = reversed(index.ancestors(uid)[:-1])
    return tuple((_INSTANCE.sub("", region.name), region.cls) for region in regions)


def topological(ops: Sequence[Op], priority: Mapping[int, int] | None = None) -> tuple[Op, ...]:
    """Operators in topological order; among those ready, the lowest priority (default: current place) goes first.

    Raises:
        ValueError: the dataflow has a cycle.
    """
    rank = [priority[op.uid] if priority else number for number, op in enumerate(ops)]
    producers = {value.id: number for number, op in enumerate(ops) for value in op.outputs if value.id}
    users: dict[int, list[int]] = {}
    missing = [0] * len(ops)
    for number, op in enumerate(ops):
        needed = {producers[name] for name in op.reads if name in producers}
        missing[number] = len(needed)
        for producer in needed:
            users.setdefault(producer, []).append(number)
    ready = [(rank[number], number) for number, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    order: list[Op] = []
    while ready:
        number = heapq.heappop(ready)[1]
        order.append(ops[number])
        for user in users.get(number, ()):
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, (rank[user], user))
    if len(order) < len(ops):
        raise ValueError("the dataflow has a cycle")
    return tuple(order)


def grow(ops: Sequence[Op], scopes: Sequence[Scope], first_uid: int, cls: str = "") -> Region:
    """Build the tree over operators given in topological order, with their scopes."""
    uids = count(first_uid)
    root = Region(next(uids), "", cls)
    return replace(root, children=_grow(list(zip(ops, scopes, strict=True)), 0, uids))


_Placed = tuple[Op, Scope]


def _grow(placed: list[_Placed], depth: int, uids: Iterator[int]) -> tuple[Op | Region, ...]:
    """Children of one region: operators whose scope ends here, and one region for each module below."""
    children: list[Op | Region] = []
    for group in _contiguous(_grouped(placed, depth)):
        op, scope = group.members[0]
        if len(scope) <= depth:
            children.append(op)
            continue
        region = Region(next(uids), group.name, scope[depth][1])
        children.append(replace(region, children=_grow(group.members, depth + 1, uids)))
    return tuple(children)


@dataclass(frozen=True)
class _Group:
    """Operators that are to become one child."""

    name: str
    members: list[_Placed]


def _grouped(placed: list[_Placed], depth: int) -> list[_Group]:
    groups: dict[object, _Group] = {}
    for op, scope in placed:
        key, name = (scope[depth][0],) * 2 if len(scope) > depth else (op.uid, "")
        groups.setdefault(key, _Group(name, [])).members.append((op, scope))
    return list(groups.values())


def _contiguous(groups: list[_Group]) -> list[_Group]:
    """Groups in an order in which each can run at once; groups caught in a cycle are split where others intervene."""
    while True:
        ordered, stuck = _ordered(groups)
        if not stuck:
            return ordered
        groups = ordered + _split(stuck)


def _ordered(groups: list[_Group]) -> tuple[list[_Group], list[_Group]]:
    made = {value.id: number for number, group in enumerate(groups) for op, _ in group.members for value in op.outputs}
    needs = [
        {made[name] for op, _ in group.members for name in op.reads if name in made} - {number}
        for number, group in enumerate(groups)
    ]
    users: dict[int, list[int]] = {}
    for number, needed in enumerate(needs):
        for producer in needed:
            users.setdefault(producer, []).append(number)
    missing = [len(needed) for needed in needs]
    ready = [number for number, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        number = heapq.heappop(ready)
        order.append(number)
        for user in users.get(number, ()):
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    stuck = sorted(set(range(len(groups))) - set(order))
    return [groups[number] for number in order], [groups[number] for number in stuck]


def _split(stuck: list[_Group]) -> list[_Group]:
    """Cut one module into the runs that a topological order leaves whole: the one that falls into fewest pieces.

    Some group falls into two or more: were each contiguous in a topological order, they would not be stuck.
    """
    owner = {op.uid: number for number, group in enumerate(stuck) for op, _ in group.members}
    order = topological([op for group in stuck for op, _ in group.members])
    runs: list[list[list[int]]] = [[] for _ in stuck]
    previous = -1
    for op in order:
        number = owner[op.uid]
        if number != previous:
            runs[number].append([])
        runs[number][-1].append(op.uid)
        previous = number
    chosen = min((number for number in range(len(stuck)) if len(runs[number]) > 1), key=lambda n: len(runs[n]))
    members = {op.uid: (op, scope) for op, scope in stuck[chosen].members}
    pieces = [
        _Group(f"{stuck[chosen].name}#{piece}", [members[uid] for uid in run]) for piece, run in enumerate(runs[chosen])
    ]
    return [*(group for number, group in enumerate(stuck) if number != chosen), *pieces]


def shared(paths: Sequence[Scope]) -> Scope:
    """The longest scope all paths begin with; empty for none."""
    common: list[tuple[str, str]] = []
    for level in zip(*paths, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return tuple(common)


def inherited(ops: Sequence[Op], known: Mapping[int, Scope]) -> dict[int, Scope]:
    """Scopes of all operators, in topological order. One that says nothing of itself lies where the latest operator
    above it and the earliest below it that do say something both are; with only one side, what all of that share."""
    above, below = neighbours(ops)
    order = {op.uid: number for number, op in enumerate(ops)}
    forward, backward = [op.uid for op in ops], [op.uid for op in reversed(ops)]
    latest = _nearest(forward, above, known, order)
    earliest = _nearest(backward, below, known, {uid: -number for uid, number in order.items()})
    over, under = common(forward, above, known), common(backward, below, known)
    paths: dict[int, Scope] = {}
    for uid in forward:
        inside = uid in latest and uid in earliest
        between = shared([known[latest[uid]], known[earliest[uid]]]) if inside else over.get(uid, under.get(uid, ()))
        paths[uid] = known.get(uid, between)
    return paths


def neighbours(ops: Sequence[Op]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """By uid, the operators an operator reads from, and those that read from it."""
    producers = {value.id: op.uid for op in ops for value in op.outputs if value.id}
    above = {op.uid: [producers[name] for name in op.reads if name in producers] for op in ops}
    below: dict[int, list[int]] = {op.uid: [] for op in ops}
    for uid, sources in above.items():
        for source in sources:
            below[source].append(uid)
    return above, below


def common(uids: Sequence[int], sources: Mapping[int, list[int]], known: Mapping[int, Scope]) -> dict[int, Scope]:
    """What all operators with a scope that are reached through `sources` share; `uids` begin there."""
    reached: dict[int, Scope] = {}
    for uid in uids:
        ends = [reached[source] for source in sources[uid] if source in reached]
        if uid in known:
            reached[uid] = known[uid]
        elif ends:
            reached[uid] = shared(ends)
    return reached


def _nearest(
    uids: Sequence[int], sources: Mapping[int, list[int]], known: Mapping[int, Scope], rank: Mapping[int, int]
) -> dict[int, int]:
    """Of the operators reached through `sources` that have a scope, the one that ranks highest; `uids` begin there."""
    nearest: dict[int, int] = {}
    for uid in uids:
        reached = [nearest[source] for source in sources[uid] if source in nearest]
        if uid in known:
            nearest[uid] = uid
        elif reached:
            nearest[uid] = max(reached, key=rank.__getitem__)
    return nearest
