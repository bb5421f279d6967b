"""Writing QuantizeLinear and DequantizeLinear around the operators of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from eopt.ir.model import Model
from eopt.ir.node import NO_ATTRS, Attrs, Op
from eopt.ir.types import DType, Value
from eopt.passes.quant import params
from eopt.passes.quant.candidates import Anchor
from eopt.passes.quant.params import Grid
from eopt.passes.quant.placement import Cluster
from eopt.passes.quant.scheme import Scheme
from eopt.passes.quant.weights import WeightGrid

Array = np.ndarray[Any, Any]


def quantise(
    model: Model,
    cluster: Cluster,
    grids: Mapping[str, Grid | None],
    weights: Mapping[str, WeightGrid],
    numbers: Scheme,
    shifts: Mapping[int, Array],
) -> Model:
    """The model with this cluster computing in 8 bits.

    Args:
        grids: by quantised activation; None of those whose grid is found when the model runs.
        weights: by name of the float weight.
        numbers: with `integer_bias`, biases are int32 of scale `input scale * weight scale`, as integer kernels want.
        shifts: what to add to the bias of an anchor, by its uid.
    """
    anchors = {anchor.op.uid: anchor for anchor in cluster.anchors}
    served: dict[str, str] = {}
    for uid in _touched(model, cluster):
        edit = _Edit(model, grids, served, numbers)
        anchor = anchors.get(uid)
        if anchor is not None:
            edit.weight(anchor, weights[anchor.weight])
        if anchor is not None and anchor.bias:
            edit.bias(anchor, anchor.bias, weights[anchor.weight], shifts.get(uid))
        model = edit.applied(uid, cluster)
    return model


def _touched(model: Model, cluster: Cluster) -> list[int]:
    uids = {anchor.op.uid for anchor in cluster.anchors} | {op.uid for op in cluster.bridges}
    uids |= {op.uid for op in model.leaves() if any(value.id in cluster.writes for value in op.outputs)}
    return [op.uid for op in model.leaves() if op.uid in uids]


class _Edit:
    """What replaces one operator: itself with other inputs, what has to come before it, and what after."""

    def __init__(self, model: Model, grids: Mapping[str, Grid | None], served: dict[str, str], numbers: Scheme) -> None:
        self.model, self.grids, self.numbers = model, grids, numbers
        self.served = served  # float tensor -> its dequantised copy, over all edits of a cluster
        self.own: dict[str, str] = {}  # the same for the weight and bias of this operator alone
        self.before: list[Op] = []
        self.arrays: dict[str, Array] = {}

    def weight(self, anchor: Anchor, grid: WeightGrid) -> None:
        """Read the weight from 8 bits; users of a tied one share a single copy."""
        existing = self.model.users(grid.name) if grid.name in self.model.weights else ()
        if existing:
            self.own[anchor.weight] = existing[0].output
            return
        weight = self.model.constant(anchor.weight)
        assert weight is not None
        integers = params.quantized(weight, grid.scales, grid.axis, self.numbers.weight)
        self.own[anchor.weight] = self._constant(anchor.weight, grid.name, integers, grid.scales, grid.axis)

    def bias(self, anchor: Anchor, name: str, grid: WeightGrid, shift: Array | None) -> None:
        """Read the shifted bias, from int32 where it adds to an integer accumulator."""
        bias, activation = self.model.constant(name), self.grids[anchor.data]
        assert bias is not None
        values = np.broadcast_to(bias.reshape(-1), anchor.channels) + (0.0 if shift is None else shift)
        if not self.numbers.integer_bias or activation is None:
            if shift is not None:
                self.own[name] = self.model.fresh(f"{name}_corrected")
                self.arrays[self.own[name]] = values.astype(bias.dtype)
            return
        scales = np.float32(activation.scale) * grid.scales
        integers = params.quantized(values, scales, None, DType.INT32)
        axis = None if grid.axis is None else 0
        self.own[name] = self._constant(name, self.model.fresh(f"{name}_q"), integers, scales, axis)

    def applied(self, uid: int, cluster: Cluster) -> Model:
        """The model with this edit made."""
        old = self.model.index.op(uid)
        for name in dict.fromkeys(name for name in old.inputs if name in cluster.reads and name not in self.served):
            self.served[name] = self.model.fresh(f"{name}_dq")
            self.before += self._pair(name, self.model.value(name), self.served[name])
        inputs = tuple(self.own.get(name, self.served.get(name, name)) if name else name for name in old.inputs)
        op = replace(old, inputs=inputs, uid=0)
        written = [value for value in old.outputs if value.id in cluster.writes]
        if not written:
            return self.model.replace([old], [*self.before, op], weights=self.arrays)
        return self._applied_with_output(old, op, written[0])

    def _applied_with_output(self, old: Op, op: Op, value: Value) -> Model:
        if self._keeps_name(value.id):
            source = self.model.fresh(f"{value.id}_float")
            op = replace(op, outputs=(replace(value, id=source),))
            new = [*self.before, op, *self._pair(source, value, value.id)]
            return self.model.replace([old], new, weights=self.arrays)
        result = self.model.fresh(f"{value.id}_dq")
        new = [*self.before, op, *self._pair(value.id, value, result)]
        return self.model.replace([old], new, weights=self.arrays, renames={value.id: result})

    def _keeps_name(self, name: str) -> bool:
        """Graph outputs do, and what subgraphs capture."""
        return self.model.is_output(name) or any(name not in user.inputs for user in self.model.users(name))

    def _pair(self, source: str, value: Value, result: str) -> list[Op]:
        """Quantisation and DequantizeLinear from `source` to `result`, on the grid of `value`."""
        grid, stem = self.grids[value.id], value.id
        integers = self.model.fresh(f"{stem}_q")
        scale, zero_point = self.model.fresh(f"{stem}_scale"), self.model.fresh(f"{stem}_zero_point")
        read, dequantised = (integers, scale, zero_point), Value(result, value.dtype, value.shape)
        if grid is None:
            found = (Value(integers, DType.UINT8, value.shape), Value(scale, DType.FLOAT32, ()),
                     Value(zero_point, DType.UINT8, ()))  # fmt: skip
            quantise = Op("DynamicQuantizeLinear", (source,), found)
            return [quantise, Op("DequantizeLinear", read, (dequantised,))]
        self.arrays[scale] = np.array(grid.scale, dtype=np.float32)
        self.arrays[zero_point] = np.array(grid.zero_point, dtype=grid.dtype.numpy)
        quantise = Op("QuantizeLinear", (source, scale, zero_point), (Value(integers, grid.dtype, value.shape),))
        return [quantise, Op("DequantizeLinear", read, (dequantised,))]

    def _constant(self, stem: str, name: str, integers: Array, scales: Array, axis: int | None) -> str:
        """DequantizeLinear from a stored array; its result."""
        scale, zero_point = self.model.fresh(f"{stem}_scale"), self.model.fresh(f"{stem}_zero_point")
        self.arrays |= {name: integers, scale: scales, zero_point: np.zeros(scales.shape, integers.dtype)}
        result = Value(self.model.fresh(f"{stem}_dq"), DType.FLOAT32, integers.shape)
        attrs = NO_ATTRS if axis is None else Attrs.of(axis=axis)
        self.before.append(Op("DequantizeLinear", (name, scale, zero_point), (result,), attrs))
        return result.id
