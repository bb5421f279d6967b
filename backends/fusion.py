"""What an executor fuses by itself at run time, as overlay groups of operators that become one kernel.

Both the original and the rewritten tree are priced with these groups, so a rewrite that only does what the executor
does anyway shows no gain. Every group is convex: an operator joins only if all its other computed inputs were ready
before the group began. One pass in topological order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from eopt.backends import formats
from eopt.backends.executor import Executor
from eopt.backends.target import Target
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.ops import Trait, spec

_SOFTMAX = "Softmax"
_NEEDED_BY = {"norm": ("ReduceMean", "ReduceSum"), "gelu": ("Erf", "Tanh", "Sigmoid")}


@dataclass(frozen=True)
class Group:
    """Operators executed as one kernel. `kind`: `qdq`, `attention`, `epilogue` or `pointwise`."""

    kind: str
    members: tuple[Op, ...]


@dataclass
class _Growing:
    kind: str
    start: int
    members: list[Op] = field(default_factory=list)


@dataclass(frozen=True)
class Fusion:
    """The groups of a model, and the dequantisations that vanish inside int8 kernels.

    Attributes:
        groups: disjoint; operators in none of them are kernels of their own.
        absorbed: DequantizeLinear operators all of whose users read what is stored directly.
    """

    groups: tuple[Group, ...]
    absorbed: frozenset[int]


def fuse(model: Model, executor: Executor, target: Target) -> Fusion:
    """Overlay groups of a model for an executor on a target."""
    return _Fuser(model, executor, target).run()


class _Fuser:
    def __init__(self, model: Model, executor: Executor, target: Target) -> None:
        self.model, self.executor, self.target = model, executor, target
        self.order = {op.uid: number for number, op in enumerate(model.leaves())}
        self.group_of: dict[int, _Growing] = {}

    def run(self) -> Fusion:
        """All fusions the executor declares, strongest first."""
        fusions = self.executor.fusions
        absorbed = self._quantized() if self.executor.capabilities else set()
        if "attention" in fusions:
            self._attention()
        for op in self.model.leaves():
            if op.uid not in self.group_of:
                self._join(op, fusions)
        groups = {id(group): group for group in self.group_of.values()}
        done = (Group(g.kind, tuple(g.members)) for g in groups.values() if self._is_kernel(g))
        return Fusion(tuple(done), frozenset(absorbed))

    def _is_kernel(self, group: _Growing) -> bool:
        """Several operators, or one on integers. Without general pointwise fusion an executor still knows the patterns
        of normalisations and GELU."""
        fusions = self.executor.fusions
        if len(group.members) == 1:
            return group.kind == "qdq"
        if group.kind != "pointwise" or "pointwise" in fusions:
            return True
        kinds = {op.op for op in group.members}
        return any(fusion in fusions and kinds.intersection(marks) for fusion, marks in _NEEDED_BY.items())

    # -- pointwise chains and epilogues

    def _join(self, op: Op, fusions: frozenset[str]) -> None:
        described = spec(op.op, op.domain)
        traits = described.traits if described else frozenset()
        if Trait.CONTRACTION in traits and "epilogue" in fusions:
            self._open("epilogue", op)
        elif traits & {Trait.ELEMENTWISE, Trait.NORMALIZATION, Trait.REDUCTION}:
            self._join_pointwise(op, traits)

    def _join_pointwise(self, op: Op, traits: frozenset[Trait]) -> None:
        for name in op.reads:
            producer = self.model.producer(name)
            group = self.group_of.get(producer.uid) if producer else None
            if group is not None and self._may_join(op, traits, name, group):
                group.members.append(op)
                self.group_of[op.uid] = group
                return
        if {"pointwise", "norm", "gelu"} & self.executor.fusions:
            self._open("pointwise", op)

    def _may_join(self, op: Op, traits: frozenset[Trait], through: str, group: _Growing) -> bool:
        if group.kind == "epilogue" or self._writes_float(group):
            batch_norm = op.op == "BatchNormalization"
            if (Trait.ELEMENTWISE not in traits and not batch_norm) or not self._only_used_here(through):
                return False
        elif group.kind != "pointwise":
            return False
        return all(self._ready(name, group) for name in op.reads)

    def _writes_float(self, group: _Growing) -> bool:
        """An integer product without QuantizeLinear behind it takes the same epilogue as one in float."""
        return group.kind == "qdq" and group.members[-1].op != "QuantizeLinear" and "epilogue" in self.executor.fusions

    def _ready(self, name: str, group: _Growing) -> bool:
        """True for values inside the group and for those computed before it began."""
        producer = self.model.producer(name)
        if producer is None or producer.op == "Constant":
            return True
        return self.group_of.get(producer.uid) is group or self.order[producer.uid] < group.start

    def _open(self, kind: str, op: Op) -> None:
        self.group_of[op.uid] = _Growing(kind, self.order[op.uid], [op])

    def _only_used_here(self, value: str) -> bool:
        return len(self.model.users(value)) == 1 and not self.model.is_output(value)

    # -- attention: product, scaling and mask, softmax, product

    def _attention(self) -> None:
        for op in self.model.leaves():
            if op.op != _SOFTMAX or op.uid in self.group_of:
                continue
            above, below = self._climb(op), self._descend(op)
            if above and below:
                members = [*reversed(above), op, *below]
                group = _Growing("attention", min(self.order[member.uid] for member in members), members)
                self.group_of.update((member.uid, group) for member in members)

    def _climb(self, op: Op) -> list[Op]:
        """From the softmax up through elementwise operators to the product of queries and keys."""
        path: list[Op] = []
        while True:
            step = next((p for p in map(self.model.producer, op.reads) if p and self._is_score(p)), None)
            if step is None or not self._only_used_here(step.output):
                return []
            path.append(step)
            if step.op == "MatMul":
                return path
            op = step

    def _is_score(self, op: Op) -> bool:
        scores = (op.op == "MatMul" and not op.domain) or op.op in ("Add", "Mul", "Div", "Where", "Cast")
        return scores and any(self.model.producer(name) for name in op.reads)

    def _descend(self, op: Op) -> list[Op]:
        path: list[Op] = []
        while self._only_used_here(op.output):
            (user,) = self.model.users(op.output)
            path.append(user)
            if user.op == "MatMul":
                return path
            if user.op not in ("Cast", "Where", "IsNaN", "Dropout"):
                return []
            op = user
        return []

    # -- QDQ regions

    def _quantized(self) -> set[int]:
        """Group each operator that has a kernel for its dequantised operands with the QuantizeLinear behind it."""
        alone: set[int] = set()
        for op in self.model.leaves():
            form = formats.format_of(self.model, op)
            if not form or self.executor.capability(form, op.op, self.target) is None:
                continue
            if form.startswith(formats.WEIGHT_ONLY):
                alone.add(op.uid)
            else:
                self._quantized_kernel(op)
        quantised = {uid for uid, group in self.group_of.items() if group.kind == "qdq"}
        dequantise = [op for op in self.model.leaves() if op.op == "DequantizeLinear"]
        return {op.uid for op in dequantise if self._read_by(op, quantised | alone)}

    def _read_by(self, op: Op, kernels: set[int]) -> bool:
        users = self.model.users(op.output)
        return bool(users) and all(user.uid in kernels for user in users) and not self.model.is_output(op.output)

    def _quantized_kernel(self, op: Op) -> None:
        tail = self._through_quantize(op)
        described = spec(op.op, op.domain)
        contraction = described is not None and Trait.CONTRACTION in described.traits
        needs_output = not contraction or (op.op == "Conv" and self.executor.quantized_conv_needs_output)
        if needs_output and not tail:
            return
        group = _Growing("qdq", self.order[op.uid], [op, *tail])
        self.group_of.update((member.uid, group) for member in group.members)

    def _through_quantize(self, op: Op) -> list[Op]:
        """The activation behind an operator, if any, and the QuantizeLinear that ends the integer kernel."""
        path: list[Op] = []
        while self._only_used_here(op.output):
            (user,) = self.model.users(op.output)
            if user.op == "QuantizeLinear":
                return [*path, user]
            if user.op not in ("Relu", "Clip"):
                return []
            path.append(user)
            op = user
        return []
