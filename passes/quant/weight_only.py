"""Weight-only quantisation: products with constant weights read them as blocks of few bits and compute in float.

At batch 1 a product moves its whole weight for every token, so its bytes are its time and energy. A weight that other
operators read too (an embedding tied to the last product) stays beside the blocks: a `Gather` moves only the rows it
takes, so it has nothing to gain, and the file grows by an eighth while a run moves an eighth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np

from eopt.ir.errors import InputError, UsageError
from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op
from eopt.ir.types import DType, Value
from eopt.ir.weights import Weight, weight_of
from eopt.passes import opset
from eopt.passes.quant import packed
from eopt.passes.quant.blocks import Blocks, BlockWeight, round_to_nearest
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.params import PER_AXIS_OPSET

Array = np.ndarray[Any, Any]
Solve = Callable[[str, Array], BlockWeight]
"""Quantises the float32 weight [k, n] of this name."""

MICROSOFT = "com.microsoft"
_BLOCKED_OPSET = 21  # the first with 4 bits and blocks


class Form(StrEnum):
    """How blocks are written: the standard's DequantizeLinear, or onnxruntime's own product."""

    QDQ = "qdq"
    NBITS = "nbits"


def problem(model: Model, anchor: Anchor) -> str:
    """Why this operator cannot read blocks; '' when it can."""
    if anchor.op.op not in ("MatMul", "Gemm"):
        return f"only products read weights in blocks, not {anchor.op.op}"
    rank = len(model.value(anchor.weight).shape or ())
    if rank != 2:
        return f"its weight has {rank} axes; blocks need a matrix"
    if anchor.op.attrs.get("transA", 0):
        return "it transposes its input"
    shape = model.value(anchor.data).shape
    return "its input is a vector" if shape is not None and len(shape) < 2 else ""


def quantise(
    model: Model,
    anchors: Iterable[Anchor],
    spec: Blocks,
    form: Form = Form.QDQ,
    *,
    accuracy: int = 0,
    solve: Solve | None = None,
) -> Model:
    """The model with these products reading their weights from blocks.

    Weights are read, quantised and given back one at a time; one that several products read in the same direction is
    stored once.

    Args:
        anchors: in execution order, without a `problem`.
        accuracy: `accuracy_level` of MatMulNBits; 0 leaves it out, 4 lets activations be rounded to int8.
        solve: quantises a weight; by default every weight goes to the nearest point.

    Raises:
        UsageError: MatMulNBits without groups.
        InputError: the model cannot be raised to the operator set its blocks need.
    """
    if form == Form.NBITS and spec.group is None:
        raise UsageError("MatMulNBits stores weights in groups; give a group size, or choose the form qdq")
    edit = _Nbits(model, spec, solve, accuracy) if form == Form.NBITS else _Qdq(model, spec, solve)
    for anchor in anchors:
        edit.apply(anchor)
    return edit.done().swept()


class _Edit:
    """Exchanges one product after the other; the weights they read come into the model at the end, packed till then."""

    def __init__(self, model: Model, spec: Blocks, solve: Solve | None) -> None:
        self.model, self.spec = model, spec
        self.solve: Solve = solve or (lambda name, weight: round_to_nearest(weight, spec))
        self.weights: dict[str, Weight] = {}
        self.stored: dict[tuple[str, int | None], tuple[str | None, ...]] = {}

    def apply(self, anchor: Anchor) -> None:
        """Exchange the operator of an anchor."""
        key = (anchor.weight, anchor.axis)
        before: list[Op] = []
        if key not in self.stored:
            self.stored[key], before = self.store(anchor, self._blocks(anchor))
        self.model = self.model.replace([anchor.op], [*before, self.product(anchor, self.stored[key])])

    def done(self) -> Model:
        """The model with its new weights."""
        finished = replace(self.model, weights=self.model.weights.updated(self.weights))
        return finished.with_index(self.model.index)

    def store(self, anchor: Anchor, weight: BlockWeight) -> tuple[tuple[str | None, ...], list[Op]]:
        """The names a product reads this weight by, and what computes them."""
        raise NotImplementedError

    def product(self, anchor: Anchor, names: tuple[str | None, ...]) -> Op:
        """The operator instead of the anchor's."""
        raise NotImplementedError

    def keep(self, stem: str, array: Array) -> str:
        """Note a weight of the model to be; its name."""
        name = self.model.fresh(stem)
        self.weights[name] = weight_of(array)
        return name

    def _blocks(self, anchor: Anchor) -> BlockWeight:
        weight = self.model.constant(anchor.weight)
        assert weight is not None
        return self.solve(anchor.weight, weight if anchor.axis == 1 else weight.T)


class _Qdq(_Edit):
    """DequantizeLinear in front of the unchanged product."""

    def __init__(self, model: Model, spec: Blocks, solve: Solve | None) -> None:
        needed = PER_AXIS_OPSET if spec.bits == 8 and spec.group is None else _BLOCKED_OPSET
        lifted, reason = opset.lift(model, needed)
        if reason:
            raise InputError(f"weights in blocks need opset {needed}: {reason}")
        super().__init__(lifted, spec, solve)

    def store(self, anchor: Anchor, weight: BlockWeight) -> tuple[tuple[str | None, ...], list[Op]]:
        arrays = (weight.integers, weight.scales, weight.zero_points)
        integers, scales, zeros = arrays if anchor.axis == 1 else (np.ascontiguousarray(array.T) for array in arrays)
        kind = self.spec.dtype.numpy
        attrs = Attrs.of(axis=1 - (anchor.axis or 0), block_size=self.spec.group)
        if self.spec.group is None:
            scales, zeros, attrs = scales.reshape(-1), zeros.reshape(-1), Attrs.of(axis=anchor.axis)
        stem = anchor.weight
        names = [self.keep(f"{stem}_q", integers.astype(kind)), self.keep(f"{stem}_scale", scales)]
        if not self.spec.symmetric:
            names.append(self.keep(f"{stem}_zero_point", zeros.astype(kind)))
        result = Value(self.model.fresh(f"{stem}_dq"), DType.FLOAT32, integers.shape)
        return (result.id,), [Op("DequantizeLinear", tuple(names), (result,), attrs)]

    def product(self, anchor: Anchor, names: tuple[str | None, ...]) -> Op:
        data, _, *others = anchor.op.inputs
        return replace(anchor.op, inputs=(data, *names, *others), uid=0)


class _Nbits(_Edit):
    """MatMulNBits instead of the product."""

    def __init__(self, model: Model, spec: Blocks, solve: Solve | None, accuracy: int) -> None:
        versioned = replace(model, opsets={**model.opsets, MICROSOFT: 1})
        super().__init__(versioned.with_index(model.index), spec, solve)
        self.accuracy = accuracy

    def store(self, anchor: Anchor, weight: BlockWeight) -> tuple[tuple[str | None, ...], list[Op]]:
        integers, scales, zeros = packed.nbits(weight)
        stem = anchor.weight
        names = self.keep(f"{stem}_q", integers), self.keep(f"{stem}_scale", scales)
        return (*names, None if zeros is None else self.keep(f"{stem}_zero_point", zeros)), []

    def product(self, anchor: Anchor, names: tuple[str | None, ...]) -> Op:
        shape = self.model.value(anchor.weight).shape or ()
        k, n = shape if anchor.axis == 1 else shape[::-1]
        group, bits = self.spec.group, self.spec.bits
        attrs = Attrs.of(K=k, N=n, bits=bits, block_size=group, accuracy_level=self.accuracy or None)
        inputs: tuple[str | None, ...] = (anchor.data, *names)
        if anchor.bias is not None:
            inputs = (*inputs, None, self._bias(anchor, anchor.bias))
        while inputs[-1] is None:
            inputs = inputs[:-1]
        return Op("MatMulNBits", inputs, anchor.op.outputs, attrs, MICROSOFT, name=anchor.op.name)

    def _bias(self, anchor: Anchor, name: str) -> str:
        """The bias in the one shape that the operator takes, [n]."""
        bias = self.model.constant(name)
        assert bias is not None
        if bias.shape == (anchor.channels,):
            return name
        return self.keep(f"{name}_row", np.array(np.broadcast_to(bias.reshape(-1), anchor.channels)))
