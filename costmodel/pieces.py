"""The kernels of a model as workloads of their own, so that each can be measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from eopt.backends.base import Unknown
from eopt.backends.harness.base import Workload
from eopt.costmodel.cut import cut
from eopt.costmodel.plan import Plan, planned
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Cost, Kernel
from eopt.costmodel.tree import Situation, bound_model, kernel_at
from eopt.ir.analysis import constants
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.ops import Trait, spec

# A call of an executor costs microseconds that are not the operator's: copies share it. Together they stay in the cache
# where an operator in a model finds what the one before it has written.
FILLED_S, MOST_COPIES, COPIED_BYTES = 1e-3, 32, 4 << 20


@dataclass(frozen=True)
class Piece:
    """A kernel, the places it runs at, and what can be measured of it.

    Attributes:
        uids: of the first operator at each place.
        names: of the operators in it.
    """

    kernel: Kernel | Unknown
    workload: Workload | Unknown
    uids: tuple[int, ...]
    names: tuple[str, ...]


def pieces(model: Model, situation: Situation, copied: bool = True) -> Iterator[Piece]:
    """Every kernel that the executor runs for a model, each kind once.

    Args:
        copied: several independent copies in a workload; off where the executor times kernels alone.
    """
    typed, bound = bound_model(model, situation.bindings)
    plan = typed.get(planned, situation.executor, situation.target, False)
    own = _own(typed, plan)
    for place in plan.kernels:
        kernel = kernel_at(typed, place, plan, bound)
        names = tuple(op.op for op in place.members)
        copies = _copies(kernel, situation) if copied else 1
        try:
            workload: Workload | Unknown = cut(typed, place.members, bound, own, "+".join(names), copies)
        except InputError as error:
            workload = Unknown((str(error),))
        yield Piece(kernel, workload, place.uids, names)


def _own(model: Model, plan: Plan) -> frozenset[int]:
    """Operators that execute nothing and are no views of what somebody else computes."""
    constant = model.get(constants)
    views = {op.uid for op in model.leaves() if (found := spec(op.op, op.domain)) and Trait.VIEW in found.traits}
    return (plan.free - views) | constant


def _copies(kernel: Kernel | Unknown, situation: Situation) -> int:
    """As many as fill a millisecond by the physics prior, and do not fill the memory."""
    cost = Unknown(()) if isinstance(kernel, Unknown) else Prior().query(kernel, situation.target, situation.executor)
    if isinstance(kernel, Unknown) or not isinstance(cost, Cost):
        return 1
    held = max(1.0, kernel.activation_bytes + kernel.weight_bytes)
    return int(max(1, min(MOST_COPIES, ceil(FILLED_S / cost.latency_s.mid), COPIED_BYTES // held)))
