"""GELU, written out by exporters, as one operator (Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415).

exact   x/2 (1 + erf(x / sqrt 2))
tanh    x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from eopt.ir.node import Attrs, Op
from eopt.passes.rewrite import Matcher, Replacement, rule

_CUBIC = 0.044715


@rule("gelu", "Erf")
def gelu(m: Matcher, erf: Op) -> Replacement:
    """Any order of the factors x, 1/2 and 1 + erf(x / sqrt 2)."""
    m.only_used(erf.output, 1, erf)
    argument = m.producer(erf, 0, ("Div", "Mul"), uses=1)
    x = _scaled(m, argument, 1 / sqrt(2))
    return _finish(m, x, [argument, erf], erf, "none")


@rule("gelu-tanh", "Tanh")
def gelu_tanh(m: Matcher, tanh: Op) -> Replacement:
    """Any order of the factors; the cube as Pow or as products."""
    m.only_used(tanh.output, 1, tanh)
    argument = m.producer(tanh, 0, "Mul", uses=1)
    factor, inner_name = m.constant_input(argument)
    m.need(np.isclose(factor, sqrt(2 / pi), rtol=1e-3), f"the factor is {factor:g}, not sqrt(2/pi)", argument)
    inner = m.model.producer(inner_name)
    m.need(inner is not None and inner.op == "Add", "the argument of tanh is no sum", argument)
    assert inner is not None
    m.only_used(inner_name, 1, inner)
    cubic, x = m.either(inner, "Mul", uses=1)
    weight, cube_name = m.constant_input(cubic)
    m.need(np.isclose(weight, _CUBIC, rtol=1e-3), f"the cubic coefficient is {weight:g}, not {_CUBIC}", cubic)
    cube = m.model.producer(cube_name)
    m.need(cube is not None, "the cube is not computed", cubic)
    assert cube is not None
    return _finish(m, x, [*_cube(m, cube, x), cubic, inner, argument, tanh], tanh, "tanh")


def _scaled(m: Matcher, op: Op, factor: float) -> str:
    """The operand x of `x * factor`, written as a product or as a division."""
    if op.op == "Div":
        m.scalar(op, 1, near=1 / factor)
        return op.inputs[0] or ""
    actual, x = m.constant_input(op)
    m.need(np.isclose(actual, factor, rtol=1e-3), f"the factor is {actual:g}, not {factor:g}", op)
    return x


def _cube(m: Matcher, op: Op, x: str) -> list[Op]:
    m.only_used(op.output, 1, op)
    if op.op == "Pow":
        m.scalar(op, 1, near=3.0)
        m.need(op.inputs[0] == x, "the cube is of another value", op)
        return [op]
    m.need(op.op == "Mul", f"the cube is computed by {op.op}", op)
    square, other = m.either(op, "Mul", uses=1)
    m.need(other == x and square.inputs == (x, x), "the cube is of another value", op)
    return [square, op]


def _finish(m: Matcher, x: str, matched: list[Op], last: Op, approximate: str) -> Replacement:
    """From 1 + f(x) on: two products with x and 1/2 in any order, or with x/2 at once."""
    plus_one = m.user(last.output, "Add")
    one, _ = m.constant_input(plus_one)
    m.need(one == 1.0, f"{one:g} is added, not 1", plus_one)
    chain, op, seen_x, seen_half = [*matched, plus_one], plus_one, False, False
    while not (seen_x and seen_half):
        op = m.user(op.output, "Mul")
        previous = chain[-1].output
        other = op.inputs[1] if op.inputs[0] == previous else op.inputs[0]
        half = _half_of(m, other or "", x)
        seen_x, seen_half = seen_x or other == x or half is not None, seen_half or other != x
        m.need(other == x or half is not None or _is_half(m, other or ""), f"{other!r} is neither x nor 1/2", op)
        chain += [half, op] if half is not None else [op]
    node = Op("Gelu", (x,), op.outputs, Attrs.of(approximate=approximate), name=last.name)
    return Replacement(chain, [node])


def _is_half(m: Matcher, name: str) -> bool:
    array = m.model.constant(name)
    return array is not None and array.size == 1 and float(array.reshape(-1)[0]) == 0.5


def _half_of(m: Matcher, name: str, x: str) -> Op | None:
    """The operator that computes x/2, if that is what `name` is and nobody else uses it."""
    op = m.model.producer(name)
    if op is None or op.op != "Mul" or x not in op.inputs or len(m.model.users(name)) != 1 or m.model.is_output(name):
        return None
    other = op.inputs[1] if op.inputs[0] == x else op.inputs[0]
    return op if _is_half(m, other or "") else None
