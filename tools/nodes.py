"""Operators by what a user types: the name of a node or of a value it computes, else a module and all below it."""

from __future__ import annotations

from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.ir.node import Op


def by_name(model: Model, wanted: str) -> list[Op]:
    """Operators of that name, and those that compute that value."""
    return [op for op in model.leaves() if wanted in (op.name, *(value.id for value in op.outputs))]


def below(model: Model, wanted: str) -> list[Op]:
    """Operators of a module.

    Raises:
        UsageError: there is no such module.
    """
    path = f"{wanted.strip('/')}/"
    found = [op for op in model.leaves() if f"{model.path(op.uid)}/".startswith(path)]
    if not found:
        raise UsageError(f"no node or module {wanted!r} in the model; eopt inspect MODEL shows their names")
    return found
