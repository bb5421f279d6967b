"""Pieces that normalisations share: the mean over the last axis, a square, and a small constant under a root."""

from __future__ import annotations

from eopt.ir.node import Op
from eopt.passes.rewrite import Matcher

LARGEST_EPSILON = 1e-2


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


def with_epsilon(m: Matcher, root: Op) -> tuple[Op, float, Op]:
    """For sqrt(y + e): the sum, e, and the operator that computes y."""
    plus = m.producer(root, 0, "Add", uses=1)
    epsilon, name = m.constant_input(plus)
    m.need(0 <= epsilon <= LARGEST_EPSILON, f"{epsilon:g} is no small constant", plus)
    m.only_used(name, 1, plus)
    found = m.model.producer(name)
    m.need(found is not None, "the variance is not computed", plus)
    assert found is not None
    return plus, epsilon, found
