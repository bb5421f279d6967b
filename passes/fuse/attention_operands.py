"""What written-out attention is made of: keys behind their transposition, a mask, and scales anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeVar

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.ir.types import Dim, Shape, Value
from eopt.passes.fold import SMALL_BYTES
from eopt.passes.operands import Operands, flattened
from eopt.passes.rewrite import Array, Matcher

SWAP = (0, 1, 3, 2)

T = TypeVar("T")


@dataclass(frozen=True)
class Operand:
    """An operand of the fused operator: its value, the operators that go and come, and the weights it needs."""

    value: Value
    gone: tuple[Op, ...] = ()
    new: tuple[Op, ...] = ()
    weights: Mapping[str, Array] = field(default_factory=dict)


def unscaled(m: Matcher, name: str) -> Operands:
    """A value without the scalars it is multiplied with, in any order; the value itself where that does not apply."""
    itself = Operands((), (name,), 1.0)
    op = m.model.producer(name)
    if op is None or op.op not in ("Mul", "Div") or len(m.model.users(name)) != 1 or m.model.is_output(name):
        return itself
    found = flattened(m.model, op)
    return found if found is not None and len(found.names) == 1 else itself


def mask_of(m: Matcher, name: str, rows: Dim, columns: Dim, node: Op) -> Operand:
    """The mask with a row for every query and a column for every key: onnxruntime broadcasts batch and heads only.

    A symbolic extent counts as the one wanted: exporters declare 1 as 1.
    """
    mask = m.model.value(name)
    if mask.shape is None:
        m.miss("the rank of the mask is unknown", node)
    dims: Shape = (1,) * (2 - len(mask.shape)) + mask.shape
    broadcast = [dim == 1 and wanted != 1 for dim, wanted in zip(dims[-2:], (rows, columns), strict=True)]
    if len(mask.shape) >= 2 and not any(broadcast):
        return Operand(mask)
    if not isinstance(rows, int) or not isinstance(columns, int):
        m.miss("the mask is broadcast over a symbolic number of queries or keys, which onnxruntime refuses", node)
    wide = Value(m.model.fresh(f"{name}_rows"), mask.dtype, (*dims[:-2], rows, columns))
    array = m.model.constant(name)
    if array is not None and array.itemsize * rows * columns * prod(array.shape[:-2]) <= SMALL_BYTES:
        return Operand(wide, weights={wide.id: np.array(np.broadcast_to(array, (*array.shape[:-2], rows, columns)))})
    shape = m.model.fresh(f"{name}_rows_shape")
    target = np.asarray((rows, columns), np.int64)
    return Operand(wide, new=(Op("Expand", (name, shape), (wide,)),), weights={shape: target})


def untransposed(m: Matcher, name: str, product: Op) -> Operand:
    """k behind k^T: a Transpose that moves the last axis, or torch's Reshape, Transpose, Reshape."""
    op = m.model.producer(name)
    if op is None or op.op not in ("Transpose", "Reshape"):
        m.miss("the keys are not transposed", product)
    m.only_used(name, 1, op)
    if op.op == "Transpose":
        return _swapped(m, op)
    swap = m.producer(op, 0, "Transpose", uses=1)
    m.need(swap.attrs.get("perm") == (0, 2, 1), "the keys are transposed otherwise", swap)
    flat = m.producer(swap, 0, "Reshape", uses=1)
    k = m.model.value(flat.inputs[0] or "")
    after = m.model.value(name).shape
    m.need(k.shape is not None and len(k.shape) == 4, "the keys do not have four dims", flat)
    assert k.shape is not None
    m.need(_permuted(k.shape, SWAP) == after, "the reshapes around the transposition do not undo", op)
    middle = m.model.value(flat.output).shape
    m.need(
        middle is not None and middle[-2:] == k.shape[-2:], "the reshapes around the transposition do not undo", flat
    )
    return Operand(k, (flat, swap, op))


def _swapped(m: Matcher, op: Op) -> Operand:
    """k from its transposition; where other axes moved too, those keep moving."""
    perm = op.attrs.get("perm")
    source = m.model.value(op.inputs[0] or "")
    m.need(perm and len(perm) == 4 and source.shape is not None, "the keys do not have four dims", op)
    assert perm is not None
    assert source.shape is not None
    rest = _permuted(perm, SWAP)
    if rest == (0, 1, 2, 3):
        return Operand(source, (op,))
    m.need(rest[3] == 3, "the keys are transposed otherwise", op)
    k = Value(m.model.fresh(f"{op.output}_keys"), source.dtype, _permuted(source.shape, rest))
    return Operand(k, (op,), (Op("Transpose", op.inputs, (k,), Attrs.of(perm=rest)),))


def _permuted(items: tuple[T, ...], perm: tuple[int, ...]) -> tuple[T, ...]:
    return tuple(items[axis] for axis in perm)
