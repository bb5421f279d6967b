"""What a rewrite rule is: a small function that says what to exchange, or why it does not apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.match import Array, Matcher, Miss
from eopt.passes.worklist import anchor_of


@dataclass(frozen=True)
class Replacement:
    """Operators to take out and those to put in; see `Model.replace`."""

    old: Sequence[Op]
    new: Sequence[Op]
    weights: Mapping[str, Array] = field(default_factory=dict)
    renames: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """A rewrite rule.

    Attributes:
        name: what users type after `--passes fuse{only=...}` and `eopt why`.
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
        return anchor_of(op) in self.anchors


def rule(name: str, *anchors: str, exempt: bool = False) -> Callable[[Callable[[Matcher, Op], Replacement]], Rule]:
    """Declare a function as a rewrite rule."""
    return lambda function: Rule(name, anchors, function, exempt)


class _Placed(Protocol):
    def path(self, uid: int) -> str: ...


def where(model: _Placed, op: Op) -> str:
    """Module path and name of an operator, for people."""
    path = model.path(op.uid)
    return f"{path}/{op.name or op.op}" if path else op.name or op.op


def explain(model: Model, candidate: Rule, op: Op) -> Miss | None:
    """Why a rule does not apply at an operator; None when it does."""
    if not candidate.anchored_at(op):
        return Miss(f"the rule starts from {' or '.join(candidate.anchors)}, not from {op.op}", op)
    try:
        candidate.rewrite(Matcher(model), op)
    except Miss as miss:
        return miss
    return None
