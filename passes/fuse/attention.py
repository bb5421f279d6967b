"""Scaled dot-product attention, written out, as one operator (opset 23).

    softmax(s q k^T + mask) v

torch writes the scale as sqrt(s) on q and on k, the transposition of k through a Reshape pair, and guards rows without
any allowed key (all -inf) by turning their NaN into 0. The guard moves behind the fused operator, where such a row is
NaN throughout, so the result stays the same for every input.
"""

from __future__ import annotations

from dataclasses import replace

from eopt.ir.node import Attrs, Op
from eopt.ir.types import DType
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("attention", "Softmax")
def attention(m: Matcher, softmax: Op) -> Replacement:
    """Four-dimensional q, k and v; the mask, if any, is added to the scores."""
    shape = m.model.value(softmax.output).shape
    m.need(shape is not None and len(shape) == 4, "the scores do not have four dims", softmax)
    m.need(softmax.attrs.get("axis", -1) in (-1, 3), "the softmax is not over the keys", softmax)
    above, mask, product = _scores(m, softmax)
    product_scale = 1.0
    if product.op in ("Mul", "Div"):
        product_scale, name = _scale(m, product)
        above.append(product)
        product = _produced(m, name, "MatMul", product)
    m.only_used(product.output, 1, product)
    q, q_scale, q_ops = _operand(m, product, 0)
    transposed, k_scale, k_ops = _operand(m, product, 1)
    k, t_ops = _untransposed(m, transposed, product)
    guard, weighted = _guard(m, softmax)
    m.need(weighted.inputs[0] == (guard[-1].output if guard else softmax.output), "the scores are not on the left")
    v = weighted.inputs[1]
    matched = [*t_ops, *q_ops, *k_ops, product, *reversed(above), softmax, *guard, weighted]
    return _replacement(m, matched, weighted, (q, k, v, mask), product_scale * q_scale * k_scale, bool(guard))


def _replacement(
    m: Matcher, matched: list[Op], last: Op, inputs: tuple[str | None, ...], scale: float, guarded: bool
) -> Replacement:
    operands = inputs if inputs[3] else inputs[:3]
    attrs = Attrs.of(scale=scale)
    if not guarded:
        return Replacement(matched, [Op("Attention", operands, last.outputs, attrs, name=last.name)])
    (result,) = last.outputs
    raw = replace(result, id=m.model.fresh(f"{result.id}_raw"))
    empty = replace(result, id=m.model.fresh(f"{result.id}_empty"), dtype=DType.BOOL)
    zero = m.model.fresh(f"{result.id}_zero")
    m.need(result.dtype is not None, "the type is unknown", last)
    assert result.dtype is not None
    new = [
        Op("Attention", operands, (raw,), attrs, name=last.name),
        Op("IsNaN", (raw.id,), (empty,)),
        Op("Where", (empty.id, zero, raw.id), (result,)),
    ]
    import numpy as np

    return Replacement(matched, new, {zero: np.zeros((), result.dtype.numpy)})


def _scores(m: Matcher, softmax: Op) -> tuple[list[Op], str | None, Op]:
    """The operators between product and softmax, the mask, and the product (perhaps scaled)."""
    m.only_used(softmax.inputs[0] or "", 1, softmax)
    below = m.producer(softmax, 0, ("Add", "Mul", "Div", "MatMul"))
    if below.op != "Add":
        return [], None, below
    for position in (0, 1):
        found = m.model.producer(below.inputs[position] or "")
        mask = below.inputs[1 - position]
        if found is not None and found.op in ("MatMul", "Mul", "Div") and _is_score(m, found, below):
            m.only_used(found.output, 1, found)
            return [below], mask, found
    raise m.miss("no operand of the sum is a product", below)


def _is_score(m: Matcher, op: Op, add: Op) -> bool:
    """A score has the shape of the sum; a mask is broadcast over heads."""
    return m.model.value(op.output).shape == m.model.value(add.output).shape


def _scale(m: Matcher, op: Op) -> tuple[float, str]:
    if op.op == "Div":
        return 1 / m.scalar(op, 1), op.inputs[0] or ""
    return m.constant_input(op)


def _operand(m: Matcher, product: Op, position: int) -> tuple[str, float, list[Op]]:
    """An operand of the product without the scale it was multiplied with."""
    name = product.inputs[position] or ""
    op = m.model.producer(name)
    if op is None or op.op not in ("Mul", "Div") or len(m.model.users(name)) != 1:
        return name, 1.0, []
    constant = m.model.constant(op.inputs[1] or "")
    if constant is None or constant.size != 1:
        return name, 1.0, []
    factor, source = _scale(m, op)
    return source, factor, [op]


def _untransposed(m: Matcher, name: str, product: Op) -> tuple[str, list[Op]]:
    """k behind k^T: a Transpose of the last two axes, or torch's Reshape, Transpose, Reshape."""
    op = m.model.producer(name)
    m.need(op is not None and op.op in ("Transpose", "Reshape"), "the keys are not transposed", product)
    assert op is not None
    m.only_used(name, 1, op)
    if op.op == "Transpose":
        m.need(op.attrs.get("perm") == (0, 1, 3, 2), "the keys are transposed otherwise", op)
        return op.inputs[0] or "", [op]
    swap = m.producer(op, 0, "Transpose", uses=1)
    m.need(swap.attrs.get("perm") == (0, 2, 1), "the keys are transposed otherwise", swap)
    flat = m.producer(swap, 0, "Reshape", uses=1)
    k = flat.inputs[0] or ""
    before, after = m.model.value(k).shape, m.model.value(name).shape
    same = before is not None and after is not None and (*before[:2], before[3], before[2]) == after
    m.need(same and before is not None and len(before) == 4, "the reshapes around the transposition do not undo", op)
    return k, [flat, swap, op]


def _guard(m: Matcher, softmax: Op) -> tuple[list[Op], Op]:
    """The NaN guard behind the softmax, if any, and the product with v."""
    users = m.model.users(softmax.output)
    if len(users) == 1:
        return [], m.user(softmax.output, "MatMul")
    m.need(not m.model.is_output(softmax.output), "the weights are a graph output", softmax)
    is_nan = next((user for user in users if user.op == "IsNaN"), None)
    m.need(is_nan is not None and len(users) == 2, "the weights are used elsewhere", softmax)
    assert is_nan is not None
    where = m.user(is_nan.output, "Where")
    m.need(where.inputs[2] == softmax.output and where in users, "the guard selects another value", where)
    m.need(m.scalar(where, 1) == 0.0, "the guard does not put 0", where)
    return [is_nan, where], m.user(where.output, "MatMul")


def _produced(m: Matcher, name: str, kind: str, node: Op) -> Op:
    found = m.model.producer(name)
    m.need(found is not None and found.op == kind, f"what is scaled is no {kind}", node)
    assert found is not None
    return found
