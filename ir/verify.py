"""The invariants of a model, checked in one place: after import, after every pass, before export."""

from __future__ import annotations

from eopt.ir.errors import EoptError
from eopt.ir.model import Model
from eopt.ir.node import Op, Region
from eopt.ir.types import Value


class VerifyError(EoptError):
    """A model breaks an invariant of the IR: a bug in a pass or a malformed file."""

    exit_code = 3


def verify(model: Model) -> None:
    """Check that ids are unique, every value has one producer and its users come later, and every read resolves.

    Regions hold consecutive leaves of a topological order, so each is convex by construction.

    Raises:
        VerifyError: naming the operator and the value.
    """
    _check_ids(model)
    taken = [value.id for value in model.inputs]
    if len(set(taken)) < len(taken):
        raise VerifyError(f"graph input {max(taken, key=taken.count)!r} is declared twice")
    known = set(taken) | set(model.weights)
    known |= {sparse.values.name for sparse in model.envelope.skeleton.graph.sparse_initializer}
    for op in model.leaves():
        for name in op.reads:
            if name not in known:
                raise VerifyError(f"{_where(model, op)}: reads {name!r} before anything produces it")
        for value in op.outputs:
            if value.id and value.id in known:
                raise VerifyError(f"{_where(model, op)}: {value.id!r} already has a producer")
            known.add(value.id)
    declared: dict[str, Value] = {}
    for value in model.outputs:
        if value.id not in known:
            raise VerifyError(f"graph output {value.id!r} is never produced")
        if declared.setdefault(value.id, value) != value:
            raise VerifyError(f"graph output {value.id!r} is declared twice, with different types")


def _where(model: Model, op: Op) -> str:
    return f"{model.path(op.uid)}/{op.name or op.op}"


def _check_ids(model: Model) -> None:
    seen: set[int] = set()
    for node in model.root.walk():
        if node.uid in seen:
            raise VerifyError(f"{node.name or node.uid}: uid {node.uid} is used twice")
        seen.add(node.uid)
        if isinstance(node, Region) and not node.children and node is not model.root:
            raise VerifyError(f"region {model.path(node.uid)}/{node.name} is empty")
