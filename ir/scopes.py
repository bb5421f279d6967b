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
from itertools import count

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
        return None if _NO_MODULE in names else _from_dynamo(names, _text_list(metadata.get(_CLASSES_KEY, "")))
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


def _from_dynamo(names: list[str], classes: list[str]) -> Scope:
    """Dotted full names from the root ('') to the node itself, which is no module and is left out."""
    scope: list[tuple[str, str]] = []
    outer = ""
    for number, name in enumerate(names[:-1][:MAX_DEPTH]):
        relative = name.removeprefix(outer).lstrip(".") if outer else name
        cls = classes[number].rpartition(".")[2] if number < len(classes) else ""
        if relative:
            scope.append((relative.replace("/", "."), cls))
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
    """Scopes of all operators, in topological order: one that says nothing of itself gets what its neighbours share."""
    paths = dict(known)
    producers = {value.id: op.uid for op in ops for value in op.outputs}
    users: dict[str, list[int]] = {}
    for op in ops:
        for name in op.reads:
            users.setdefault(name, []).append(op.uid)
    for op in ops:
        if op.uid not in paths:
            around = [producers[name] for name in op.reads if name in producers]
            around += [uid for value in op.outputs for uid in users.get(value.id, ())]
            paths[op.uid] = shared([paths[uid] for uid in around if uid in paths])
    return paths
