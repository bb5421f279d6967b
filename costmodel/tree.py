"""Price a whole model: every operator, fused group and region, on one target by one executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from immutables import Map

from eopt.backends.executor import Executor
from eopt.backends.fusion import Group
from eopt.backends.target import Target
from eopt.costmodel import training
from eopt.costmodel.costs import added, share_of, total
from eopt.costmodel.features import kernel_of
from eopt.costmodel.learned import current
from eopt.costmodel.plan import Plan, PlannedKernel, planned
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Cost, CostModel, Interval, Kernel, Unknown, Whole, WholeCostModel
from eopt.ir.analysis import constants
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
    """What is priced: hardware, engine, and the extents of symbolic dims.

    Attributes:
        phase: `training` is a step with backward pass and update; anything else an execution.
        optimizer: of a step of training.
    """

    target: Target
    executor: Executor
    bindings: Map[str, int] = field(default_factory=Map)
    cost_model: CostModel = field(default_factory=current)
    phase: str = training.FORWARD
    optimizer: str = training.DEFAULT_OPTIMIZER


@dataclass(frozen=True)
class Priced:
    """A priced model.

    Attributes:
        costs: by uid of each executed operator: its cost, or that of its whole group.
        groups: fused groups; their members are in `costs` once, under the first member.
        free: operators that execute nothing (views, constants, absorbed dequantisations).
        parts: of a step of training, its costs by part: forward, backward, and the share of the weights that an
            operator is the first to read in the update.
        whole: what the model takes whole; None where the cost model prices kernels only, or not all of them.
    """

    model: Model
    situation: Situation
    costs: Mapping[int, Cost | Unknown]
    groups: Mapping[int, Group]
    free: frozenset[int]
    parts: Mapping[str, Mapping[int, Cost | Unknown]] = field(default_factory=dict)
    whole: Whole | None = None

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
        """Joules of one execution; without a figure for the whole those of the operators that are known."""
        return self.whole.energy_j if self.whole else self.operators_j

    @property
    def latency_s(self) -> Interval:
        """Seconds of one execution; without a figure for the whole those of the operators that are known."""
        return self.whole.latency_s if self.whole else self.operators_s

    @property
    def operators_j(self) -> Interval:
        """Joules of all operators that are known."""
        return total([cost.energy_j for cost in self.known.values()])

    @property
    def operators_s(self) -> Interval:
        """Seconds of all operators that are known, one after the other."""
        return total([cost.latency_s for cost in self.known.values()])

    @property
    def power_w(self) -> float | None:
        """Mean power; None when nothing could be priced."""
        return self.energy_j.mid / self.latency_s.mid if self.known else None

    @property
    def launch_share(self) -> float | None:
        """Share of the latency that is launch overhead."""
        launch = sum(cost.launch_s for cost in self.known.values())
        return launch / self.operators_s.mid if self.known else None

    @property
    def terms(self) -> dict[str, float]:
        """Joules by cause."""
        terms: dict[str, float] = {}
        for cost in self.known.values():
            for name, joules in cost.terms.items():
                terms[name] = terms.get(name, 0.0) + joules
        return terms

    @property
    def launch_j(self) -> float | None:
        """Joules of static power while kernels are launched; None where the cost model does not tell it apart."""
        costs = self.known.values()
        if any("static" not in cost.terms for cost in costs):
            return None
        return sum(cost.terms["static"] * cost.launch_s / cost.latency_s.mid for cost in costs)

    @cached_property
    def shares(self) -> dict[int, tuple[float, float]]:
        """(energy_j, latency_s) of each executed operator; a group's are divided by its members' own work."""
        return self._shared(self.known)

    @cached_property
    def part_shares(self) -> dict[str, dict[int, tuple[float, float]]]:
        """The same by part of a step of training, of operators whose whole cost is known."""
        return {
            part: self._shared({uid: cost for uid, cost in costs.items() if uid in self.known})
            for part, costs in self.parts.items()
        }

    def _shared(self, costs: Mapping[int, Cost | Unknown]) -> dict[int, tuple[float, float]]:
        return {
            op: (cost.energy_j.mid * weight, cost.latency_s.mid * weight)
            for uid, cost in costs.items()
            if isinstance(cost, Cost)
            for op, weight in self._weights[uid].items()
        }

    @cached_property
    def _weights(self) -> dict[int, dict[int, float]]:
        """By uid of a kernel, of each operator in it the share of the work."""
        found = {}
        for uid in self.known:
            members = self.groups[uid].members if uid in self.groups else (self._op(uid),)
            weights = [self._weight(op) for op in members]
            found[uid] = {op.uid: weight / sum(weights) for op, weight in zip(members, weights, strict=True)}
        return found

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
    """Price one execution, or one step of training; computed once for a model and a situation."""
    return model.get(_price, situation.target, situation.executor, situation)


@uncollected
def _price(model: Model, target: Target, executor: Executor, situation: Situation) -> Priced:
    """Kernels that are alike are priced once for all the layers they repeat in."""
    typed, bound = bound_model(model, situation.bindings)
    trains = situation.phase == training.TRAINING
    plan = typed.get(planned, executor, target, trains)
    kernels = [kernel_at(typed, kernel, plan, bound) for kernel in plan.kernels]
    runs = [kernel if isinstance(kernel, Unknown) else (kernel,) for kernel in kernels]
    forward = _answers(plan, runs, situation)
    if not trains:
        return Priced(model, situation, forward, plan.groups, plan.free, whole=_whole(plan, [runs], [], situation))
    behind = [
        kernel if isinstance(kernel, Unknown) else training.backward(kernel, place.gradients)
        for place, kernel in zip(plan.kernels, kernels, strict=True)
    ]
    update = _update(typed, plan, forward, situation)
    parts = {
        training.FORWARD: forward,
        training.BACKWARD: _answers(plan, behind, situation),
        training.OPTIMIZER: _updates(update, situation),
    }
    costs = {uid: added([part[uid] for part in parts.values() if uid in part]) for uid in forward}
    whole = _whole(plan, [runs, behind], [update[0]] if update else [], situation)
    return Priced(model, situation, costs, plan.groups, plan.free, parts, whole)


def _whole(
    plan: Plan,
    passes: Sequence[Sequence[tuple[Kernel, ...] | Unknown]],
    once: Sequence[Kernel],
    situation: Situation,
) -> Whole | None:
    """What all kernels of all passes take, and those that run once besides."""
    model = situation.cost_model
    runs = [(run, len(place.uids)) for each in passes for place, run in zip(plan.kernels, each, strict=True)]
    if not isinstance(model, WholeCostModel) or any(isinstance(run, Unknown) for run, _ in runs):
        return None
    counted = [(kernel, count) for run, count in runs if not isinstance(run, Unknown) for kernel in run]
    counted += [(kernel, 1) for kernel in once]
    kernels, counts = [kernel for kernel, _ in counted], [count for _, count in counted]
    trains = situation.phase == training.TRAINING
    return model.whole(kernels, counts, situation.target, situation.executor, trains)


def _answers(
    plan: Plan, runs: Sequence[tuple[Kernel, ...] | Unknown], situation: Situation
) -> dict[int, Cost | Unknown]:
    """Costs at every place of the kernels that run at each planned one, where any do."""
    kernels = [kernel for run in runs if not isinstance(run, Unknown) for kernel in run]
    answers = iter(situation.cost_model.query_many(kernels, situation.target, situation.executor))
    costs: dict[int, Cost | Unknown] = {}
    for place, run in zip(plan.kernels, runs, strict=True):
        if run:
            cost = run if isinstance(run, Unknown) else added([next(answers) for _ in run])
            costs.update(dict.fromkeys(place.uids, cost))
    return costs


def _update(
    model: Model, plan: Plan, forward: Mapping[int, Cost | Unknown], situation: Situation
) -> tuple[Kernel, dict[int, Kernel]] | None:
    """One fused update of all weights, and by uid the part of it for each kernel that reads some first."""
    members = {op.uid: plan.groups[op.uid].members if op.uid in plan.groups else (op,) for op in model.leaves()}
    executed = {uid: found for uid, found in members.items() if uid in forward}
    weights = training.updated(model, executed, model.get(constants))
    rule = training.optimizer(situation.optimizer)
    if not weights:
        return None
    kernels = {uid: training.update_kernel(model, names, rule) for uid, names in weights.items()}
    whole = training.update_kernel(model, [name for names in weights.values() for name in names], rule)
    return whole, kernels


def _updates(update: tuple[Kernel, dict[int, Kernel]] | None, situation: Situation) -> dict[int, Cost | Unknown]:
    """Its cost, divided by what it moves for each."""
    if update is None:
        return {}
    whole, kernels = update
    cost = situation.cost_model.query(whole, situation.target, situation.executor)
    return {uid: share_of(cost, kernel.activation_bytes / whole.activation_bytes) for uid, kernel in kernels.items()}


def kernel_at(model: Model, kernel: PlannedKernel, plan: Plan, bound: Map[str, int]) -> Kernel | Unknown:
    """The kernel of a plan with the dims of its model bound."""
    views = {op.uid: view(model, op, bound) for op in kernel.members}
    return kernel_of(model, kernel.members, views, plan.operands, bound, kernel.computes)


def bound_model(model: Model, bindings: Map[str, int]) -> tuple[Model, Map[str, int]]:
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
    typed, bound = bound_model(model, bindings)
    return {op.uid: view(typed, op, bound) for op in typed.leaves()}


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


def kernels_j(model: Model, situation: Situation) -> dict[int, float]:
    """Joules by uid of every operator of the kernel that it runs in, by the physics prior as in `compare`."""
    priced = price(model, replace(situation, cost_model=Prior()))
    members = {
        uid: priced.groups[uid].members if uid in priced.groups else (model.index.op(uid),) for uid in priced.known
    }
    return {op.uid: priced.known[uid].energy_j.mid for uid, ops in members.items() for op in ops}


def _unknown_ops(priced: Priced) -> list[Op]:
    return [priced.model.index.op(uid) for uid in priced.unknown]


def _same(model: Model, op: Op) -> bool:
    return op.uid in model.index.nodes and model.node(op.uid) == op


def batch_dims(model: Model) -> tuple[str, ...]:
    """Symbolic dims of the inputs that count the samples: the leading ones, and those of a usual name."""
    dims = dict.fromkeys(dim for feed in model.feeds for dim in feed.shape or () if isinstance(dim, str))
    leading = {feed.shape[0] for feed in model.feeds if feed.shape}
    return tuple(dim for dim in dims if dim in leading or dim.lower() in BATCH_NAMES)


def bindings_for(model: Model, batch: int | None, bind: Mapping[str, int]) -> Map[str, int]:
    """Extents for the symbolic dims of the inputs: `batch` for those that count samples (1 by default).

    Raises:
        UsageError: a dim has no extent, or a name is not in the model; the message says which there are.
    """
    dims = list(dict.fromkeys(dim for feed in model.feeds for dim in feed.shape or () if isinstance(dim, str)))
    unknown = [name for name in bind if name not in dims]
    if unknown:
        raise UsageError(f"--bind {unknown[0]}: no such dim; the model has {', '.join(dims) or 'no symbolic dims'}")
    bound = {**dict.fromkeys(batch_dims(model), batch or 1), **bind}
    missing = [dim for dim in dims if dim not in bound]
    if missing:
        listed = " ".join(f"--bind {dim}=N" for dim in missing)
        raise UsageError(f"the model has symbolic dims without an extent: {', '.join(missing)}; give {listed}")
    if batch is not None and not batch_dims(model) and concrete(model.feeds[0].shape) is not None:
        raise UsageError("--batch: the model has a fixed batch size; export it with a symbolic first dim")
    return Map(bound)
