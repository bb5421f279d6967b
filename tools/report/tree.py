"""The priced operator tree as nested plain data, and the flat views of it that tables show."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from math import isfinite
from typing import Any

from eopt.costmodel.query import Cost, Unknown
from eopt.costmodel.tree import Priced
from eopt.ir.node import Op, Region
from eopt.ir.repeats import repeats

Json = dict[str, Any]


def finite(value: float) -> float | None:
    """None where infinite or not a number, which JSON has no way to write."""
    return value if isfinite(value) else None


FREE = "free"  # executes nothing: its 0 J is a figure, not a gap


def annotated(priced: Priced) -> Json:
    """The tree with joules, seconds and share of the total on every node; what is not known is None."""
    first = {uid: uids[0] for uids in priced.model.get(repeats).values() for uid in uids}
    root = _region(priced, priced.model.root, _kernels(priced), first)
    _share(root, root["energy_j"])
    return root


def _kernels(priced: Priced) -> dict[int, int]:
    """By uid of an executed operator, that of the kernel it runs in: its own, or the first of its fused group."""
    own = {uid: uid for uid in priced.costs}
    return own | {op.uid: first for first, group in priced.groups.items() for op in group.members}


def _region(priced: Priced, region: Region, kernels: dict[int, int], first: dict[int, int]) -> Json:
    children = [
        _region(priced, child, kernels, first) if isinstance(child, Region) else _leaf(priced, child, kernels)
        for child in region.children
    ]
    return {
        "name": region.name,
        "cls": region.cls,
        "uid": region.uid,
        "kind": str(region.kind),
        "alike": first.get(region.uid),
        "energy_j": _sum(children, "energy_j"),
        "latency_s": _sum(children, "latency_s"),
        **_parts(children),
        "unknown": sum(child["unknown"] if "children" in child else child["basis"] == "unknown" for child in children),
        "children": children,
    }


def _leaf(priced: Priced, op: Op, kernels: dict[int, int]) -> Json:
    kernel = None if op.uid in priced.free else kernels.get(op.uid)
    cost = None if kernel is None else priced.costs.get(kernel)
    energy_j, latency_s = (0.0, 0.0) if op.uid in priced.free else priced.shares.get(op.uid, (None, None))
    first = op.outputs[0] if op.outputs else None
    return {
        "name": op.name or op.op,
        "op": f"{op.domain}.{op.op}" if op.domain else op.op,
        "uid": op.uid,
        "shape": None if first is None or first.shape is None else [str(dim) for dim in first.shape],
        "dtype": None if first is None or first.dtype is None else str(first.dtype),
        "energy_j": energy_j,
        "latency_s": latency_s,
        **_own_parts(priced, op),
        "basis": FREE if op.uid in priced.free else str(cost.basis) if isinstance(cost, Cost) else "unknown",
        "group": priced.group_of(op.uid) or None,
        "kernel": kernel,
        "reasons": list(cost.reasons) if isinstance(cost, Unknown) else [],
    }


def _own_parts(priced: Priced, op: Op) -> Json:
    """Of a step of training, joules and seconds by part; a part that does not run here is 0, an unknown one None."""
    if not priced.parts:
        return {}
    known = op.uid in priced.free or op.uid in priced.shares
    missing = (0.0, 0.0) if known else (None, None)
    figures = {name: shares.get(op.uid, missing) for name, shares in priced.part_shares.items()}
    return {"parts": {name: {"energy_j": joules, "latency_s": s} for name, (joules, s) in figures.items()}}


def _parts(nodes: Sequence[Json]) -> Json:
    """The sums of the parts of nodes, where they have any."""
    held = [node["parts"] for node in nodes if "parts" in node]
    if not held:
        return {}
    return {
        "parts": {
            name: {key: _sum([parts[name] for parts in held], key) for key in ("energy_j", "latency_s")}
            for name in held[0]
        }
    }


def _sum(children: Sequence[Json], key: str) -> float | None:
    """The known part; None when there is none."""
    known = [child[key] for child in children if child[key] is not None]
    return sum(known) if known else None


def _share(node: Json, whole: float | None) -> None:
    node["share"] = node["energy_j"] / whole if whole and node["energy_j"] is not None else None
    for child in node.get("children", ()):
        _share(child, whole)


def folded(alike: Sequence[Json]) -> Json:
    """Modules built alike as one, with their sums; `count` says how many siblings each node below stands for."""
    inner = [[child for child in node["children"] if "children" in child] for node in alike]
    places: dict[Hashable, list[int]] = {}
    for place, child in enumerate(inner[0]):
        same = child["alike"]
        places.setdefault(("alone", place) if same is None else same, []).append(place)
    sums = {key: _sum(alike, key) for key in ("energy_j", "latency_s", "share")}
    children = [
        _named(inner[0], group, folded([node[place] for node in inner for place in group])) for group in places.values()
    ]
    unknown = sum(node["unknown"] for node in alike)
    return {**alike[0], **sums, **_parts(alike), "unknown": unknown, "count": 1, "children": children}


def _named(siblings: Sequence[Json], places: Sequence[int], node: Json) -> Json:
    first, last = siblings[places[0]]["name"], siblings[places[-1]]["name"]
    return {**node, "name": first if len(places) == 1 else f"{first} to {last}", "count": len(places)}


def walk(tree: Json) -> Iterator[tuple[str, Json]]:
    """Nodes below the root with the path of the module they lie in, in execution order, parents first."""
    stack = [("", child) for child in reversed(tree["children"])]
    while stack:
        path, node = stack.pop()
        yield path, node
        below = path_of(path, node)
        stack.extend((below, child) for child in reversed(node.get("children", ())))


def path_of(path: str, node: Json) -> str:
    """Path of a node from that of the module around it."""
    return f"{path}/{node['name']}" if path else str(node["name"])


def operators(tree: Json) -> list[Json]:
    """Leaves in execution order, each with the `path` of its module."""
    return [{**node, "path": path} for path, node in walk(tree) if "children" not in node]


def modules(tree: Json) -> list[tuple[str, Json]]:
    """Regions below the root, with their own paths."""
    return [(path_of(path, node), node) for path, node in walk(tree) if "children" in node]


def kernels(tree: Json) -> list[Json]:
    """What is executed at once, the most joules first: fused groups merged under their most expensive operator."""
    grouped: dict[int, list[Json]] = {}
    for op in operators(tree):
        if op["kernel"] is not None and op["energy_j"] is not None:
            grouped.setdefault(op["kernel"], []).append(op)
    merged = [_merged(members) for members in grouped.values()]
    return sorted(merged, key=lambda kernel: -kernel["energy_j"])


def folded_kernels(tree: Json) -> list[Json]:
    """Kernels of modules that are built alike as one, with their sums; `count` says how many, `path` is the first's."""
    canonical = _canonical(tree)
    groups: dict[Hashable, list[Json]] = {}
    for kernel in kernels(tree):
        groups.setdefault(canonical[kernel["uid"]], []).append(kernel)
    return sorted(map(_merged_kernels, groups.values()), key=lambda kernel: -kernel["energy_j"])


def _canonical(tree: Json) -> dict[int, Hashable]:
    """By uid of an operator, its place in the first of the modules built like its own."""
    places: dict[int, Hashable] = {}
    stack: list[tuple[Hashable, Json]] = [((), tree)]
    while stack:
        place, node = stack.pop()
        first: dict[int, int] = {}
        for number, child in enumerate(node["children"]):
            if "children" in child:
                alike = child["alike"]
                stack.append(((place, number if alike is None else first.setdefault(alike, number)), child))
            else:
                places[child["uid"]] = (place, number)
    return places


def _merged_kernels(alike: Sequence[Json]) -> Json:
    first = min(alike, key=lambda kernel: kernel["uid"])
    return {**first, **{key: _sum(alike, key) for key in ("energy_j", "latency_s", "share")}, "count": len(alike)}


def _merged(members: list[Json]) -> Json:
    chief = max(members, key=lambda op: op["energy_j"])
    shares = [op["share"] for op in members if op["share"] is not None]
    return {
        **chief,
        "energy_j": sum(op["energy_j"] for op in members),
        "latency_s": sum(op["latency_s"] for op in members),
        "share": sum(shares) if shares else None,
        "members": len(members),
    }
