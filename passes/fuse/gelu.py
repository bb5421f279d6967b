"""GELU, written out by exporters, as one operator (Hendrycks and Gimpel, https://arxiv.org/abs/1606.08415).

exact   x/2 (1 + erf(x / sqrt 2))
tanh    x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))

The factors are found from the inside out, which gives x; the argument then has to be the right polynomial in x.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt

from eopt.ir.node import Attrs, Op
from eopt.passes.fuse.polynomial import polynomial
from eopt.passes.rewrite import Matcher, Miss, Replacement, rule

_CUBIC = 0.044715


@dataclass(frozen=True)
class _Outer:
    """x/2 (1 + f), without f: x, the operators, and the last of them."""

    x: str
    ops: tuple[Op, ...]
    last: Op


@rule("gelu", "Erf")
def gelu(m: Matcher, erf: Op) -> Replacement:
    """Any order and nesting of the factors x, 1/2 and 1 + erf(x / sqrt 2)."""
    outer = _outer(m, erf)
    inner = polynomial(m, erf.inputs[0] or "", outer.x)
    factor = inner.terms.get(1, 0.0)
    m.need(factor and max(inner.terms) == 1 and not inner.terms.get(0), "the argument of erf is no multiple of x", erf)
    m.need(inner.near(1, sqrt(0.5)), f"the divisor of x is {1 / factor:g}, not {sqrt(2):g}", inner.ops[0])
    return _fused(m, outer, (*inner.ops, erf), erf, "none")


@rule("gelu-tanh", "Tanh")
def gelu_tanh(m: Matcher, tanh: Op) -> Replacement:
    """Any order and nesting of the factors; the cube as Pow or as products, inside or outside of the bracket."""
    outer = _outer(m, tanh)
    inner = polynomial(m, tanh.inputs[0] or "", outer.x)
    factor, cubic = inner.terms.get(1, 0.0), inner.terms.get(3, 0.0)
    m.need(factor and not inner.terms.get(0), "the argument of tanh is no multiple of x", tanh)
    m.need(max(inner.terms) == 3, f"the degree of the argument is {max(inner.terms)}, not 3", tanh)
    m.need(not inner.terms.get(2), "the argument of tanh has a square", tanh)
    m.need(inner.near(1, sqrt(2 / pi)), f"the factor is {factor:g}, not sqrt(2/pi)", inner.ops[0])
    m.need(inner.near(3, sqrt(2 / pi) * _CUBIC), f"the cubic coefficient is {cubic / factor:g}, not {_CUBIC}", tanh)
    return _fused(m, outer, (*inner.ops, tanh), tanh, "tanh")


def _outer(m: Matcher, last: Op) -> _Outer:
    """From 1 + f on outwards: products, until x and 1/2 have been seen."""
    op = m.user(last.output, "Add")
    total = m.operands(op, atoms=(last.output,))
    m.need(total.names == (last.output,), "another value is added", op)
    m.need(total.near(1.0), f"{total.scalar:g} is added, not 1", op)
    ops, x, half = total.ops, "", 1.0
    while not x or abs(half - 0.5) > 1e-6:
        inside, op = op.output, _next(m, op, x, half)
        side = m.operands(op, atoms=(inside, x))
        others, half = side.without(inside), half * side.scalar
        m.need(len(others) + bool(x) <= 1, f"{''.join(others[-1:])!r} is neither x nor 1/2", op)
        ops, x = (*ops, *side.ops), x or "".join(others)
    return _Outer(x, ops, op)


def _next(m: Matcher, op: Op, x: str, half: float) -> Op:
    """The next product; where there is none, what is wrong with the factors is the better reason."""
    try:
        return m.user(op.output, ("Mul", "Div"))
    except Miss:
        if not x or half == 1.0:
            raise
        raise Miss(f"the factor {half:g} is neither x nor 1/2", op) from None


def _fused(m: Matcher, outer: _Outer, inner: tuple[Op, ...], anchor: Op, approximate: str) -> Replacement:
    node = Op("Gelu", (outer.x,), outer.last.outputs, Attrs.of(approximate=approximate), name=anchor.name)
    return Replacement([*inner, *outer.ops], [node])
