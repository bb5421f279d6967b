"""The report as plain data: what `report.json` holds and every other form of the report is made from.

Documented in docs/report.md, checked by schema.json. Figures that are not known are null, never 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eopt.costmodel.costs import total
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Cost, Interval, Unknown
from eopt.costmodel.registry import Foreign
from eopt.costmodel.training import TRAINING
from eopt.costmodel.tree import Priced, Situation, price
from eopt.ir.model import Model
from eopt.passes.base import Change
from eopt.passes.contract import Verdict
from eopt.passes.pipeline import Compiled, Step
from eopt.tools.report import frontier, notices
from eopt.tools.report.tree import Json, annotated, finite

SCHEMA = 1
EXAMPLES = 5


def compile_report(compiled: Compiled, pipeline: str, situation: Situation | None, source: str | Path) -> Json:
    """Everything about a compilation. `pipeline` is its normal form; without a situation all costs are None."""
    before, after = compiled.original, compiled.model
    report: Json = {
        "schema": SCHEMA,
        "kind": "compile",
        "model": {**_source(source), "before": _size(before), "after": _size(after)},
        "situation": _situation(situation),
        "pipeline": pipeline,
        "before": _priced(before, situation),
        "after": _priced(after, situation),
        "passes": _steps(compiled, situation),
    }
    return {**report, "warnings": notices.of_compilation(report)}


def predict_report(
    model: Model, priced: Priced, situation: Situation, source: str | Path, usage: Json | None = None
) -> Json:
    """Everything about the prediction of one model; `usage` as `report.usage` makes it."""
    described, side = _situation(situation), _side(priced)
    return {
        "schema": SCHEMA,
        "kind": "predict",
        "model": {**_source(source), "before": _size(model)},
        "situation": described,
        "before": side,
        **(usage or {}),
        "warnings": notices.of_prices(described or {}, side),
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
        "clock_mhz": None if situation.target.clock_hz is None else situation.target.clock_hz / 1e6,
        "power_cap_w": situation.target.power_cap_w,
        "executor": situation.executor.name,
        "launches": "graph" if situation.executor.captured else "host",
        "bindings": dict(situation.bindings),
        "phase": situation.phase,
        "optimizer": situation.optimizer if situation.phase == TRAINING else None,
        "cost_model": situation.cost_model.name if isinstance(situation.cost_model, Foreign) else None,
        "energy_scope": "package" if situation.target.kind == "cpu" else "board",
        "imputed": sorted(situation.target.imputed),
    }


def _priced(model: Model, situation: Situation | None) -> Json | None:
    return None if situation is None else _side(price(model, situation))


def _side(priced: Priced) -> Json:
    """Totals and tree of one model."""
    known = list(priced.known.values())
    return {
        "energy_j": interval(priced.energy_j) if known else None,
        "latency_s": interval(priced.latency_s) if known else None,
        "power_w": priced.power_w,
        "launch_share": priced.launch_share,
        "launch_j": priced.launch_j if known else None,
        "operators": _part(priced.costs),
        "residual": _residual(priced),
        "learned": _learned(priced),
        "parts": {name: _part(costs) for name, costs in priced.parts.items()} or None,
        "basis": sorted({str(cost.basis) for cost in known}),
        "terms": priced.terms,
        "assumptions": sorted({reason for cost in known for reason in cost.reasons}),
        "unknown": _unknown(priced),
        "tree": annotated(priced),
    }


def interval(figure: Interval) -> Json:
    """A figure with the bounds of its 90 % interval."""
    return {"mid": figure.mid, "lo": figure.lo, "hi": figure.hi}


def _residual(priced: Priced) -> Json | None:
    """What the whole takes beyond the sum of its operators, which may be less; None where that sum is all there is."""
    if priced.whole is None:
        return None
    return {
        "energy_j": priced.energy_j.mid - priced.operators_j.mid,
        "latency_s": priced.latency_s.mid - priced.operators_s.mid,
    }


def _learned(priced: Priced) -> Json | None:
    """What the cost model says beyond the physics prior; None where that answers itself, or for other operators."""
    if isinstance(priced.situation.cost_model, Prior) or not priced.known:
        return None
    prior = price(priced.model, replace(priced.situation, cost_model=Prior()))
    if prior.known.keys() != priced.known.keys():
        return None
    energy_j, latency_s = prior.operators_j.mid, prior.operators_s.mid
    return {"energy_j": priced.operators_j.mid - energy_j, "latency_s": priced.operators_s.mid - latency_s}


def _part(costs: Mapping[int, Cost | Unknown]) -> Json | None:
    known = [cost for cost in costs.values() if isinstance(cost, Cost)]
    if not known:
        return None
    return {
        "energy_j": interval(total([cost.energy_j for cost in known])),
        "latency_s": interval(total([cost.latency_s for cost in known])),
    }


def _unknown(priced: Priced) -> Json:
    """What could not be priced; `share` is that of the kernels, as their joules are unknown."""
    ops = []
    for uid, unknown in priced.unknown.items():
        op = priced.model.index.op(uid)
        kind = f"{op.domain}.{op.op}" if op.domain else op.op
        path = priced.model.path(uid)
        ops.append({"name": op.name or op.op, "op": kind, "path": path, "reasons": list(unknown.reasons)})
    return {"count": len(ops), "share": len(ops) / len(priced.costs) if priced.costs else 0.0, "ops": ops}


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
    priced = bool(old and new and old.known and new.known)
    return {
        "spec": step.spec,
        "kept": step.kept,
        "verdict": None if step.verdict is None else _verdict(step.verdict),
        "broken_at": step.broken_at,
        "nodes": [len(before.leaves()), len(after.leaves())],
        "energy_j": [old.energy_j.mid, new.energy_j.mid] if old and new and priced else None,
        "latency_s": [old.latency_s.mid, new.latency_s.mid] if old and new and priced else None,
        "applied": _changes(step.outcome.applied if step.kept else ()),
        "refused": _changes(step.outcome.refused),
        "notes": list(step.outcome.notes),
        **frontier.described(step.outcome.trials),
    }


def _verdict(verdict: Verdict) -> Json:
    """An infinite figure (no difference at all) is None, as JSON has no infinity; `text` says it."""
    return {
        "holds": verdict.holds,
        "measured": finite(verdict.measured),
        "required": finite(verdict.required),
        "unit": verdict.unit,
        "output": verdict.output,
        "text": str(verdict),
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
