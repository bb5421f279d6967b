"""Associative and commutative operators in normal form: `a*(b*2)` and `(2*a)*b` are both the factors a, b and 2.

Two expressions are compared by their normal forms. That costs time linear in their size; trying the orders of n
commutative operators costs 2^n.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from eopt.ir.node import Op
from eopt.ir.types import Value

LARGEST = 16  # operators in one chain; more are left to themselves, so that a look at an operator costs a constant
_UNDOES = {"Div": "Mul", "Sub": "Add"}  # x / 2 has the factors x and 1/2
_NEUTRAL = {"Mul": 1.0, "Add": 0.0}

# Constants are written by exporters from the exact figure, rounded to their type, or typed with five digits; what an
# Exact contract accepts in float32 is 1e-4. The narrow types: one unit in the last place.
_PRECISION = {"float16": 1e-3, "bfloat16": 8e-3}
_DIGITS = 1e-5


class Graph(Protocol):
    """The questions asked here; `Model` and `View` answer them."""

    def producer(self, value: str) -> Op | None: ...

    def users(self, value: str) -> tuple[Op, ...]: ...

    def value(self, name: str) -> Value: ...

    def constant(self, name: str) -> np.ndarray[Any, Any] | None: ...

    def is_output(self, value: str) -> bool: ...


@dataclass(frozen=True)
class Operands:
    """What a chain of operators joins.

    Attributes:
        ops: the operators of the chain, the last first.
        names: operands that are no scalar constants, one entry for each time they take part.
        scalar: the scalar constants multiplied (or added); 1 (or 0) where there are none.
        precision: how exactly the scalar is written.
    """

    ops: tuple[Op, ...]
    names: tuple[str, ...]
    scalar: float
    precision: float = _DIGITS

    def near(self, wanted: float) -> bool:
        """True when the scalar is this one, up to rounding."""
        return abs(self.scalar - wanted) <= self.precision * abs(wanted)

    def without(self, name: str) -> tuple[str, ...]:
        """The names with one entry of this one taken out."""
        at = self.names.index(name)
        return self.names[:at] + self.names[at + 1 :]


def precision(array: np.ndarray[Any, Any]) -> float:
    """How far a constant may be from the figure it stands for, relative to it."""
    return _PRECISION.get(array.dtype.name, _DIGITS)


def scalar_of(graph: Graph, name: str | None, beside: str | None) -> float | None:
    """The number behind a constant that leaves the shape of the operand beside it as it is; else None."""
    array = graph.constant(name) if name else None
    if array is None or array.size != 1 or array.dtype.kind in "OSUcb":
        return None
    shape = graph.value(beside).shape if array.ndim and beside else ()
    if shape is None or array.ndim > len(shape):
        return None
    return float(array.reshape(-1)[0])


def flattened(graph: Graph, op: Op, atoms: Collection[str] = ()) -> Operands | None:
    """The operands of a chain of one type that ends in `op`, or None where that is neither sum nor product.

    Looks through operands computed by the same type for this one use. `atoms` are never looked into.
    """
    kind = _joins(graph, op)
    if kind is None:
        return None
    ops, names, scalar, digits = [op], list[str](), _NEUTRAL[kind], 0.0
    pending = _split(graph, op)
    while pending:
        name, number = pending.pop()
        if number is not None:
            scalar = scalar * number if kind == "Mul" else scalar + number
            digits = max(digits, _precision_of(graph, name))
            continue
        below = None if name in atoms or len(ops) == LARGEST else _inner(graph, name, kind, [*pending, *names])
        if below is None:
            names.append(name)
            continue
        ops.append(below)
        pending += _split(graph, below)
    return Operands(tuple(ops), tuple(names), scalar, digits or _DIGITS)


def _joins(graph: Graph, op: Op) -> str | None:
    """`Mul` or `Add`; a division counts as a product when it is one with a constant, in a type with fractions."""
    if op.domain or len(op.inputs) != 2:
        return None
    if op.op in _NEUTRAL:
        return op.op
    dtype = graph.value(op.output).dtype
    by = scalar_of(graph, op.inputs[1], op.inputs[0])
    exact = dtype is not None and dtype.is_float and by not in (None, 0.0)
    return _UNDOES.get(op.op) if exact else None


_Operand = tuple[str, float | None]


def _split(graph: Graph, op: Op) -> list[_Operand]:
    """Both operands, each with its number where it is a scalar constant."""
    left, right = op.inputs[0] or "", op.inputs[1] or ""
    numbers = scalar_of(graph, left, right), scalar_of(graph, right, left)
    if op.op in _UNDOES and numbers[1] is not None:
        return [(left, None), (right, 1 / numbers[1] if op.op == "Div" else -numbers[1])]
    return [(left, numbers[0] if numbers[1] is None else None), (right, numbers[1])]


def _inner(graph: Graph, name: str, kind: str, others: Collection[str | _Operand]) -> Op | None:
    """The operator behind an operand if it continues the chain and nothing else reads it, not even this chain."""
    op = graph.producer(name)
    if op is None or _joins(graph, op) != kind or graph.is_output(name) or len(graph.users(name)) != 1:
        return None
    return None if name in others or (name, None) in others else op


def _precision_of(graph: Graph, name: str) -> float:
    array = graph.constant(name)
    return _DIGITS if array is None else precision(array)
