"""Price a whole model: every operator, fused group and region, on one target by one executor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from immutables import Map

from eopt.backends.executor import Executor
from eopt.backends.fusion import Group
from eopt.backends.target import Target
from eopt.costmodel.features import kernel_of
from eopt.costmodel.learned import current
from eopt.costmodel.plan import Plan, PlannedKernel, planned
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Cost, CostModel, Interval, Kernel, Unknown
from eopt.ir.dims import filled, late, tried
from eopt.ir.errors import UsageError
from eopt.ir.garbage import uncollected
from eopt.ir.model import Model
from eopt.ir.node import Op, Region
from eopt.ir.ops import OpView, spec, view
from eopt.ir.specialize import specialize
from eopt.ir.types import concrete

BATCH_NAMES = ("batch", "batch_size", "n", "bs", "b")


@dataclass(frozen=True)
class Situation:
    """What is priced: hardware, engine, and the extents of symbolic dims."""

    target: Target
    executor: Executor
    bindings: Map[str, int] = field(default_factory=Map)
    cost_model: CostModel = field(default_factory=current)
    phase: str = "forward"


@dataclass(frozen=True)
class Priced:
    """A priced model.

    Attributes:
        costs: by uid of each executed operator: its cost, or that of its whole group.
        groups: fused groups; their members are in `costs` once, under the first member.
        free: operators that execute nothing (views, constants, absorbed dequantisations).
    """

    model: Model
    situation: Situation
    costs: Mapping[int, Cost | Unknown]
    groups: Mapping[int, Group]
    free: frozenset[int]

    @cached_property
    def known(self) -> dict[int, Cost]:
        """Costs that are known."""
        return {uid: cost for uid, cost in self.costs.items() if isinstance(cost, Cost)}

    @cached_property
    def unknown(self) -> dict[int, Unknown]:
        """What could not be priced, with reasons."""
        return {uid: cost for uid, cost in self.costs.items() if isinstance(cost, Unknown)}

    @property
    def energy_j(self) -> Interval:
        """Joules of one execution, the known part."""
        return _total([cost.energy_j for cost in self.known.values()])

    @property
    def latency_s(self) -> Interval:
        """Seconds of one execution, kernels back to back, the known part."""
        return _total([cost.latency_s for cost in self.known.values()])

    @property
    def power_w(self) -> float | None:
        """Mean power; None when nothing could be priced."""
        return self.energy_j.mid / self.latency_s.mid if self.known else None

    @property
    def launch_share(self) -> float | None:
        """Share of the latency that is launch overhead."""
        launch = sum(cost.launch_s for cost in self.known.values())
        return launch / self.latency_s.mid if self.known else None

    @property
    def terms(self) -> dict[str, float]:
        """Joules by cause."""
        terms: dict[str, float] = {}
        for cost in self.known.values():
            for name, joules in cost.terms.items():
                terms[name] = terms.get(name, 0.0) + joules
        return terms

    @cached_property
    def shares(self) -> dict[int, tuple[float, float]]:
        """(energy_j, latency_s) of each executed operator; a group's are divided by its members' own work."""
        shared: dict[int, tuple[float, float]] = {}
        for uid, cost in self.known.items():
            members = self.groups[uid].members if uid in self.groups else (self._op(uid),)
            weights = [self._weight(op) for op in members]
            whole = sum(weights)
            for op, weight in zip(members, weights, strict=True):
                share = weight / whole
                shared[op.uid] = (cost.energy_j.mid * share, cost.latency_s.mid * share)
        return shared

    def region(self, region: Region) -> tuple[float, float]:
        """(energy_j, latency_s) of everything below a region, the known part."""
        parts = [self.shares[op.uid] for op in region.leaves() if op.uid in self.shares]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def group_of(self, uid: int) -> str:
        """Kind of the fused group an operator is in, '' outside."""
        return self._kinds.get(uid, "")

    @cached_property
    def _kinds(self) -> dict[int, str]:
        return {op.uid: group.kind for group in self.groups.values() for op in group.members}

    def _op(self, uid: int) -> Op:
        return self.model.index.op(uid)

    def _weight(self, op: Op) -> float:
        described, seen = spec(op.op, op.domain), self._views.get(op.uid)
        if described is None or seen is None:
            return 1.0
        work = described.work(seen)
        return work.flops + work.read_bytes + work.write_bytes + 1.0

    @cached_property
    def _views(self) -> dict[int, OpView | None]:
        return self.model.get(_views, self.situation.bindings)


def price(model: Model, situation: Situation) -> Priced:
    """Price one forward execution; computed once for a model and a situation."""
    return model.get(_price, situation.target, situation.executor, situation)


@uncollected
def _price(model: Model, target: Target, executor: Executor, situation: Situation) -> Priced:
    """Kernels that are alike are priced once for all the layers they repeat in."""
    typed, bound = _bound(model, situation.bindings)
    plan = typed.get(planned, executor, target)
    costs: dict[int, Cost | Unknown] = {}
    found = [_kernel(typed, kernel, plan, bound) for kernel in plan.kernels]
    known = [kernel for kernel in found if isinstance(kernel, Kernel)]
    answers = iter(situation.cost_model.query_many(known, target, executor))
    for planned_kernel, kernel in zip(plan.kernels, found, strict=True):
        cost = kernel if isinstance(kernel, Unknown) else next(answers)
        costs.update(dict.fromkeys(planned_kernel.uids, cost))
    return Priced(model, situation, costs, plan.groups, plan.free)


def _kernel(model: Model, kernel: PlannedKernel, plan: Plan, bound: Map[str, int]) -> Kernel | Unknown:
    views = {op.uid: view(model, op, bound) for op in kernel.members}
    return kernel_of(model, kernel.members, views, plan.operands, bound, kernel.quantized)


def _bound(model: Model, bindings: Map[str, int]) -> tuple[Model, Map[str, int]]:
    """A model with a shape for every value, and values for the dims in it.

    Shapes that are computed at run time are inferred for the extents asked for. Who asks a second time will ask again,
    so then they are found for all extents at once.
    """
    analysed = model.get(late)
    if analysed.covers(bindings) or not bindings:
        return analysed.model, analysed.bound(bindings)
    asked = model.get(_asked)
    asked.add(bindings)
    if len(asked) > 1:
        analysed = model.get(tried)
    typed = analysed.model if analysed.covers(bindings) else filled(model, specialize(model, bindings))
    return typed, analysed.bound(bindings)


def _asked(model: Model) -> set[Map[str, int]]:
    """Extents a model has been priced at."""
    return set()


def _views(model: Model, bindings: Map[str, int]) -> dict[int, OpView | None]:
    """All operators with dims bound."""
    typed, bound = _bound(model, bindings)
    return {op.uid: view(typed, op, bound) for op in typed.leaves()}


def _total(parts: list[Interval]) -> Interval:
    """Errors of one prior point the same way, so bounds add up like the estimates."""
    return Interval(sum(p.mid for p in parts), sum(p.lo for p in parts), sum(p.hi for p in parts))


@dataclass(frozen=True)
class Difference:
    """Two models priced in one situation.

    Attributes:
        undecided: operators that differ between them and have no known cost.
    """

    before_j: float
    after_j: float
    undecided: tuple[str, ...]


def compare(before: Model, after: Model, situation: Situation) -> Difference:
    """The paired difference of two whole trees, by the physics prior.

    It is monotone in work, so a rewrite cannot look cheaper for the features it changes, as it can to a network. The
    errors of both trees are the same.
    """
    situation = replace(situation, cost_model=Prior())
    old, new = price(before, situation), price(after, situation)
    changed = [op for op in _unknown_ops(new) if not _same(before, op)]
    changed += [op for op in _unknown_ops(old) if not _same(after, op)]
    return Difference(old.energy_j.mid, new.energy_j.mid, tuple(dict.fromkeys(op.op for op in changed)))


def _unknown_ops(priced: Priced) -> list[Op]:
    return [priced.model.index.op(uid) for uid in priced.unknown]


def _same(model: Model, op: Op) -> bool:
    return op.uid in model.index.nodes and model.node(op.uid) == op


def bindings_for(model: Model, batch: int | None, bind: Mapping[str, int]) -> Map[str, int]:
    """Extents for the symbolic dims of the inputs: `batch` for the leading dim of a usual name (1 by default).

    Raises:
        UsageError: a dim has no extent, or a name is not in the model; the message says which there are.
    """
    dims = list(dict.fromkeys(dim for feed in model.feeds for dim in feed.shape or () if isinstance(dim, str)))
    unknown = [name for name in bind if name not in dims]
    if unknown:
        raise UsageError(f"--bind {unknown[0]}: no such dim; the model has {', '.join(dims) or 'no symbolic dims'}")
    leading = {feed.shape[0] for feed in model.feeds if feed.shape and isinstance(feed.shape[0], str)}
    bound = dict(bind)
    for dim in dims:
        if dim not in bound and (dim in leading or dim.lower() in BATCH_NAMES):
            bound[dim] = batch or 1
    missing = [dim for dim in dims if dim not in bound]
    if missing:
        listed = " ".join(f"--bind {dim}=N" for dim in missing)
        raise UsageError(f"the model has symbolic dims without an extent: {', '.join(missing)}; give {listed}")
    if batch is not None and not leading and concrete(model.feeds[0].shape) is not None:
        raise UsageError("--batch: the model has a fixed batch size; export it with a symbolic first dim")
    return Map(bound)
