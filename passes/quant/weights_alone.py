"""Quantising weights alone: which products read theirs from blocks, as the gate decides."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from eopt.ir.model import Model
from eopt.passes.base import Change, Context, Outcome
from eopt.passes.quant import candidates, gptq, weight_only
from eopt.passes.quant.blocks import Blocks
from eopt.passes.quant.calibrate import streamed
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.scheme import WeightType
from eopt.passes.quant.weight_only import Form, Solve
from eopt.passes.rewrite import where

if TYPE_CHECKING:
    from eopt.passes.quant import Quant

RULE = "weight-only"


class Rounding(StrEnum):
    """Where a weight goes: to the nearest point, or to one that makes up for the errors before it."""

    RTN = "rtn"
    GPTQ = "gptq"


def quantised(options: Quant, model: Model, context: Context) -> Outcome:
    """The outcome of `quant{format=weight-only}`."""
    found, refused = candidates.find(model, options.ops, options.exclude)
    reasons = {anchor.op.uid: weight_only.problem(model, anchor) for anchor in found}
    refused += [Change(RULE, where(model, a.op), reason=reasons[a.op.uid]) for a in found if reasons[a.op.uid]]
    anchors = [anchor for anchor in found if not reasons[anchor.op.uid]]
    spec = _blocks(options)
    accepted, changes = _accepted(options, model, anchors, spec, context)
    applied = tuple(change for change in changes if not change.reason)
    refused += [change for change in changes if change.reason]
    if not accepted:
        return Outcome(model, refused=tuple(refused))
    solve = _solver(options, model, accepted, spec, context)
    result = weight_only.quantise(model, accepted, spec, options.form, solve=solve)
    return Outcome(result, applied, tuple(refused))


def _blocks(options: Quant) -> Blocks:
    bits = 4 if options.weight == WeightType.INT4 else 8
    return Blocks(bits, options.group or None, clip=bits == 4, signed_scales=options.form == Form.NBITS)


def _accepted(
    options: Quant, model: Model, anchors: Sequence[Anchor], spec: Blocks, context: Context
) -> tuple[list[Anchor], list[Change]]:
    """Products alike cost the same: the gate is asked once for each kind, about a single one of it."""
    if context.gate is None:
        return list(anchors), [Change(RULE, where(model, anchor.op)) for anchor in anchors]
    kinds: dict[Hashable, list[Anchor]] = {}
    for anchor in anchors:
        shape, read = model.value(anchor.weight).shape, model.value(anchor.data).shape
        kinds.setdefault((anchor.op.op, anchor.op.attrs, shape, read), []).append(anchor)
    accepted: list[Anchor] = []
    changes: list[Change] = []
    for number, alike in enumerate(kinds.values()):
        one = weight_only.quantise(model, alike[:1], replace(spec, clip=False), options.form)
        decision = context.gate.decide(model, one)
        accepted += [] if decision.reason else alike
        changes += [Change(RULE, where(model, a.op), decision.saved_j, decision.reason) for a in alike]
        context.progress("quant", number + 1, len(kinds))
    order = {anchor.op.uid: number for number, anchor in enumerate(anchors)}
    return sorted(accepted, key=lambda anchor: order[anchor.op.uid]), changes


def _solver(options: Quant, model: Model, anchors: Sequence[Anchor], spec: Blocks, context: Context) -> Solve | None:
    """How weights are rounded; None for the nearest point."""
    if options.rounding == Rounding.RTN:
        return None
    assert context.data is not None
    rows = {a.weight: (model.value(a.weight).shape or ())[0 if a.axis == 1 else 1] for a in anchors}
    seen = gptq.hessians(anchors, {name: int(count) for name, count in rows.items()})
    streamed(model, list(seen), context.data, context, lambda name, array: seen[name].update(array))
    return gptq.solver(anchors, seen, spec)
