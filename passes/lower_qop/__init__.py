"""`lower-qop`: operators between DequantizeLinear and QuantizeLinear become operators on integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Change, Context, Granularity, Outcome, Pass
from eopt.passes.contract import Contract, Sqnr
from eopt.passes.lower_qop.conv import conv_integer, qlinear_conv
from eopt.passes.lower_qop.matmul import matmul_integer, qlinear_matmul
from eopt.passes.lower_qop.moves import integer_moves
from eopt.passes.rewrite import Rule, apply_rules, explain, where

OPSET = 13  # the first with scales per channel; all integer forms of the operators moved here are older

# What writes integers comes first: an operator it takes needs no float result, which the second stage would give it.
SAME = 1e-4  # of the model's joules: rounding of prices
STAGES: tuple[tuple[Rule, ...], ...] = ((integer_moves, qlinear_conv, qlinear_matmul), (conv_integer, matmul_integer))


@dataclass(frozen=True)
class LowerQop(Pass):
    """Compute on integers what a QDQ model computes between DequantizeLinear and QuantizeLinear.

    Standard operators only: QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger, and 8-bit forms of what moves data.
    """

    name: ClassVar[str] = "lower-qop"
    after: ClassVar[tuple[str, ...]] = ("simplify", "fuse", "quant", "cast")
    granularity: ClassVar[Granularity] = Granularity.REWRITE

    @property
    def contract(self) -> Contract:
        """Both models round the same sums to the same grid; one adds in float32, the other exactly.

        They differ, by one step, where a sum lies closer to the middle between two steps than float32 rounds: at most
        255 sqrt(n) 2^-24 of a step for n terms, so for 1 value in 1000 at n = 4000. Its noise power is a thousandth of
        a squared step, beside a twelfth for the quantisation itself. Thirty layers that each pass it on, of signals
        with a root mean square of 32 steps (255 steps are 8 deviations), keep 10 log10(32^2 / 0.03) = 45 dB.
        """
        return Sqnr(40.0)

    @classmethod
    def rules(cls) -> tuple[Rule, ...]:
        """All rules, in the order they are tried."""
        return tuple(item for stage in STAGES for item in stage)

    def run(self, model: Model, context: Context) -> Outcome:
        """See `Pass.run`."""
        if not any(op.op == "DequantizeLinear" for op in model.leaves()):
            return Outcome(model, notes=("nothing is dequantised; lower-qop follows quant or takes a QDQ model",))
        opset = model.opsets.get("", 0)
        if opset < OPSET:
            return Outcome(model, notes=(f"opset {opset}: lower-qop needs {OPSET} or later",))
        if context.gate is not None:  # executors that fuse QDQ themselves run the same kernels for the same joules
            context = replace(context, gate=replace(context.gate, min_gain=-SAME))
        current, applied, refused = model, list[Change](), list[Change]()
        for stage in STAGES:
            outcome = apply_rules(current, stage, context, self.name)
            current = outcome.model.swept()
            applied += outcome.applied
            refused += outcome.refused
        return Outcome(current, tuple(applied), (*refused, *_left(current)))


def _left(model: Model) -> list[Change]:
    """Operators that still compute in float on what was dequantised, with the reason; the gate has told its own."""
    found: list[Change] = []
    for op in model.leaves():
        item = next((item for item in STAGES[-1] if item.anchored_at(op)), None)
        miss = explain(model, item, op) if item and any(_dequantised(model, name) for name in op.inputs) else None
        if item and miss:
            found.append(Change(item.name, where(model, op), reason=miss.reason))
    return found


def _dequantised(model: Model, name: str | None) -> bool:
    source: Op | None = model.producer(name) if name else None
    return source is not None and source.op == "DequantizeLinear"
