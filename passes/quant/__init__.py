"""The quant pass: static int8 post-training quantisation of convolutions and matrix products, as QDQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import ClassVar

from eopt.ir.errors import InputError, UsageError
from eopt.ir.model import Model
from eopt.passes.base import Change, Context, Granularity, Outcome, Pass
from eopt.passes.contract import Contract, Sqnr
from eopt.passes.quant import candidates, gating, insert, placement
from eopt.passes.quant.calibrate import Calibration, observe
from eopt.passes.quant.candidates import RULE, Anchor
from eopt.passes.quant.observers import ObserverKind, observer
from eopt.passes.quant.params import Grid
from eopt.passes.quant.placement import Cluster
from eopt.passes.quant.scheme import Activation, Scheme, scheme
from eopt.passes.quant.weights import weight_grids
from eopt.passes.rewrite import where

PER_AXIS_OPSET = 13  # the first in which DequantizeLinear takes one scale per channel

QUANTISED = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"}
)


class WeightType(StrEnum):
    """Type of quantised weights."""

    INT8 = "int8"


@dataclass(frozen=True)
class Quant(Pass):
    """Quantise constant weights per channel and activations per tensor, calibrated on samples.

    Attributes:
        weight: type of weights.
        activation: type of activations; auto is uint8 on CPUs, symmetric int8 on accelerators.
        observer: how ranges of activations are found.
        percentile: share of values inside the range, in percent, for the percentile observer.
        per_channel: one weight scale per output channel.
        sqnr: least signal to quantisation noise of the outputs, in dB. Noise unrelated to the signal turns a vector by
            cosine = (1 + 10^(-sqnr/10))^(-1/2): 13.8 dB is a cosine of 0.98, and the default leaves near 1 dB for the
            spread between samples.
        ops: operator types to quantise.
        exclude: shell patterns on module paths and operator names to leave in float.
    """

    name: ClassVar[str] = "quant"
    after: ClassVar[tuple[str, ...]] = ("simplify", "fuse")
    granularity: ClassVar[Granularity] = Granularity.REGION
    needs_data: ClassVar[bool] = True

    weight: WeightType = WeightType.INT8
    activation: Activation = Activation.AUTO
    observer: ObserverKind = ObserverKind.MINMAX
    percentile: float = 99.999
    per_channel: bool = True
    sqnr: float = 13.0
    ops: tuple[str, ...] = ("Conv", "Gemm", "MatMul")
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise UsageError(f"quant{{percentile={self.percentile:g}}}: give a share in percent above 50, up to 100")
        for op in self.ops:
            if op not in candidates.READERS:
                raise UsageError(f"quant{{ops={op}}}: choose from {', '.join(candidates.READERS)}")

    @property
    def contract(self) -> Contract:
        """Signal to quantisation noise on every output."""
        return Sqnr(self.sqnr)

    def run(self, model: Model, context: Context) -> Outcome:
        """See `Pass.run`.

        Raises:
            UsageError: no calibration samples, or an activation type the target has no kernels for.
            InputError: operators to quantise in a model older than opset 13.
        """
        if context.data is None:
            raise UsageError("pass 'quant' needs calibration samples; give them with --data")
        if any(op.op in QUANTISED for op in model.leaves()):
            return Outcome(model, notes=("the model is quantised already; quant left it as it is",))
        numbers = scheme(self.activation, context.target, context.executor)
        anchors, refused = candidates.find(model, self.ops, self.exclude)
        if anchors and model.opsets.get("", 0) < PER_AXIS_OPSET:
            raise InputError(
                f"opset {model.opsets.get('', 0)}: quant needs {PER_AXIS_OPSET} or later; "
                "convert the model with onnx.version_converter.convert_version"
            )
        wanted = {name for cluster in placement.clusters(model, anchors) for name in cluster.tensors}
        make = partial(observer, self.observer, self.percentile)
        seen = observe(model, sorted(wanted), context.data, context, make)
        fit, unfit = _usable(model, anchors, seen.unusable)
        clusters = placement.clusters(model, fit, frozenset(seen.unusable))
        outcome = self._quantised(model, clusters, _grids(model, clusters, seen, numbers), numbers, context)
        return replace(outcome, refused=(*refused, *unfit, *outcome.refused))

    def _quantised(
        self, model: Model, clusters: Sequence[Cluster], grids: Mapping[str, Grid], numbers: Scheme, context: Context
    ) -> Outcome:
        anchors = [anchor for cluster in clusters for anchor in cluster.anchors]
        weights = weight_grids(model, anchors, grids, numbers.weight_limit, self.per_channel)

        def apply(current: Model, cluster: Cluster) -> Model:
            return insert.quantise(current, cluster, grids, weights, numbers.integer_bias)

        outcome = gating.decide(model, clusters, apply, context)
        return replace(outcome, model=outcome.model.swept())


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


def _grids(model: Model, clusters: Sequence[Cluster], seen: Calibration, numbers: Scheme) -> dict[str, Grid]:
    """The grid of every quantised activation."""
    grids: dict[str, Grid] = {}
    for cluster in clusters:
        grids |= {name: numbers.grid(*seen.ranges[name]) for name in cluster.tensors}
        for name, source in placement.handed_on(model, cluster).items():
            grids[name] = grids[source]
    return grids
