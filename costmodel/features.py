"""From operators and groups to the kernels that are priced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from math import prod

from eopt.costmodel.query import Kernel, Unknown
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.ops import OpView, Tensor, Trait, Unit, spec
from eopt.ir.types import DType, Shape, bind, numel


@dataclass(frozen=True)
class Operand:
    """What a boundary value costs to move: bits of an element, its shape, and whether it is a weight."""

    bits: int
    shape: Shape
    is_weight: bool

    def nbytes(self, bindings: Mapping[str, int]) -> float:
        """Bytes with dims bound; 0 while one is not, which makes the kernel unknown elsewhere."""
        return (numel(bind(self.shape, bindings)) or 0) * self.bits / 8


def gemm_shape(view: OpView) -> tuple[int, int, int, int] | None:
    """(batch, m, n, k) of a contraction; convolutions as implicit products (m = output pixels, n = output channels)."""
    y = view.outputs[0]
    if len(y.shape) < 2 or not y.numel:
        return None
    if "Conv" in view.op:
        group = int(view.attrs.get("group", 1))
        weight = view.input(3 if view.op == "QLinearConv" else 1)
        n = y.shape[1] // group
        return group, y.numel // (n * group), n, prod(weight.shape[1:])
    if "Attention" in view.op:
        heads = y.shape[1] if len(y.shape) == 4 else _packed_heads(view)
        keys = view.inputs[1].shape[-2] if len(view.inputs) > 1 and view.inputs[1] else y.shape[-2]
        return y.shape[0] * heads, y.shape[-2], keys, max(1, y.shape[-1] // (1 if len(y.shape) == 4 else heads))
    return _product_shape(view, y)


def sharing(view: OpView) -> int:
    """Heads of queries for each head of keys, of attention; 1 of anything else."""
    if "Attention" not in view.op:
        return 1
    if len(view.outputs[0].shape) == 4 and len(view.inputs) > 1 and view.inputs[1]:
        return max(1, view.input(0).shape[1] // max(1, view.inputs[1].shape[1]))
    heads = _packed_heads(view)
    return max(1, heads // max(1, int(view.attrs.get("kv_num_heads", heads))))


def windows(view: OpView) -> int:
    """Output pixels times places of the kernel, of a convolution that is larger than one by one."""
    if view.op not in ("Conv", "QLinearConv", "ConvInteger"):
        return 0
    weight, y = view.input(3 if view.op == "QLinearConv" else 1), view.outputs[0]
    places = prod(weight.shape[2:])
    return places * (y.numel // y.shape[1]) if places > 1 and y.numel else 0


def _packed_heads(view: OpView) -> int:
    """Heads of queries where they lie behind each other in one axis."""
    return int(view.attrs.get("q_num_heads", view.attrs.get("num_heads", 1)))


def _product_shape(view: OpView, y: Tensor) -> tuple[int, int, int, int]:
    described = spec(view.op, view.domain)
    flops = described.work(view).flops if described else 0.0
    k = max(1, round(flops / (2 * y.numel)))
    right = view.inputs[1] if len(view.inputs) > 1 else None
    if right is not None and len(right.shape) > 2:
        return prod(y.shape[:-2]), y.shape[-2], y.shape[-1], k
    return 1, prod(y.shape[:-1]), y.shape[-1], k


def kernel_of(
    model: Model,
    members: Sequence[Op],
    views: Mapping[int, OpView | None],
    operands: Mapping[str, Operand],
    bindings: Mapping[str, int],
    computes: DType | None,
) -> Kernel | Unknown:
    """The kernel of one operator or of a group: its members' arithmetic, and the traffic across its boundary.

    Args:
        views: by uid, the members with dims bound; None where a shape is unknown.
        operands: every value as the kernel reads or writes it.
        computes: type the group multiplies in, whatever its operators declare; None where that says it. Such a group
            ends in a requantisation that is part of the kernel, as in QLinearConv, and not counted beside it.
    """
    flops: dict[tuple[Unit, DType], float] = defaultdict(float)
    dominant: tuple[float, Op, OpView] | None = None
    for op in members:
        view, described = views[op.uid], spec(op.op, op.domain)
        if described is None or view is None:
            return _unknown(model, op, described is None)
        work = described.work(view)
        if work.flops and not (computes and dominant and work.unit is not Unit.MATRIX):
            dtype = computes if computes and work.unit is Unit.MATRIX else work.dtype
            flops[work.unit, dtype] += work.flops
        weight = work.flops + work.read_bytes + work.write_bytes
        if dominant is None or weight > dominant[0]:
            dominant = (weight, op, view)
    if dominant is None:
        return Unknown(("an empty group",))
    _, op, view = dominant
    nbytes = {name: operands[name].nbytes(bindings) for name in _boundary(members) if name in operands}
    fixed = {name for name in nbytes if operands[name].is_weight}
    read, weights, written = _traffic(model, members, views, nbytes, fixed)
    matrix = any(unit is Unit.MATRIX for unit, _ in flops)
    return Kernel(
        f"{op.domain}.{op.op}" if op.domain else op.op,
        tuple((unit, dtype, amount) for (unit, dtype), amount in sorted(flops.items())),
        read + written,
        weights,
        gemm_shape(view) if matrix else None,
        max((tensor.numel for tensor in view.outputs), default=1),
        row=next((tensor.shape[-1] for tensor in view.inputs if tensor and tensor.shape), 1),
        sharing=sharing(view),
        windows=windows(view),
    )


def _unknown(model: Model, op: Op, no_spec: bool) -> Unknown:
    name = f"{op.domain}.{op.op}" if op.domain else op.op
    if no_spec:
        return Unknown((f"{name} has no operator specification",))
    unbound = [name for name in (*op.reads, *(v.id for v in op.outputs)) if model.value(name).shape is None]
    return Unknown((f"the shape of {(unbound or [op.output])[0]!r} is unknown",))


def _boundary(members: Sequence[Op]) -> Iterator[str]:
    for op in members:
        yield from op.reads
        yield from (value.id for value in op.outputs)


def _traffic(
    model: Model,
    members: Sequence[Op],
    views: Mapping[int, OpView | None],
    nbytes: Mapping[str, float],
    fixed: Set[str],
) -> tuple[float, float, float]:
    """(activation bytes read, weight bytes read, bytes written) across the boundary of a group."""
    if len(members) == 1:
        return _own_traffic(members[0], views, nbytes, fixed)
    inside = {value.id for op in members for value in op.outputs}
    read = {name for op in members for name in op.reads if name not in inside and name in nbytes}
    leaving = {name for name in leaves_group(model, members) if name in nbytes}
    weights = sum(nbytes[name] for name in read & fixed)
    return sum(nbytes[name] for name in read) - weights, weights, sum(nbytes[name] for name in leaving)


def leaves_group(model: Model, members: Sequence[Op]) -> set[str]:
    """Values made in a group that somebody outside reads."""
    uids = {op.uid for op in members}
    made = (value.id for op in members for value in op.outputs)
    return {name for name in made if model.is_output(name) or any(u.uid not in uids for u in model.users(name))}


def _own_traffic(
    op: Op, views: Mapping[int, OpView | None], nbytes: Mapping[str, float], fixed: Set[str]
) -> tuple[float, float, float]:
    """A single operator reads what its specification says (a Gather its rows, not the table)."""
    described, view = spec(op.op, op.domain), views[op.uid]
    assert described is not None
    assert view is not None
    work = described.work(view)
    if Trait.CONTRACTION not in described.traits:
        return work.read_bytes, 0.0, work.write_bytes
    read = [name for name in op.reads if name in nbytes]
    weights = sum(nbytes[name] for name in read if name in fixed)
    return sum(nbytes[name] for name in read) - weights, weights, work.write_bytes
