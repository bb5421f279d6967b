"""Quantising activations and weights: which operators, on which grids, under the gate and the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.passes.base import Change, Context, Outcome
from eopt.passes.quant import budget, candidates, dynamic, gating, placement, smooth
from eopt.passes.quant.bias import Means
from eopt.passes.quant.build import Builder
from eopt.passes.quant.calibrate import Calibration, streamed
from eopt.passes.quant.candidates import RULE, Anchor
from eopt.passes.quant.choices import Choices, formats_of
from eopt.passes.quant.choose.problem import FLOAT
from eopt.passes.quant.observers import Observing
from eopt.passes.quant.range_store import calibrated
from eopt.passes.quant.scheme import Format, Place, Scheme, WeightType, scheme
from eopt.passes.rewrite import where

if TYPE_CHECKING:
    from eopt.passes.quant import Quant


@dataclass(frozen=True, eq=False)
class _Found:
    """What can be quantised in a model made ready for it, and what cannot, with reasons."""

    choices: Choices
    refused: tuple[Change, ...]


def quantised(options: Quant, model: Model, context: Context) -> Outcome:
    """The outcome of `quant` where activations are quantised too."""
    numbers = scheme(options.weight, options.activation, context.target, context.executor)
    ready = _prepared(options, model, context)
    found = _found(options, ready, numbers, context)
    outcome = _placed(options, found.choices, context)
    if not outcome.applied:
        outcome = replace(outcome, model=model)
    applied, refused = outcome.applied, (*found.refused, *outcome.refused)
    if options.weight == WeightType.FLOAT8:
        applied, refused = _named_float8(applied), _named_float8(refused)
    return replace(outcome, applied=applied, refused=refused)


def _named_float8(changes: Sequence[Change]) -> tuple[Change, ...]:
    return tuple(replace(change, rule=str(WeightType.FLOAT8)) for change in changes)


def _prepared(options: Quant, model: Model, context: Context) -> Model:
    """The same function in a form that suffers less from quantisation, or can be quantised at all."""
    if Format.DYNAMIC in options.formats:
        model = dynamic.split(model)
    if not options.smooth or context.data is None:
        return model
    anchors, _ = candidates.find(model, options.ops, options.exclude)
    return smooth.smoothed(model, smooth.groups(model, anchors), context.data, context, options.smooth)


def _found(options: Quant, model: Model, numbers: Scheme, context: Context) -> _Found:
    anchors, refused = candidates.find(model, options.ops, options.exclude)
    formats = frozenset(options.formats)
    unable = [anchor for anchor in anchors if not formats & formats_of(anchor.op)]
    anchors = [anchor for anchor in anchors if formats & formats_of(anchor.op)]
    refused += [Change(RULE, where(model, a.op), reason=dynamic.problem(a.op)) for a in unable]
    static = anchors if Format.STATIC in formats else []
    seen = _observed(options, numbers, model, static, context)
    fit, unfit = _usable(model, static, seen.unusable)
    bridges = placement.possible_bridges(model, fit, frozenset(seen.unusable))
    kept = fit if Format.DYNAMIC not in formats else anchors
    means = Means(model, tuple(kept) if options.bias_correction else ())
    if means.anchors:
        assert context.data is not None
        streamed(model, means.tensors, context.data, context, means.take)
    builder = Builder(model, seen, numbers, options.per_channel, means)
    choices = Choices(builder, tuple(kept), tuple(bridges), options.formats, frozenset(a.op.uid for a in fit))
    return _Found(choices, (*refused, *(unfit if Format.DYNAMIC not in formats else ())))


def _observed(
    options: Quant, numbers: Scheme, model: Model, anchors: Sequence[Anchor], context: Context
) -> Calibration:
    if not anchors:
        return Calibration({}, {})
    assert context.data is not None
    every = placement.clusters(model, anchors, bridges=placement.possible_bridges(model, anchors, frozenset()))
    wanted = {name for cluster in every for name in cluster.tensors}
    make = Observing(options.observer, options.percentile, numbers.symmetric)
    return calibrated(model, sorted(wanted), context.data, context, make)


def _usable(model: Model, anchors: Sequence[Anchor], unusable: Mapping[str, str]) -> tuple[list[Anchor], list[Change]]:
    """Anchors all of whose tensors have a range, and refusals of the others."""
    usable: list[Anchor] = []
    refused: list[Change] = []
    for anchor in anchors:
        reasons = [unusable[name] for name in sorted(placement.touched(model, anchor)) if name in unusable]
        if reasons:
            refused.append(Change(RULE, where(model, anchor.op), reason=reasons[0]))
        else:
            usable.append(anchor)
    return usable, refused


def _placed(options: Quant, choices: Choices, context: Context) -> Outcome:
    if options.place == Place.COST:
        if context.gate is None:
            raise UsageError("quant{place=cost} weighs joules: give a --target, and leave out --no-gate")
        return _chosen(choices, context)
    outcome = _all(choices, context)
    accurate = not outcome.applied or context.check is None or context.check(outcome.model).holds
    return outcome if accurate or context.data is None else _chosen(choices, context)


def _all(choices: Choices, context: Context) -> Outcome:
    """Everything that can be, each cluster as the gate decides."""
    model = choices.model
    if choices.formats == (Format.DYNAMIC,):
        clusters = placement.dynamic_clusters(choices.anchors)
    else:
        clusters = placement.clusters(model, choices.anchors, frozenset(choices.builder.seen.unusable))
    outcome = gating.decide(model, clusters, choices.builder.applying(clusters), context)
    return replace(outcome, model=outcome.model.swept())


def _chosen(choices: Choices, context: Context) -> Outcome:
    """What is chosen to cost least under the contract; the gate has the last word on the whole."""
    model, gate = choices.model, context.gate
    energy_j: Callable[[Model], float | None] = lambda other: gate.compare(model, other).after_j if gate else None
    problem = choices.problem(gate.kernels if gate else None)
    found = budget.held(choices, problem, context, energy_j)
    low = {key: option.name for key, option in found.assignment.items() if option.name != FLOAT}
    ops = {anchor.op.uid: anchor.op for anchor in choices.anchors}
    kept = "in float it is predicted to use no more joules, or is needed for accuracy"
    refused = tuple(Change(RULE, where(model, op), reason=kept) for uid, op in ops.items() if uid not in low)
    applied = tuple(Change(Format(low[uid]).rule, where(model, op)) for uid, op in ops.items() if uid in low)
    if gate is None or not applied:
        return Outcome(found.model, applied, refused, trials=found.trials)
    decision = gate.decide(model, found.model)
    if decision.reason:
        reasoned = tuple(replace(change, reason=decision.reason) for change in applied)
        return Outcome(model, (), (*refused, *reasoned), trials=tuple(replace(t, chosen=False) for t in found.trials))
    each_j = None if decision.saved_j is None else decision.saved_j / len(applied)
    shared = tuple(replace(change, saved_j=each_j) for change in applied)
    return Outcome(found.model, shared, refused, trials=found.trials)
