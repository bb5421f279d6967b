"""The choice of precision as a `Problem`: what every operator could compute in, what kernels and boundaries cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import DType, Value
from eopt.passes.quant import dynamic, placement
from eopt.passes.quant.build import Builder
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.choose.problem import FLOAT, Assignment, Form, Option, Problem, Site
from eopt.passes.quant.placement import Cluster
from eopt.passes.quant.scheme import Format

_BOUNDARY = {"QuantizeLinear": 0.01, "DequantizeLinear": 0.01, "DynamicQuantizeLinear": 0.01}  # without prices: of 1
Prices = Callable[[Model], Mapping[int, float]]
"""Joules, by uid of every operator, of the kernel that it runs in."""


@dataclass(frozen=True, eq=False)
class Choices:
    """What may be quantised.

    Attributes:
        bridges: operators that could compute in int8 between anchors.
        formats: those an anchor may take.
        calibrated: uids of the anchors whose tensors all have a range.
    """

    builder: Builder
    anchors: tuple[Anchor, ...]
    bridges: tuple[Op, ...]
    formats: tuple[Format, ...]
    calibrated: frozenset[int]

    @property
    def model(self) -> Model:
        """The model with nothing quantised."""
        return self.builder.model

    def built(self, chosen: Assignment) -> Model:
        """The model quantised as an assignment says; what it does not name is float."""
        return self.builder.quantised(self.clusters(chosen))

    def written(self, key: int) -> tuple[str, ...]:
        """See `Buildable.written`."""
        return (placement.tail(self.model, self.model.index.op(key)),)

    def clusters(self, chosen: Assignment) -> tuple[Cluster, ...]:
        """What to quantise for an assignment."""
        by_format = {
            form: [anchor for anchor in self.anchors if _named(chosen, anchor.op) == form] for form in self.formats
        }
        bridges = [op for op in self.bridges if _named(chosen, op) == Format.STATIC]
        static = by_format.get(Format.STATIC, [])
        placed = placement.clusters(self.model, static, bridges=bridges) if static or bridges else ()
        return (*placed, *placement.dynamic_clusters(by_format.get(Format.DYNAMIC, [])))

    def problem(self, prices: Prices | None) -> Problem:
        """The problem, all noise left at 0. Without prices an anchor in float counts 1 and a boundary
        little."""
        model = self.model
        floats = prices(model) if prices else {}
        static = self._priced(prices, Format.STATIC)
        dynamic = self._priced(prices, Format.DYNAMIC)
        sites = [self._site(anchor.op, (anchor.data,), floats, static, dynamic) for anchor in self.anchors]
        for op in self.bridges:
            sites.append(self._site(op, tuple(placement.float_inputs(model, op)), floats, static, {}))
        order = {op.uid: number for number, op in enumerate(model.leaves())}
        ordered = tuple(sorted(sites, key=lambda site: order[site.key]))
        tensors = dict.fromkeys(name for site in ordered for name in (*site.reads, site.writes))
        return Problem(ordered, _conversions(model, tensors, prices, floats), self._pinned(tensors))

    def _priced(self, prices: Prices | None, form: Format) -> dict[int, float]:
        """Joules by uid of each site with all that can be in this format; views have no price, and cost nothing."""
        if form not in self.formats or not self.anchors:
            return {}
        ops = [anchor.op for anchor in self.anchors if form in formats_of(anchor.op)]
        if form == Format.STATIC:
            ops = [*(op for op in ops if op.uid in self.calibrated), *self.bridges]
        if prices is None:
            return {op.uid: 0.0 for op in ops}
        option = Option(form, Form.STATIC, Form.STATIC, 0.0)
        every = self.built({op.uid: option for op in ops})
        costs = prices(every)
        found = {(op.op, op.origin): costs[op.uid] for op in every.leaves() if op.uid in costs}
        views = {(op.op, op.origin): 0.0 for op in ops if op.op in placement.SAME_GRID}
        found = views | found
        return {op.uid: found[op.op, op.origin] for op in ops if (op.op, op.origin) in found}

    def _site(
        self,
        op: Op,
        reads: tuple[str, ...],
        floats: Mapping[int, float],
        static: Mapping[int, float],
        dynamic: Mapping[int, float],
    ) -> Site:
        anchor = op.op not in placement.BRIDGES
        options = [Option(FLOAT, Form.FLOAT, Form.FLOAT, floats.get(op.uid, 1.0 * anchor))]
        known = not floats or op.uid in floats or op.op in placement.SAME_GRID
        if known and op.uid in static:
            writes = Form.FLOAT if anchor and op.op not in placement.WRITES_INT8 else Form.STATIC
            options.append(Option(Format.STATIC, Form.STATIC, writes, static[op.uid]))
        if known and op.uid in dynamic:
            options.append(Option(Format.DYNAMIC, Form.DYNAMIC, Form.FLOAT, dynamic[op.uid]))
        return Site(op.uid, reads, placement.tail(self.model, op), tuple(options))

    def _pinned(self, tensors: Mapping[str, None]) -> frozenset[str]:
        """Tensors some operator without a choice reads, or that leave the model."""
        model = self.model
        sites = {anchor.op.uid for anchor in self.anchors} | {op.uid for op in self.bridges}
        others = {name for name in tensors if any(user.uid not in sites for user in model.users(name))}
        return frozenset(others | {name for name in tensors if model.is_output(name)})


def formats_of(op: Op) -> frozenset[Format]:
    """Formats that an anchor has kernels in: see `dynamic.problem`."""
    return frozenset({Format.STATIC} if dynamic.problem(op) else {Format.STATIC, Format.DYNAMIC})


def _named(chosen: Assignment, op: Op) -> str:
    return chosen[op.uid].name if op.uid in chosen else FLOAT


def _conversions(
    model: Model, tensors: Mapping[str, None], prices: Prices | None, floats: Mapping[int, float]
) -> dict[tuple[str, Form, Form], float]:
    """Joules of quantising and dequantising each tensor, priced on a model in which all of that stands alone."""
    costs: dict[str, dict[str, float]] = {}
    if prices is not None:
        every = _converting(model, tensors)
        priced = prices(every)
        for op in every.leaves():
            if op.uid in priced and op.outputs[0].id.startswith(_PROBE):
                name = op.outputs[0].id.removeprefix(_PROBE).partition(":")[2]
                costs.setdefault(name, {})[op.op] = priced[op.uid]
    found: dict[tuple[str, Form, Form], float] = {}
    for name in tensors:
        cost = costs.get(name, {}) if prices else _BOUNDARY
        quantise, dequantise = cost.get("QuantizeLinear", 0.0), cost.get("DequantizeLinear", 0.0)
        dynamic = cost.get("DynamicQuantizeLinear", 0.0)
        found[name, Form.FLOAT, Form.STATIC] = quantise
        found[name, Form.FLOAT, Form.DYNAMIC] = dynamic
        found[name, Form.STATIC, Form.FLOAT] = dequantise
        found[name, Form.STATIC, Form.DYNAMIC] = dequantise + dynamic
    return found


_PROBE = "eopt probe"


def _converting(model: Model, tensors: Mapping[str, None]) -> Model:
    """The model with every tensor quantised, dequantised and dynamically quantised besides, for nobody to read."""
    scale, zero_point = f"{_PROBE} scale", f"{_PROBE} zero point"
    model = model.with_weights({scale: np.ones((), np.float32), zero_point: np.zeros((), np.uint8)})
    for name in tensors:
        (reader, *_) = model.users(name) or (model.leaves()[-1],)
        value, stored = model.value(name), f"{_PROBE} q:{name}"
        grid = (scale, zero_point)
        new = [
            Op("QuantizeLinear", (name, *grid), (Value(stored, DType.UINT8, value.shape),)),
            Op("DequantizeLinear", (stored, *grid), (replace(value, id=f"{_PROBE} d:{name}"),)),
            Op("DynamicQuantizeLinear", (name,), (Value(f"{_PROBE} r:{name}", DType.UINT8, value.shape),
               Value(f"{_PROBE} s:{name}", DType.FLOAT32, ()), Value(f"{_PROBE} z:{name}", DType.UINT8, ()))),
        ]  # fmt: skip
        model = model.replace([reader], [*new, reader] if model.users(name) else [reader, *new])
    return model
