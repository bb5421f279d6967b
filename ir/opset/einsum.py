"""Einsum: one operation per point of the joint index space and operand, as direct evaluation takes."""

from __future__ import annotations

from collections import Counter
from math import prod

from eopt.ir.errors import InputError
from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, traffic
from eopt.ir.opset.shared import wholes

Term = tuple[str, ...]


def _terms(view: OpView) -> tuple[list[Term], Term]:
    """Labels of every axis of every operand, and of the result. Axes an ellipsis stands for are numbered from the
    right, as they are broadcast."""
    equation = str(view.attrs["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    texts = left.split(",")
    if len(texts) != len(view.inputs) or equation.count("->") > 1:
        raise InputError(f"Einsum {equation!r}: {len(texts)} terms for {len(view.inputs)} operands")
    terms = [_term(text, len(view.input(number).shape)) for number, text in enumerate(texts)]
    if arrow:
        return terms, _term(right, len(view.outputs[0].shape))
    counts = Counter(label for term in terms for label in term)
    dots = sorted({label for label in counts if label.startswith(".")}, key=lambda label: -int(label[1:]))
    return terms, (*dots, *sorted(label for label, count in counts.items() if count == 1 and label not in dots))


def _term(text: str, rank: int) -> Term:
    before, dots, behind = text.partition("...")
    width = rank - len(before) - len(behind)
    if width < 0 or "." in before + behind or (width and not dots):
        raise ValueError(f"the term {text!r} does not fit an operand of rank {rank}")
    return (*before, *(f".{width - 1 - number}" for number in range(width)), *behind)


def _work(view: OpView) -> Work:
    """Flops of the direct evaluation: two per point of the joint index space for two operands, one for a single one."""
    terms, _ = _terms(view)
    extents: dict[str, int] = {}
    for number, term in enumerate(terms):
        for label, extent in zip(term, view.input(number).shape, strict=True):
            extents[label] = extent if label not in extents else max(extent, extents[label])
    read, written = traffic(view)
    unit = Unit.MATRIX if len(terms) > 1 else Unit.VECTOR
    return Work(float(len(terms) * prod(extents.values())), read, written, unit, view.input(0).dtype)


def _axes(view: OpView) -> tuple[Tie, ...]:
    """A label of the result maps one to one, any other is summed over; diagonals are mixed."""
    terms, result = _terms(view)
    y = view.outputs[0].shape
    ties = []
    for label in dict.fromkeys(label for term in (*terms, result) for label in term):
        places = [(f"x{number}", axis, 1) for number, term in enumerate(terms) for axis in _at(term, label)]
        extents = {view.input(int(port[1:])).shape[axis] for port, axis, _ in places}
        widest = y[result.index(label)] if label in result else max(extents)
        members = [place for place in places if view.input(int(place[0][1:])).shape[place[1]] == widest]
        members += [("y0", axis, 1) for axis in _at(result, label)]
        if all(term.count(label) < 2 for term in (*terms, result)):
            ties.append(Tie(tuple(members), Role.MAP if label in result else Role.CONTRACT))
    return wholes(view, ties)


def _at(term: Term, label: str) -> list[int]:
    return [axis for axis, own in enumerate(term) if own == label]


declare(["Einsum"], _work, _axes, (Trait.CONTRACTION,))
