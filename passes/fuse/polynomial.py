"""Expressions of one value as polynomials: `0.04*x*x*x + x`, `x*(1 + x*(x*0.04))` and `Pow(x, 3)*0.04 + x` are one.

The coefficients are the normal form that rules compare, so that no order or nesting has to be tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eopt.ir.node import Op
from eopt.passes.match import Matcher
from eopt.passes.operands import precision, scalar_of

DEGREE = 3
LARGEST = 16  # operators; more are no expression an exporter writes for an activation


@dataclass(frozen=True)
class Polynomial:
    """Coefficients by power, the operators that compute it, and how exactly its constants are written."""

    terms: Mapping[int, float]
    ops: tuple[Op, ...]
    precision: float

    def near(self, power: int, wanted: float) -> bool:
        """True when this coefficient is the one wanted, up to rounding."""
        return abs(self.terms.get(power, 0.0) - wanted) <= self.precision * abs(wanted)


def polynomial(m: Matcher, name: str, x: str) -> Polynomial:
    """The polynomial in x that a value is; nobody else may use what lies between."""
    reader = _Reader(m, x)
    terms = reader.read(name)
    return Polynomial(terms, tuple({op.uid: op for op in reader.ops}.values()), reader.precision)


_Terms = dict[int, float]


class _Reader:
    def __init__(self, m: Matcher, x: str) -> None:
        self.m, self.x, self.ops, self.precision = m, x, list[Op](), 0.0

    def read(self, name: str) -> _Terms:
        """One operand; the depth of the recursion is bounded by `LARGEST`."""
        if name == self.x:
            return {1: 1.0}
        number = scalar_of(self.m.model, name, self.x)
        if number is not None:
            array = self.m.model.constant(name)
            self.precision = max(self.precision, 0.0 if array is None else precision(array))
            return {0: number}
        op = self.m.model.producer(name)
        if op is None or op.domain or op.op not in ("Mul", "Add", "Sub", "Div", "Pow"):
            self.m.miss(f"{name!r} is no expression of {self.x!r}", op)
        self.m.only_used(name, 1, op)
        self.ops.append(op)
        self.m.need(len(self.ops) <= LARGEST, f"{name!r} is part of too long an expression", op)
        return self._combined(op, self.read(op.inputs[0] or ""), self.read(op.inputs[1] or ""))

    def _combined(self, op: Op, left: _Terms, right: _Terms) -> _Terms:
        if op.op == "Mul":
            return self._product(op, left, right)
        if op.op in ("Add", "Sub"):
            sign = 1.0 if op.op == "Add" else -1.0
            return {power: left.get(power, 0.0) + sign * right.get(power, 0.0) for power in {**left, **right}}
        number = right.get(0, 0.0) if right.keys() == {0} else 0.0
        if op.op == "Div":
            self.m.need(number, "what divides is no constant", op)
            return {power: factor / number for power, factor in left.items()}
        self.m.need(number in range(1, DEGREE + 1), f"the exponent is {number:g}, not 1, 2 or 3", op)
        result = left
        for _ in range(int(number) - 1):
            result = self._product(op, result, left)
        return result

    def _product(self, op: Op, left: _Terms, right: _Terms) -> _Terms:
        self.m.need(max(left) + max(right) <= DEGREE, f"the degree is beyond {DEGREE}", op)
        product: _Terms = {}
        for power, factor in left.items():
            for other, weight in right.items():
                product[power + other] = product.get(power + other, 0.0) + factor * weight
        return product
