"""Analyses of a whole model, to be memoised with `Model.get`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from eopt.ir.model import Model
from eopt.ir.node import Op

RANDOM = ("Random", "Multinomial", "Bernoulli")  # how the names of operators begin that give another result each time
_PASSES_INDICES_ON = {"Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose"}


def index_limits(model: Model) -> dict[str, int]:
    """For integer inputs that select rows of a weight (token ids): how many rows there are."""
    limits: dict[str, int] = {}
    for value in model.feeds:
        rows = [_rows(model, op, name) for op, name in _readers(model, value.id)]
        known = [count for count in rows if count is not None]
        if known:
            limits[value.id] = min(known)
    return limits


def _readers(model: Model, value: str) -> Iterator[tuple[Op, str]]:
    """Users of a value, looking through operators that only reshape or convert it."""
    pending = [value]
    while pending:
        name = pending.pop()
        for op in model.users(name):
            yield op, name
            if op.op in _PASSES_INDICES_ON and op.inputs[0] == name:
                pending.append(op.output)


def _rows(model: Model, op: Op, indices: str) -> int | None:
    if op.op != "Gather" or len(op.inputs) < 2 or op.inputs[1] != indices:
        return None
    shape = model.value(op.inputs[0] or "").shape
    axis = op.attrs.get("axis", 0)
    rows = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
    return rows if isinstance(rows, int) else None


def constants(model: Model) -> frozenset[int]:
    """Operators that depend on weights only and give the same whenever they run: executors fold them at load time."""
    found: set[int] = set()
    fed = {value.id for value in model.inputs}
    for op in model.leaves():
        producers = [model.producer(name) for name in op.reads]
        fixed = all(
            producer.uid in found if producer else name in model.weights and name not in fed
            for name, producer in zip(op.reads, producers, strict=True)
        )
        if fixed and not op.attrs.graphs and not op.op.startswith(RANDOM):
            found.add(op.uid)
    return frozenset(found)


def with_own(model: Model, members: Sequence[Op], own: Set[int]) -> list[Op]:
    """The members, and those of `own` (uids) that they depend on, in execution order."""
    found = {op.uid: op for op in members}
    waiting = list(members)
    while waiting:
        producers = map(model.producer, waiting.pop().reads)
        new = [op for op in producers if op is not None and op.uid in own and op.uid not in found]
        found.update((op.uid, op) for op in new)
        waiting += new
    return [op for op in model.leaves() if op.uid in found]
