"""Pieces that normalisations share: the mean over the last axis, a square, a small constant under a root, and what
is divided by that root."""

from __future__ import annotations

from dataclasses import dataclass

from eopt.ir.node import Op
from eopt.ir.types import DType, Value
from eopt.passes.rewrite import Matcher

LARGEST_EPSILON = 1e-2


@dataclass(frozen=True)
class Normalised:
    """x / root, times a constant vector if there is one: the operators, and the last of them."""

    ops: tuple[Op, ...]
    last: Op
    scale: str | None


def mean_over_last(m: Matcher, op: Op) -> Op:
    """Demand a ReduceMean over the last axis that keeps it."""
    m.need(op.op == "ReduceMean", f"{op.op} computes no mean", op)
    axes = m.constant(op, 1).reshape(-1).tolist() if len(op.inputs) > 1 and op.inputs[1] else op.attrs.get("axes")
    shape = m.model.value(op.inputs[0] or "").shape
    m.need(shape is not None, "the rank is unknown", op)
    last = len(shape or ()) - 1
    m.need(axes and tuple(axes) in ((-1,), (last,)), f"the mean is over axes {axes}, not the last", op)
    m.need(op.attrs.get("keepdims", 1) == 1, "the mean drops its axis", op)
    return op


def square_of(m: Matcher, op: Op) -> str:
    """The value an operator squares, as Pow(x, 2) or as x * x."""
    if op.op == "Pow":
        m.scalar(op, 1, near=2.0)
    else:
        m.need(op.inputs[0] == op.inputs[1], "the factors differ: no square", op)
    return op.inputs[0] or ""


def with_epsilon(m: Matcher, root: Op) -> tuple[tuple[Op, ...], float, Op]:
    """For sqrt(y + e): the sum, e, and the operator that computes y."""
    plus = m.producer(root, 0, "Add", uses=1)
    total = m.operands(plus)
    m.need(len(total.names) == 1, "the sum under the root has no small constant", plus)
    m.need(0 <= total.scalar <= LARGEST_EPSILON, f"{total.scalar:g} is no small constant", plus)
    m.only_used(total.names[0], 1, plus)
    found = m.model.producer(total.names[0])
    if found is None:
        m.miss("the variance is not computed", plus)
    return total.ops, total.scalar, found


def input_of(m: Matcher, name: str, node: Op) -> tuple[Value, int]:
    """What is normalised, and the extent of its last axis.

    The fused operators compute in float32 at least and, as onnxruntime has them, at most: float64 stays written out.
    """
    x = m.model.value(name)
    extent = x.shape[-1] if x.shape else None
    if not isinstance(extent, int):
        m.miss("the normalised extent is unknown", node)
    m.need(x.dtype is not None and x.dtype.is_float, "the type is unknown", node)
    m.need(x.dtype is not DType.FLOAT64, "float64 would be computed in float32", node)
    return x, extent


def normalised(m: Matcher, root: Op, x: str, extent: int) -> Normalised:
    """What is made of x and the root: a quotient, or a product with the reciprocal, in any order and nesting."""
    op = m.user(root.output, ("Div", "Reciprocal"))
    ops, names = _numerator(m, op, x)
    while x not in names:
        inside = op.output
        op = m.user(inside, "Mul")
        side = m.operands(op, atoms=(inside, x))
        m.need(side.near(1.0), f"it is multiplied with {side.scalar:g} too", op)
        ops, names = (*ops, *side.ops), (*names, *side.without(inside))
        m.need(len(names) <= 2, "the root divides another value", op)
    others = list(names)
    others.remove(x)
    if others:
        m.need(_is_scale(m, others[0], extent), f"{others[0]!r} is no constant of the normalised extent", op)
        return Normalised(ops, op, others[0])
    scaled, scale = _scaled(m, op, extent)
    return Normalised((*ops, scaled), scaled, scale) if scaled else Normalised(ops, op, None)


def _numerator(m: Matcher, op: Op, x: str) -> tuple[tuple[Op, ...], tuple[str, ...]]:
    """The operators and factors of what the root divides: none for a reciprocal."""
    above = op.inputs[0] or ""
    array = m.model.constant(above) if op.op == "Div" else None
    if op.op == "Reciprocal" or (array is not None and array.size == 1 and float(array.reshape(-1)[0]) == 1.0):
        return (op,), ()
    product = m.model.producer(above)
    if above == x or product is None or product.op != "Mul" or len(m.model.users(above)) != 1:
        m.need(above == x, "the root divides another value", op)
        return (op,), (x,)
    found = m.operands(product, atoms=(x,))
    m.need(x in found.names and len(found.names) <= 2 and found.near(1.0), "the root divides another value", op)
    m.only_used(above, 1, product)
    return (op, *found.ops), found.names


def _scaled(m: Matcher, op: Op, extent: int) -> tuple[Op | None, str | None]:
    """The product with a constant vector behind it, if that is all that is done with it."""
    users = m.model.users(op.output)
    if m.model.is_output(op.output) or len(users) != 1 or users[0].op != "Mul":
        return None, None
    (user,) = users
    scale = user.inputs[1] if user.inputs[0] == op.output else user.inputs[0]
    return (user, scale) if scale and _is_scale(m, scale, extent) else (None, None)


def _is_scale(m: Matcher, name: str, extent: int) -> bool:
    array = m.model.constant(name)
    return array is not None and array.shape == (extent,)
