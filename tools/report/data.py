"""The report as plain data: what `report.json` holds and every other form of the report is made from.

Documented in docs/report.md; figures that are not known are null, never 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eopt.costmodel.query import Interval
from eopt.costmodel.tree import Priced, Situation, price
from eopt.ir.model import Model
from eopt.ir.node import Op, Region
from eopt.passes.base import Change
from eopt.passes.pipeline import Compiled, Step

SCHEMA = 1
EXAMPLES = 5

Json = dict[str, Any]


def compile_report(compiled: Compiled, pipeline: str, situation: Situation | None, source: str | Path) -> Json:
    """Everything about a compilation."""
    before, after = compiled.original, compiled.model
    return {
        "schema": SCHEMA,
        "kind": "compile",
        "model": {**_source(source), "before": _size(before), "after": _size(after)},
        "situation": _situation(situation),
        "pipeline": pipeline,
        "before": _priced(before, situation),
        "after": _priced(after, situation),
        "passes": _steps(compiled, situation),
    }


def predict_report(model: Model, priced: Priced, situation: Situation, source: str | Path) -> Json:
    """Everything about a prediction."""
    return {
        "schema": SCHEMA,
        "kind": "predict",
        "model": {**_source(source), "before": _size(model)},
        "situation": _situation(situation),
        "before": _tree(priced),
    }


def _source(source: str | Path) -> Json:
    path = Path(source)
    if not path.is_file():
        return {"path": str(source), "sha256": None}
    with path.open("rb") as handle:
        return {"path": str(source), "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}


def _size(model: Model) -> Json:
    weight_bytes = sum(model.weights.nbytes(name) for name in model.weights)
    return {"nodes": len(model.leaves()), "weight_bytes": weight_bytes}


def _situation(situation: Situation | None) -> Json | None:
    if situation is None:
        return None
    return {
        "target": situation.target.name,
        "target_model": situation.target.model,
        "executor": situation.executor.name,
        "bindings": dict(situation.bindings),
        "phase": situation.phase,
        "energy_scope": "package" if situation.target.kind == "cpu" else "board",
    }


def _priced(model: Model, situation: Situation | None) -> Json | None:
    return None if situation is None else _tree(price(model, situation))


def _tree(priced: Priced) -> Json:
    known = bool(priced.known)
    bases = sorted({str(cost.basis) for cost in priced.known.values()})
    return {
        "energy_j": _interval(priced.energy_j) if known else None,
        "latency_s": _interval(priced.latency_s) if known else None,
        "power_w": priced.power_w,
        "launch_share": priced.launch_share,
        "basis": bases,
        "terms": priced.terms,
        "assumptions": sorted({reason for cost in priced.known.values() for reason in cost.reasons}),
        "unknown": {
            "count": len(priced.unknown),
            "share": len(priced.unknown) / max(1, len(priced.costs)),
            "ops": [
                {**_name(priced.model, priced.model.index.op(uid)), "reasons": list(unknown.reasons)}
                for uid, unknown in priced.unknown.items()
            ],
        },
        "tree": _region(priced, priced.model.root),
    }


def _interval(interval: Interval) -> Json:
    return {"mid": interval.mid, "lo": interval.lo, "hi": interval.hi}


def _region(priced: Priced, region: Region) -> Json:
    energy_j, latency_s = priced.region(region)
    children = [_region(priced, c) if isinstance(c, Region) else _leaf(priced, c) for c in region.children]
    return {
        "name": region.name,
        "cls": region.cls,
        "energy_j": energy_j,
        "latency_s": latency_s,
        "children": children,
    }


def _leaf(priced: Priced, op: Op) -> Json:
    energy_j, latency_s = priced.shares.get(op.uid, (None, None))
    if op.uid in priced.free:
        energy_j, latency_s = 0.0, 0.0
    shape = op.outputs[0].shape if op.outputs else None
    return {
        **_name(priced.model, op),
        "uid": op.uid,
        "shape": [str(dim) for dim in shape] if shape is not None else None,
        "dtype": str(op.outputs[0].dtype) if op.outputs else None,
        "energy_j": energy_j,
        "latency_s": latency_s,
        "group": priced.group_of(op.uid),
        "basis": _basis(priced, op, energy_j),
    }


def _basis(priced: Priced, op: Op, energy_j: float | None) -> str:
    if op.uid in priced.free:
        return "free"
    if energy_j is None:
        return "unknown"
    return next((str(cost.basis) for cost in priced.known.values()), "unknown")


def _name(model: Model, op: Op) -> Json:
    return {"name": op.name or op.op, "op": f"{op.domain}.{op.op}" if op.domain else op.op, "path": model.path(op.uid)}


def _steps(compiled: Compiled, situation: Situation | None) -> list[Json]:
    steps, current = [], compiled.original
    for step in compiled.steps:
        following = step.outcome.model if step.kept else current
        steps.append(_step(step, current, following, situation))
        current = following
    return steps


def _step(step: Step, before: Model, after: Model, situation: Situation | None) -> Json:
    old = price(before, situation) if situation else None
    new = price(after, situation) if situation else None
    verdict = step.verdict
    return {
        "spec": step.spec,
        "kept": step.kept,
        "verdict": None if verdict is None else str(verdict),
        "broken_at": step.broken_at,
        "nodes": [len(before.leaves()), len(after.leaves())],
        "energy_j": [old.energy_j.mid, new.energy_j.mid] if old and new else None,
        "latency_s": [old.latency_s.mid, new.latency_s.mid] if old and new else None,
        "applied": _changes(step.outcome.applied if step.kept else ()),
        "refused": _changes(step.outcome.refused),
        "notes": list(step.outcome.notes),
    }


def _changes(changes: Sequence[Change]) -> list[Json]:
    """Changes by rule and reason, with their number, joules and a few places."""
    grouped: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        grouped.setdefault((change.rule, change.reason), []).append(change)
    return [
        {
            "rule": rule,
            "reason": reason,
            "count": len(found),
            "saved_j": _saved(found),
            "where": [change.where for change in found[:EXAMPLES]],
        }
        for (rule, reason), found in grouped.items()
    ]


def _saved(changes: Sequence[Change]) -> float | None:
    known = [change.saved_j for change in changes if change.saved_j is not None]
    return sum(known) if known else None


def operators(tree: Json) -> list[Json]:
    """Leaves of a reported tree, in execution order."""
    found: list[Json] = []
    stack = [tree]
    while stack:
        node = stack.pop()
        if "children" in node:
            stack.extend(reversed(node["children"]))
        else:
            found.append(node)
    return found


def modules(tree: Json) -> list[tuple[str, Json]]:
    """Regions of a reported tree below the root, with their paths."""
    found: list[tuple[str, Json]] = []
    stack: list[tuple[str, Json]] = [("", tree)]
    while stack:
        path, node = stack.pop()
        for child in node["children"]:
            if "children" in child:
                below = f"{path}/{child['name']}".lstrip("/")
                found.append((below, child))
                stack.append((below, child))
    return found
