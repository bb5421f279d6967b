"""Questions a rewrite rule asks about a model, each answered with a value or with the reason why there is none."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import Value
from eopt.passes.operands import Operands, flattened, precision, scalar_of

Array = np.ndarray[Any, Any]
Fact = tuple[Literal["producer", "users"], str]
"""Something a rule was told about a value: what computes it (or that it is a weight), or who reads it."""

T = TypeVar("T")


class Miss(Exception):
    """Why a rule does not apply at a node."""

    def __init__(self, reason: str, node: Op | None = None) -> None:
        super().__init__(reason)
        self.reason, self.node = reason, node


class View:
    """The model as a rule sees it. It notes what it is asked: only a rewrite that changes one of these facts can make
    a rule that missed match, so the driver tries it again exactly then."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.asked: dict[Fact, None] = {}

    def producer(self, value: str) -> Op | None:
        """See `Model.producer`."""
        self.asked["producer", value] = None
        return self._model.producer(value)

    def users(self, value: str) -> tuple[Op, ...]:
        """See `Model.users`."""
        self.asked["users", value] = None
        return self._model.users(value)

    def value(self, name: str) -> Value:
        """See `Model.value`."""
        self.asked["producer", name] = None
        return self._model.value(name)

    def constant(self, name: str) -> Array | None:
        """See `Model.constant`."""
        self.asked["producer", name] = None
        return self._model.constant(name)

    def is_output(self, value: str) -> bool:
        """See `Model.is_output`; no rewrite changes it."""
        return self._model.is_output(value)

    def fresh(self, stem: str) -> str:
        """See `Model.fresh`."""
        return self._model.fresh(stem)

    def path(self, uid: int) -> str:
        """See `Model.path`."""
        return self._model.path(uid)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self._model.opsets.get("", 0)


class Matcher:
    """Questions a rule asks about the model; every one that is answered no raises `Miss` with the reason.

    Attributes:
        model: what is not asked here.
        held: conditions that held so far: how far a rule came before it missed.
    """

    def __init__(self, model: Model) -> None:
        self.model = View(model)
        self.held = 0

    def miss(self, reason: str, node: Op | None = None) -> NoReturn:
        """Give up."""
        raise Miss(reason, node)

    def need(self, holds: object, reason: str, node: Op | None = None) -> None:
        """Give up unless something holds."""
        if not holds:
            raise Miss(reason, node)
        self.held += 1

    def best(self, *ways: Callable[[], T]) -> T:
        """The first way that works; where none does, the reason of the one that came furthest.

        For the few choices that looking at the operands alone does not decide. Nested, they would multiply: rules have
        one such choice, and decide the others by `either`, `constant_input` and `operands`.
        """
        misses: list[tuple[int, Miss]] = []
        start = self.held
        for way in ways:
            self.held = start
            try:
                return way()
            except Miss as miss:
                misses.append((self.held, miss))
        raise max(misses, key=lambda pair: pair[0])[1]

    def producer(self, op: Op, position: int, kind: str | tuple[str, ...], *, domain: str = "", uses: int = 0) -> Op:
        """The operator behind an input; `uses` > 0 demands that many users and that the value is no graph output."""
        name = op.inputs[position] if position < len(op.inputs) else None
        found = self.model.producer(name) if name else None
        kinds = (kind,) if isinstance(kind, str) else kind
        if name is None or found is None or found.op not in kinds or found.domain != domain:
            actual = "nothing" if found is None else found.op
            raise Miss(f"input {position} of {op.op} comes from {actual}, not from {' or '.join(kinds)}", found or op)
        self.held += 1
        if uses:
            self.only_used(name, uses, found)
        return found

    def only_used(self, value: str, uses: int, node: Op) -> None:
        """Demand that a value may disappear: exactly so many users, and no graph output."""
        count = len(self.model.users(value))
        other = "is a graph output" if self.model.is_output(value) else f"has {count} users, not {uses}"
        self.need(count == uses and not self.model.is_output(value), f"{value!r} {other}", node)

    def user(self, value: str, kind: str | tuple[str, ...], *, domain: str = "") -> Op:
        """The single user of a value that is no graph output either."""
        self.need(not self.model.is_output(value), f"{value!r} is a graph output", self.model.producer(value))
        users = self.model.users(value)
        kinds = (kind,) if isinstance(kind, str) else kind
        if len(users) != 1 or users[0].op not in kinds or users[0].domain != domain:
            listed = ", ".join(user.op for user in users) or "nothing"
            raise Miss(f"{value!r} is used by {listed}, not by {' or '.join(kinds)} alone", self.model.producer(value))
        self.held += 1
        return users[0]

    def either(self, op: Op, kind: str | tuple[str, ...], *, uses: int = 0) -> tuple[Op, str]:
        """For a commutative operator: the operator of that kind behind one input, and the name of the other input.

        The operands alone decide, by what produces them; where both could be meant, the first is.
        """
        return self.best(*(partial(self._behind, op, position, kind, uses) for position in (0, 1)))

    def _behind(self, op: Op, position: int, kind: str | tuple[str, ...], uses: int) -> tuple[Op, str]:
        found = self.producer(op, position, kind, uses=uses)
        return found, op.inputs[1 - position] or ""

    def constant(self, op: Op, position: int) -> Array:
        """The array behind an input."""
        name = op.inputs[position] if position < len(op.inputs) else None
        array = self.model.constant(name) if name else None
        if array is None:
            raise Miss(f"input {position} of {op.op} is no constant", op)
        self.held += 1
        return array

    def constant_input(self, op: Op) -> tuple[float, str]:
        """For a commutative operator: the scalar constant among its two inputs, and the name of the other."""
        for position in (0, 1):
            other = op.inputs[1 - position]
            number = scalar_of(self.model, op.inputs[position], other)
            if number is not None and other:
                self.held += 1
                return number, other
        raise Miss(f"no input of {op.op} is a scalar constant", op)

    def scalar(self, op: Op, position: int, near: float | None = None) -> float:
        """The scalar constant behind an input, equal to `near` up to rounding in its own type when given."""
        array = self.constant(op, position)
        beside = op.inputs[1 if position == 0 else 0]
        value = scalar_of(self.model, op.inputs[position], beside)
        if value is None:
            raise Miss(f"input {position} of {op.op} has {array.size} elements of rank {array.ndim}, no scalar", op)
        if near is not None and abs(value - near) > precision(array) * abs(near):
            raise Miss(f"input {position} of {op.op} is {value:g}, not {near:g}", op)
        self.held += 1
        return value

    def operands(self, op: Op, atoms: Collection[str] = ()) -> Operands:
        """What an `Add` or a `Mul` joins, however it is nested and ordered; see `flattened`."""
        found = flattened(self.model, op, atoms)
        if found is None:
            raise Miss(f"{op.op} joins no operands in any order", op)
        self.held += 1
        return found
