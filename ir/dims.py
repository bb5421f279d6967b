"""Symbolic extents: expressions over the dims of the inputs, and those nobody has written down, found by trying.

Exporters write extents as `2*batch` or `Min(512, sequence)`. What shape inference cannot follow gets a made-up name;
the model is then specialised at a few points, and an extent that is one polynomial at all of them is that polynomial.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import combinations
from math import prod

import numpy as np
from immutables import Map

from eopt.ir.model import Model
from eopt.ir.specialize import specialize
from eopt.ir.surgery import retyped
from eopt.ir.types import Shape, Value, bind, concrete

MAX_TEXT = 512
MAX_EXTENT = 1 << 62
MAX_DIMS = 3  # of the inputs: 2 to that power points are tried
_POINTS = ((3, 5, 7), (4, 9, 13))  # a low and a high extent for each dim, coprime so that their products differ
_CHECKS = ((6, 11, 17), (509, 512, 131))  # no polynomial is believed that fails at one of these
_FURTHER = ((3, 1021, 514), (1021, 4099, 2050), (2, 32771, 4099))  # how far they hold: some models have a last position
_OPERATIONS: Mapping[type, Callable[[int, int], int]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Div: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_FUNCTIONS: Mapping[str, Callable[..., int]] = {
    "Min": min,
    "Max": max,
    "floor": lambda a: a,
    "Mod": lambda a, b: a % b,
    "FloorDiv": lambda a, b: a // b,
    "CeilDiv": lambda a, b: -(-a // b),
}


def evaluate(text: str, bindings: Mapping[str, int]) -> int | None:
    """The value of a dim expression; None when a name in it has no value or it is no expression."""
    if text in bindings:
        return bindings[text]
    tree = _parsed(text)
    try:
        found = None if tree is None else _value(tree, bindings)
    except (ArithmeticError, TypeError, RecursionError):
        return None
    return found if found is not None and 0 <= found < MAX_EXTENT else None


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr | None:
    if len(text) > MAX_TEXT or text.isidentifier():
        return None
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _value(node: ast.expr, bindings: Mapping[str, int]) -> int | None:
    """Recursion is bounded by the length of the text."""
    match node:
        case ast.Constant(value=int(number)):
            return int(number)
        case ast.Name(id=name):
            return bindings.get(name)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            return _apply(_OPERATIONS[type(operation)], (left, right), bindings)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _apply(lambda a: -a, (operand,), bindings)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _apply(_FUNCTIONS[name], arguments, bindings)
    return None


def _apply(function: Callable[..., int], operands: Sequence[ast.expr], bindings: Mapping[str, int]) -> int | None:
    values = [_value(operand, bindings) for operand in operands]
    if any(value is None or abs(value) > MAX_EXTENT for value in values):
        return None
    return function(*values)


@dataclass(frozen=True)
class Polynomial:
    """A sum of products of distinct dims, each with an integer factor."""

    terms: tuple[tuple[int, tuple[str, ...]], ...]

    def at(self, bindings: Mapping[str, int]) -> int:
        """Its value."""
        return sum(factor * prod(bindings[name] for name in names) for factor, names in self.terms)


@dataclass(frozen=True)
class Late:
    """A model analysed once, whose dims are bound late.

    Attributes:
        model: with a shape for every value, as far as one is known for all extents.
        polynomials: what the names made up for extents stand for.
        complete: every dim of every value follows from those of the inputs.
        limits: extents up to which the polynomials were tried; none are needed where everything was written down.
    """

    model: Model
    polynomials: Mapping[str, Polynomial]
    complete: bool
    limits: Mapping[str, int] = field(default_factory=dict)

    def covers(self, bindings: Mapping[str, int]) -> bool:
        """True when `model` has the shapes of all values at these extents."""
        return self.complete and all(bindings.get(name, 0) <= limit for name, limit in self.limits.items())

    def bound(self, bindings: Mapping[str, int]) -> Map[str, int]:
        """Values of all dims of the model that follow from the given ones."""
        values = dict(bindings)
        for name in self._names:
            found = evaluate(name, bindings) if name not in self.polynomials else self.polynomials[name].at(bindings)
            if found is not None:
                values[name] = found
        return Map(values)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        shapes = (value.shape or () for op in self.model.leaves() for value in op.outputs)
        return tuple(dict.fromkeys(dim for shape in shapes for dim in shape if isinstance(dim, str)))


def late(model: Model) -> Late:
    """What is written down of the symbolic dims of a model; meant for `Model.get`."""
    return Late(model, {}, not _unknown(model))


def tried(model: Model) -> Late:
    """Also what can be found by trying, which takes a dozen shape inferences; meant for `Model.get`."""
    names, unknown = sorted(_free(model)), _unknown(model)
    return _tried(model, names, unknown) if unknown and 0 < len(names) <= MAX_DIMS else model.get(late)


def _free(model: Model) -> set[str]:
    """Names of the input dims that somebody has to bind."""
    return {dim for feed in model.feeds for dim in feed.shape or () if isinstance(dim, str) and _parsed(dim) is None}


def _unknown(model: Model) -> list[Value]:
    probe = dict.fromkeys(_free(model), 7)
    return [value for op in model.leaves() for value in op.outputs if value.id and not _follows(value, probe)]


def _follows(value: Value, probe: Mapping[str, int]) -> bool:
    if value.dtype is None or value.shape is None:
        return False
    return all(isinstance(dim, int) or evaluate(dim, probe) is not None for dim in value.shape)


def filled(model: Model, sample: Model) -> Model:
    """A copy in which values with unknown dims have the shapes they have in a specialised model."""
    return retyped(model, {value.id: sample.value(value.id) for value in _unknown(model)})


def _tried(model: Model, names: Sequence[str], unknown: Sequence[Value]) -> Late:
    corners = [tuple(_POINTS[bits >> axis & 1][axis] for axis in range(len(names))) for bits in range(1 << len(names))]
    points = [dict(zip(names, extents, strict=False)) for extents in (*corners, *_CHECKS)]
    samples = [specialize(model, point) for point in points]
    products = [chosen for count in range(len(names) + 1) for chosen in combinations(names, count)]
    fitting = _Fitting(points, products, len(corners))
    shapes = {value.id: fitting.shape([sample.value(value.id) for sample in samples]) for value in unknown}
    found = [Value(value.id, samples[0].value(value.id).dtype, shapes[value.id]) for value in unknown]
    known = {value.id: value for value in found if value.shape is not None and value.dtype is not None}
    tensors = {value.id for value in found if value.dtype is not None}  # sequences and maps have no shape to be found
    analysed = Late(retyped(model, known), fitting.polynomials, len(known) == len(tensors))
    return replace(analysed, limits=_limits(analysed, model, names, points)) if analysed.complete else analysed


def _limits(analysed: Late, model: Model, names: Sequence[str], points: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """The largest extents at which every value still has the shape that the polynomials say."""
    held = list(points)
    for extents in _FURTHER:
        point = dict(zip(names, extents, strict=False))
        if not _same_shapes(analysed, specialize(model, point), point):
            break
        held.append(point)
    return {name: max(point[name] for point in held) for name in names}


def _same_shapes(analysed: Late, sample: Model, point: Mapping[str, int]) -> bool:
    bound = analysed.bound(point)
    expected = ((value.id, value.shape) for op in analysed.model.leaves() for value in op.outputs if value.shape)
    return all(concrete(sample.value(name).shape) == concrete(bind(shape, bound)) for name, shape in expected)


class _Fitting:
    """Extents seen at all points, and the polynomials behind them."""

    def __init__(self, points: Sequence[Mapping[str, int]], products: Sequence[tuple[str, ...]], exact: int) -> None:
        self.points, self.products = points, products
        self.corners = np.array([[prod(p[n] for n in chosen) for chosen in products] for p in points[:exact]], float)
        self.polynomials: dict[str, Polynomial] = {}
        self._names: dict[tuple[int, ...], str | None] = {}

    def shape(self, seen: Sequence[Value]) -> Shape | None:
        """The shape at all points as one; None when an extent is no polynomial."""
        shapes = [concrete(value.shape) for value in seen]
        known = [shape for shape in shapes if shape is not None]
        if len(known) < len(shapes) or len({len(shape) for shape in known}) > 1:
            return None
        dims = [values[0] if len(set(values)) == 1 else self._dim(values) for values in zip(*known, strict=True)]
        return None if any(dim is None for dim in dims) else tuple(dim for dim in dims if dim is not None)

    def _dim(self, values: tuple[int, ...]) -> str | None:
        if values not in self._names:
            self._names[values] = self._fitted(values)
        return self._names[values]

    def _fitted(self, values: tuple[int, ...]) -> str | None:
        solved = np.rint(np.linalg.solve(self.corners, np.array(values[: len(self.corners)], float))).astype(int)
        terms = zip(solved.tolist(), self.products, strict=True)
        found = Polynomial(tuple((factor, names) for factor, names in terms if factor))
        if any(found.at(point) != value for point, value in zip(self.points, values, strict=True)):
            return None
        name = f"extent.{len(self.polynomials)}"
        self.polynomials[name] = found
        return name
