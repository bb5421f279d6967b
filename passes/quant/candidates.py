"""Which operators can compute in int8, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Change
from eopt.passes.rewrite import Array, Matcher, Miss, where

RULE = "int8"


@dataclass(frozen=True)
class Anchor:
    """An operator with a constant weight.

    Attributes:
        data: the activation it reads.
        weight: the constant it multiplies with.
        axis: the weight's output-channel axis; None where only one scale for the whole weight is possible.
        channels: extent of that axis.
        bias: the constant it adds itself, or None.
    """

    op: Op
    data: str
    weight: str
    axis: int | None
    channels: int
    bias: str | None = None

    def input_axis(self, rank: int) -> int:
        """The axis of the input features of a product's weight of this rank."""
        return 1 if self.op.attrs.get("transB", 0) else rank - 2


def find(model: Model, types: Sequence[str], exclude: Sequence[str]) -> tuple[list[Anchor], list[Change]]:
    """Anchors in execution order, and a refusal with its reason for every other operator of these types.

    Args:
        types: operator types, of `READERS`.
        exclude: shell patterns on module paths and operator names.
    """
    matcher = Matcher(model)
    anchors: list[Anchor] = []
    refused: list[Change] = []
    for op in model.leaves():
        if op.domain or op.op not in types:
            continue
        try:
            _not_excluded(matcher, op, exclude)
            anchors.append(READERS[op.op](matcher, op))
        except Miss as miss:
            refused.append(Change(RULE, where(model, op), reason=miss.reason))
    return anchors, refused


def _not_excluded(m: Matcher, op: Op, patterns: Sequence[str]) -> None:
    names = (m.model.path(op.uid), op.name, where(m.model, op))
    for pattern in patterns:
        m.need(not any(fnmatchcase(name, pattern) for name in names), f"excluded by {pattern!r}", op)


def _conv(m: Matcher, op: Op) -> Anchor:
    weight = _weight(m, op)
    return Anchor(op, _data(m, op), op.inputs[1] or "", 0, weight.shape[0], _bias(m, op, weight.shape[0]))


def _gemm(m: Matcher, op: Op) -> Anchor:
    weight = _weight(m, op)
    scaled = op.attrs.get("alpha", 1.0) != 1.0 or op.attrs.get("beta", 1.0) != 1.0
    m.need(not scaled, "its alpha or beta is not 1", op)
    axis = 0 if op.attrs.get("transB", 0) else 1
    return Anchor(op, _data(m, op), op.inputs[1] or "", axis, weight.shape[axis], _bias(m, op, weight.shape[axis]))


def _matmul(m: Matcher, op: Op) -> Anchor:
    m.need(m.model.constant(op.inputs[0] or "") is None, "its constant is the left operand", op)
    weight = _weight(m, op)
    m.need(weight.ndim > 1, "its weight is a vector", op)
    return Anchor(op, _data(m, op), op.inputs[1] or "", 1 if weight.ndim == 2 else None, weight.shape[-1])


READERS: Mapping[str, Callable[[Matcher, Op], Anchor]] = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
"""Operator types that can be quantised."""


def _weight(m: Matcher, op: Op) -> Array:
    weight = m.model.constant(op.inputs[1] or "")
    if weight is None:
        m.miss("both operands are computed; only constant weights are quantised", op)
    m.need(weight.dtype == np.float32, f"it computes in {weight.dtype}; quantise the float32 model", op)
    m.need(weight.size and np.isfinite(weight).all(), "its weight is empty or holds NaN or infinity", op)
    return weight


def _data(m: Matcher, op: Op) -> str:
    name = op.inputs[0] or ""
    m.need(m.model.constant(name) is None, "its input is constant; simplify folds it", op)
    return name


def _bias(m: Matcher, op: Op, channels: int) -> str | None:
    name = op.inputs[2] if len(op.inputs) > 2 else None
    if name is None:
        return None
    bias = m.constant(op, 2)
    m.need(bias.size in (1, channels), f"its bias has shape {list(bias.shape)}, not one figure per channel", op)
    m.need(np.isfinite(bias).all(), "its bias holds NaN or infinity", op)
    return name
