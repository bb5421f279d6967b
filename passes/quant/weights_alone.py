"""Quantising weights alone: which products read theirs from blocks, and of how many bits."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from eopt.ir.model import Model
from eopt.ir.types import numel
from eopt.passes.base import Change, Context, Outcome
from eopt.passes.quant import budget, candidates, gptq, weight_only
from eopt.passes.quant.blocks import Blocks
from eopt.passes.quant.calibrate import streamed
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.choose.problem import FLOAT, Assignment, Option, Problem, Site
from eopt.passes.quant.choose.problem import Form as Travels
from eopt.passes.quant.gptq import Hessian
from eopt.passes.quant.scheme import WeightType, on_accelerator
from eopt.passes.quant.weight_only import Form
from eopt.passes.rewrite import where

if TYPE_CHECKING:
    from eopt.passes.quant import Quant

RULE = "weight-only"
HESSIAN_BYTES = 1 << 30  # of GPTQ at once; the model runs again for every further gigabyte


class Rounding(StrEnum):
    """Where a weight goes: to the nearest point, or to one that makes up for the errors before it; auto is the second
    where there are samples."""

    AUTO = "auto"
    RTN = "rtn"
    GPTQ = "gptq"


def quantised(options: Quant, model: Model, context: Context) -> Outcome:
    """The outcome of `quant{format=weight-only}`: every weight in the bits asked for, and where that is too few for the
    contract, some in more."""
    found, unable = candidates.find(model, options.ops, options.exclude)
    refused = [replace(change, rule=RULE) for change in unable]
    reasons = {anchor.op.uid: weight_only.problem(model, anchor) for anchor in found}
    refused += [Change(RULE, where(model, a.op), reason=reasons[a.op.uid]) for a in found if reasons[a.op.uid]]
    anchors, changes = _accepted(options, model, [a for a in found if not reasons[a.op.uid]], context)
    refused += [change for change in changes if change.reason]
    if not anchors:
        return Outcome(model, refused=tuple(refused))
    samples = context if options.rounding != Rounding.RTN and context.data is not None else None
    weights = _Weights(model, tuple(anchors), _specs(options, context), options.form, samples)
    every = weights.built(dict.fromkeys(weights.sites, weights.options[0]))
    if context.check is None or context.check(every).holds:
        return Outcome(every, tuple(change for change in changes if not change.reason), tuple(refused))
    return _held(weights, context, refused)


def _specs(options: Quant, context: Context) -> dict[str, Blocks]:
    """Grids by name, the coarsest first; 8 bits to fall back to."""
    group, symmetric = options.group or None, not options.zero_points
    signed = options.form == Form.NBITS or not on_accelerator(context.target, context.executor)
    signed = signed and symmetric
    specs = {WeightType.INT8: Blocks(8, group, symmetric, clip=False, signed_scales=signed)}
    if options.weight == WeightType.INT4:
        specs = {WeightType.INT4: Blocks(4, group, symmetric, signed_scales=signed), **specs}
    return {str(name): spec for name, spec in specs.items()}


@dataclass(frozen=True, eq=False)
class _Weights:
    """Products by the weight they read: one that is tied has one precision. See `Buildable`.

    Attributes:
        samples: where GPTQ finds them; None where weights go to the nearest point.
    """

    model: Model
    anchors: tuple[Anchor, ...]
    specs: Mapping[str, Blocks]
    form: Form
    samples: Context | None

    @property
    def sites(self) -> dict[int, list[Anchor]]:
        """Products by the uid of the first that reads their weight."""
        by_weight: dict[str, list[Anchor]] = {}
        for anchor in self.anchors:
            by_weight.setdefault(anchor.weight, []).append(anchor)
        return {alike[0].op.uid: alike for alike in by_weight.values()}

    @property
    def options(self) -> list[Option]:
        """Precisions, the coarsest first."""
        return [Option(name, Travels.FLOAT, Travels.FLOAT, 0.0) for name in (*self.specs, FLOAT)]

    def built(self, chosen: Assignment) -> Model:
        """The model with the weights of an assignment in blocks."""
        model = self.model
        for name, spec in self.specs.items():
            sites = [alike for key, alike in self.sites.items() if key in chosen and chosen[key].name == name]
            for anchors in self._together(sites):
                solve = None if self.samples is None else gptq.solver(anchors, self._seen(anchors, self.samples), spec)
                model = weight_only.quantise(model, anchors, spec, self.form, solve=solve)
        return model

    def written(self, key: int) -> tuple[str, ...]:
        """See `Buildable.written`."""
        return tuple(anchor.op.output for anchor in self.sites[key])

    def _together(self, sites: Sequence[list[Anchor]]) -> list[list[Anchor]]:
        """Products to quantise at once: all of them, or with GPTQ as many as `HESSIAN_BYTES` allows."""
        groups: list[list[Anchor]] = []
        room = 0
        for anchors in sites:
            needed = sum(4 * _rows(self.model, anchor) ** 2 for anchor in anchors) if self.samples else 0
            if not groups or needed > room:
                groups.append([])
                room = HESSIAN_BYTES
            groups[-1] += anchors
            room -= needed
        return groups

    def _seen(self, anchors: Sequence[Anchor], context: Context) -> Mapping[str, Hessian]:
        """What GPTQ knows of the activations these products read."""
        assert context.data is not None
        seen = gptq.hessians(anchors, {anchor.weight: _rows(self.model, anchor) for anchor in anchors})
        streamed(self.model, list(seen), context.data, context, lambda name, array: seen[name].update(array))
        return seen

    def problem(self, prices: Callable[[Model], Mapping[int, float]] | None) -> Problem:
        """Joules of every product by precision; without prices, the bytes of its weight."""
        costs = {option.name: self._costs(option, prices) for option in self.options}
        sites = tuple(
            Site(
                key,
                (f"{key} in",),
                f"{key} out",
                tuple(replace(o, cost_j=costs[o.name][key]) for o in self.options[::-1]),
            )
            for key in self.sites
        )
        return Problem(sites, {})

    def _costs(self, option: Option, prices: Callable[[Model], Mapping[int, float]] | None) -> dict[int, float]:
        if prices is None:
            bits = 32 if option.name == FLOAT else self.specs[option.name].bits
            return {key: bits / 8 * (numel(self.model.value(a[0].weight).shape) or 0) for key, a in self.sites.items()}
        every = self.built(dict.fromkeys(self.sites, option))
        priced = prices(every)
        producers = {key: [every.producer(a.op.output) for a in alike] for key, alike in self.sites.items()}
        return {key: sum(priced.get(op.uid, 0.0) for op in ops if op) for key, ops in producers.items()}


def _held(weights: _Weights, context: Context, refused: Sequence[Change]) -> Outcome:
    gate = context.gate
    energy_j: Callable[[Model], float | None] = lambda m: gate.compare(weights.model, m).after_j if gate else None
    found = budget.held(weights, weights.problem(gate.kernels if gate else None), context, energy_j)
    names = {a.op.uid: found.assignment[key].name for key, alike in weights.sites.items() for a in alike}
    changes = [Change(f"{RULE} {names[a.op.uid]}", where(weights.model, a.op)) for a in weights.anchors]
    kept = [replace(c, rule=RULE, reason="needed in float for accuracy") for c in changes if c.rule.endswith(FLOAT)]
    applied = tuple(change for change in changes if not change.rule.endswith(FLOAT))
    return Outcome(found.model, applied, (*refused, *kept), trials=found.trials)


def _accepted(
    options: Quant, model: Model, anchors: Sequence[Anchor], context: Context
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
    spec = replace(next(iter(_specs(options, context).values())), clip=False)
    for number, alike in enumerate(kinds.values()):
        decision = context.gate.decide(model, weight_only.quantise(model, alike[:1], spec, options.form))
        accepted += [] if decision.reason else alike
        changes += [Change(RULE, where(model, a.op), decision.saved_j, decision.reason) for a in alike]
        context.progress("quant", number + 1, len(kinds))
    order = {anchor.op.uid: number for number, anchor in enumerate(anchors)}
    return sorted(accepted, key=lambda anchor: order[anchor.op.uid]), changes


def _rows(model: Model, anchor: Anchor) -> int:
    """Input features of a weight."""
    return int((model.value(anchor.weight).shape or ())[anchor.input_axis(2)])
