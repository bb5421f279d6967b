"""Scaled dot-product attention, written out, as one operator (opset 23).

    softmax(s q k^T + mask) v

torch writes the scale as sqrt(s) on q and on k, the transposition of k through a Reshape pair, and guards rows without
any allowed key (all -inf) by turning their NaN into 0. The guard moves behind the fused operator, where such a row is
NaN throughout, so the result stays the same for every finite v.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.ir.types import Dim, DType, Value
from eopt.passes.fuse.attention_operands import mask_of, unscaled, untransposed
from eopt.passes.rewrite import Array, Matcher, Replacement, rule


@rule("attention", "Softmax")
def attention(m: Matcher, softmax: Op) -> Replacement:
    """Four-dimensional q, k and v; the mask, if any, is added to the scores."""
    shape = m.model.value(softmax.output).shape
    m.need(shape is not None and len(shape) == 4, "the scores do not have four dims", softmax)
    m.need(softmax.attrs.get("axis", -1) in (-1, 3), "the softmax is not over the keys", softmax)
    m.only_used(softmax.inputs[0] or "", 1, softmax)
    below = m.producer(softmax, 0, ("Add", "Mul", "Div", "MatMul"))
    if below.op != "Add":
        return _fused(m, softmax, (), below.output, None)
    return m.best(*(partial(_fused, m, softmax, (below,), below.inputs[i] or "", below.inputs[1 - i]) for i in (0, 1)))


def _fused(m: Matcher, softmax: Op, add: tuple[Op, ...], name: str, mask_name: str | None) -> Replacement:
    """With this value as the scores and that one as the mask."""
    scores = unscaled(m, name)
    product = m.model.producer(scores.names[0])
    if product is None or product.op != "MatMul":
        m.miss(f"{scores.names[0]!r} is no product of queries and keys", (*add, softmax)[0])
    m.only_used(name, 1, product)
    m.only_used(product.output, 1, product)
    queries, transposed = unscaled(m, product.inputs[0] or ""), unscaled(m, product.inputs[1] or "")
    guard, weighted = _guard(m, softmax)
    m.need(weighted.inputs[0] == (guard[-1].output if guard else softmax.output), "the scores are not on the left")
    q, v = m.model.value(queries.names[0]), m.model.value(weighted.inputs[1] or "")
    k = untransposed(m, transposed.names[0], product)
    scale = scores.scalar * queries.scalar * transposed.scalar
    m.need(scale > 0, f"the scale is {scale:g}; Attention takes its root", product)
    rows, columns = _extents(m, softmax, product, (q, k.value, v))
    mask = mask_of(m, mask_name, rows, columns, softmax) if mask_name else None
    operands = (q.id, k.value.id, v.id, *((mask.value.id,) if mask else ()))
    extra = [found for found in (k, mask) if found]
    new, zero = _operator(m, operands, scale, weighted, bool(guard))
    new = [*(op for found in extra for op in found.new), *new]
    gone = [op for found in (queries, transposed, scores) for op in found.ops]
    gone += [*k.gone, product, *add, softmax, *guard, weighted]
    weights = {name: array for found in extra for name, array in found.weights.items()}
    return Replacement(gone, new, {**weights, **zero})


def _operator(
    m: Matcher, operands: tuple[str, ...], scale: float, last: Op, guarded: bool
) -> tuple[list[Op], dict[str, Array]]:
    """The fused operator and the guard behind it, with the weight that needs."""
    attrs = Attrs.of(scale=scale)
    (result,) = last.outputs
    if not guarded:
        return [Op("Attention", operands, last.outputs, attrs, name=last.name)], {}
    if result.dtype is None:
        m.miss("the type is unknown", last)
    raw = replace(result, id=m.model.fresh(f"{result.id}_raw"))
    empty = replace(result, id=m.model.fresh(f"{result.id}_empty"), dtype=DType.BOOL)
    zero = m.model.fresh(f"{result.id}_zero")
    new = [
        Op("Attention", operands, (raw,), attrs, name=last.name),
        Op("IsNaN", (raw.id,), (empty,)),
        Op("Where", (empty.id, zero, raw.id), (result,)),
    ]
    return new, {zero: np.zeros((), result.dtype.numpy)}


def _extents(m: Matcher, softmax: Op, product: Op, operands: tuple[Value, Value, Value]) -> tuple[Dim, Dim]:
    """Numbers of queries and keys. What is broadcast in the products or by the mask does not fit the operator.

    The sum with a mask often gets a new symbolic extent, because nobody proved that the mask has as many columns as
    there are keys. The product with v does: it contracts that axis with the rows of v.
    """
    shapes = [value.shape for value in operands]
    m.need(all(shape is not None and len(shape) == 4 for shape in shapes), "q, k or v does not have four dims", product)
    q, k, v = (shape for shape in shapes if shape is not None)
    m.need(q[:2] == k[:2] == v[:2], "batch and heads differ between q, k and v", product)
    m.need(k[2] == v[2], "the number of keys is not that of values", product)
    after = m.model.value(softmax.output).shape
    m.need(after is not None and after[:3] == q[:3], "the mask makes the scores larger", softmax)
    return q[2], k[2]


def _guard(m: Matcher, softmax: Op) -> tuple[list[Op], Op]:
    """The NaN guard behind the softmax, if any, and the product with v."""
    users = m.model.users(softmax.output)
    if len(users) == 1:
        return [], m.user(softmax.output, "MatMul")
    m.need(not m.model.is_output(softmax.output), "the weights are a graph output", softmax)
    is_nan = next((user for user in users if user.op == "IsNaN"), None)
    if is_nan is None or len(users) != 2:
        m.miss("the weights are used elsewhere", softmax)
    where = m.user(is_nan.output, "Where")
    selects = where.inputs[0] == is_nan.output and where.inputs[2] == softmax.output and where in users
    m.need(selects, "the guard selects another value", where)
    m.need(m.scalar(where, 1) == 0.0, "the guard does not put 0", where)
    return [is_nan, where], m.user(where.output, "MatMul")
