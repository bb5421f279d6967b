"""Rewrite rules: small functions with a reason for every miss, and the driver that applies them under the cost gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Change, Context, Outcome

Array = np.ndarray[Any, Any]


class Miss(Exception):
    """Why a rule does not apply at a node."""

    def __init__(self, reason: str, node: Op | None = None) -> None:
        super().__init__(reason)
        self.reason, self.node = reason, node


@dataclass(frozen=True)
class Replacement:
    """Operators to take out and those to put in; see `Model.replace`."""

    old: Sequence[Op]
    new: Sequence[Op]
    weights: Mapping[str, Array] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)


class Matcher:
    """Questions a rule asks about the model; every one that is answered no raises `Miss` with the reason."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def miss(self, reason: str, node: Op | None = None) -> NoReturn:
        """Give up."""
        raise Miss(reason, node)

    def need(self, holds: object, reason: str, node: Op | None = None) -> None:
        """Give up unless something holds."""
        if not holds:
            raise Miss(reason, node)

    def producer(self, op: Op, position: int, kind: str | tuple[str, ...], *, domain: str = "", uses: int = 0) -> Op:
        """The operator behind an input; `uses` > 0 demands that many users and that the value is no graph output."""
        name = op.inputs[position] if position < len(op.inputs) else None
        found = self.model.producer(name) if name else None
        kinds = (kind,) if isinstance(kind, str) else kind
        if name is None or found is None or found.op not in kinds or found.domain != domain:
            actual = "nothing" if found is None else found.op
            raise Miss(f"input {position} of {op.op} comes from {actual}, not from {' or '.join(kinds)}", found or op)
        if uses:
            self.only_used(name, uses, found)
        return found

    def only_used(self, value: str, uses: int, node: Op) -> None:
        """Demand that a value may disappear: exactly so many users, and no graph output."""
        count = len(self.model.users(value))
        if self.model.is_output(value) or count != uses:
            other = "is a graph output" if self.model.is_output(value) else f"has {count} users, not {uses}"
            raise Miss(f"{value!r} {other}", node)

    def user(self, value: str, kind: str | tuple[str, ...], *, domain: str = "") -> Op:
        """The single user of a value that is no graph output either."""
        self.need(not self.model.is_output(value), f"{value!r} is a graph output", self.model.producer(value))
        users = self.model.users(value)
        kinds = (kind,) if isinstance(kind, str) else kind
        if len(users) != 1 or users[0].op not in kinds or users[0].domain != domain:
            listed = ", ".join(user.op for user in users) or "nothing"
            raise Miss(f"{value!r} is used by {listed}, not by {' or '.join(kinds)} alone", self.model.producer(value))
        return users[0]

    def either(self, op: Op, kind: str | tuple[str, ...], *, uses: int = 0) -> tuple[Op, str]:
        """For a commutative operator: the operator of that kind behind one input, and the name of the other input."""
        for position in (0, 1):
            other = op.inputs[1 - position]
            try:
                found = self.producer(op, position, kind, uses=uses)
            except Miss:
                continue
            if other:
                return found, other
        kinds = kind if isinstance(kind, str) else " or ".join(kind)
        raise Miss(f"no input of {op.op} comes from {kinds}{' alone' if uses else ''}", op)

    def constant(self, op: Op, position: int) -> Array:
        """The array behind an input."""
        name = op.inputs[position] if position < len(op.inputs) else None
        array = self.model.constant(name) if name else None
        if array is None:
            raise Miss(f"input {position} of {op.op} is no constant", op)
        return array

    def constant_input(self, op: Op) -> tuple[float, str]:
        """For a commutative operator: the scalar constant among its two inputs, and the name of the other."""
        for position in (0, 1):
            array = self.model.constant(op.inputs[position] or "")
            other = op.inputs[1 - position]
            if array is not None and array.size == 1 and other:
                return float(array.reshape(-1)[0]), other
        raise Miss(f"no input of {op.op} is a scalar constant", op)

    def scalar(self, op: Op, position: int, near: float | None = None) -> float:
        """The scalar constant behind an input, equal to `near` up to float16 rounding when given."""
        array = self.constant(op, position)
        if array.size != 1:
            raise Miss(f"input {position} of {op.op} has {array.size} elements, not one", op)
        value = float(array.reshape(-1)[0])
        if near is not None and not np.isclose(value, near, rtol=1e-3):
            raise Miss(f"input {position} of {op.op} is {value:g}, not {near:g}", op)
        return value


@dataclass(frozen=True)
class Rule:
    """A rewrite rule.

    Attributes:
        name: what users type after `--passes fuse{rules=[...]}` and `eopt why`.
        anchors: operator types it starts from, as `domain.Type` outside the default domain.
        rewrite: returns what to exchange, or raises `Miss`.
        exempt: it only ever removes work (folding constants), so the cost gate is not asked.
    """

    name: str
    anchors: tuple[str, ...]
    rewrite: Callable[[Matcher, Op], Replacement]
    exempt: bool = False

    def anchored_at(self, op: Op) -> bool:
        """True for operators this rule starts from."""
        return (f"{op.domain}.{op.op}" if op.domain else op.op) in self.anchors


def rule(name: str, *anchors: str, exempt: bool = False) -> Callable[[Callable[[Matcher, Op], Replacement]], Rule]:
    """Declare a function as a rewrite rule."""
    return lambda function: Rule(name, anchors, function, exempt)


def where(model: Model, op: Op) -> str:
    """Module path and name of an operator, for people."""
    path = model.path(op.uid)
    return f"{path}/{op.name or op.op}" if path else op.name or op.op


def apply_rules(model: Model, rules: Iterable[Rule], context: Context, label: str, rounds: int = 8) -> Outcome:
    """Apply rules until none matches any more, each rewrite only if the gate accepts it.

    Rounds are bounded: a set of rules that undo each other ends instead of looping.
    """
    rules = tuple(rules)
    applied: list[Change] = []
    refused: dict[tuple[str, int], Change] = {}
    for _ in range(rounds):
        before = len(applied)
        leaves = model.leaves()
        for number, op in enumerate(leaves):
            context.progress(label, number + 1, len(leaves))
            for candidate in rules:
                if not candidate.anchored_at(op) or op.uid not in model.index.nodes:
                    continue
                if model.node(op.uid) is not op or (candidate.name, op.uid) in refused:
                    continue
                model, change = _attempt(model, candidate, op, context)
                if change is not None and change.reason:
                    refused[candidate.name, op.uid] = change
                elif change is not None:
                    applied.append(change)
        if len(applied) == before:
            break
    return Outcome(model, tuple(applied), tuple(refused.values()))


def _attempt(model: Model, candidate: Rule, op: Op, context: Context) -> tuple[Model, Change | None]:
    place = where(model, op)
    try:
        found = candidate.rewrite(Matcher(model), op)
    except Miss:
        return model, None
    rewritten = model.replace(found.old, found.new, weights=found.weights, renames=found.renames)
    if context.gate is None or candidate.exempt:
        return rewritten, Change(candidate.name, place)
    decision = context.gate.decide(model, rewritten)
    change = Change(candidate.name, place, decision.saved_j, decision.reason)
    return (model, change) if decision.reason else (rewritten, change)


def explain(model: Model, candidate: Rule, op: Op) -> Miss | None:
    """Why a rule does not apply at an operator; None when it does."""
    if not candidate.anchored_at(op):
        return Miss(f"the rule starts from {' or '.join(candidate.anchors)}, not from {op.op}", op)
    try:
        candidate.rewrite(Matcher(model), op)
    except Miss as miss:
        return miss
    return None
