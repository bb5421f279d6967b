"""Which tensors travel as integers: the inputs of int8 operators, the outputs of those that write int8, and bridges.

Convolutions write int8, because executors have no kernel from int8 to float. Matrix products write float, which is both
faster and more exact in front of the normalisations and activations that follow them (docs/adr/0005). A bridge is a
cheap operator behind int8 ones that computes in int8 too: in front of others, because leaving it in float would cost a
boundary (DequantizeLinear, QuantizeLinear) on each side, and elsewhere if it leaves fewer values to dequantise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.quant.candidates import Anchor

WRITES_INT8 = frozenset({"Conv"})
SAME_GRID = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})
BRIDGES = SAME_GRID | {"Add", "Concat", "AveragePool", "GlobalAveragePool"}
SHRINKING = frozenset({"Add", "MaxPool", "AveragePool", "GlobalAveragePool"})  # fewer values come out than go in
ACTIVATIONS = frozenset({"Relu", "Clip"})  # they vanish in the saturation of the QuantizeLinear behind them


@dataclass(frozen=True)
class Cluster:
    """Int8 operators connected through quantised tensors: they gain or lose together.

    Attributes:
        anchors: in execution order.
        bridges: in execution order.
        writes: tensors quantised behind the operator that computes them, for all of their users.
        reads: tensors other operators compute in float; only the users that compute in int8 read them quantised.
        dynamic: the grids of what it reads are found when the model runs.
    """

    anchors: tuple[Anchor, ...]
    bridges: tuple[Op, ...]
    writes: frozenset[str]
    reads: frozenset[str]
    dynamic: bool = False

    @property
    def tensors(self) -> frozenset[str]:
        """All quantised activations."""
        return self.reads | self.writes


def clusters(
    model: Model, anchors: Sequence[Anchor], blocked: frozenset[str] = frozenset(), bridges: Sequence[Op] | None = None
) -> tuple[Cluster, ...]:
    """Place quantised tensors around the anchors, in execution order.

    Args:
        blocked: tensors that cannot be quantised; no bridge may write one.
        bridges: those to use, in execution order; all that are worth while by default.
    """
    import networkx as nx

    if bridges is None:
        bridges = _worth_while(model, anchors, possible_bridges(model, anchors, blocked))
    writes = _writes(model, (*(anchor.op for anchor in anchors if anchor.op.op in WRITES_INT8), *bridges))
    links = nx.Graph([(anchor.op.uid, anchor.data) for anchor in anchors])
    links.add_edges_from((op.uid, name) for op in bridges for name in float_inputs(model, op))
    links.add_edges_from((uid, name) for name, uid in writes.items())
    order = {op.uid: number for number, op in enumerate(model.leaves())}
    found = [_cluster(group, anchors, bridges, writes) for group in nx.connected_components(links)]
    return tuple(sorted(found, key=lambda cluster: order[_first(cluster).uid]))


def dynamic_clusters(anchors: Sequence[Anchor]) -> tuple[Cluster, ...]:
    """Products that share an input, whose grid is found when the model runs; what they write is float."""
    readers: dict[str, list[Anchor]] = {}
    for anchor in anchors:
        readers.setdefault(anchor.data, []).append(anchor)
    nothing = frozenset[str]()
    return tuple(Cluster(tuple(alike), (), nothing, frozenset({name}), True) for name, alike in readers.items())


def float_inputs(model: Model, op: Op) -> list[str]:
    """Inputs that hold real numbers; what is left out are shapes and axes."""
    known = ((name, model.value(name).dtype) for name in op.inputs if name)
    return [name for name, dtype in known if dtype is None or dtype.is_float]


def tail(model: Model, op: Op) -> str:
    """The tensor to quantise behind an operator: that of an activation function when nothing else reads the result."""
    users = model.users(op.output)
    alone = len(users) == 1 and not model.is_output(op.output)
    absorbed = alone and users[0].op in ACTIVATIONS and not users[0].domain
    return users[0].output if absorbed else op.output


def touched(model: Model, anchor: Anchor) -> frozenset[str]:
    """Tensors that must be quantised for an anchor to compute in int8."""
    return frozenset({anchor.data, tail(model, anchor.op)} if anchor.op.op in WRITES_INT8 else {anchor.data})


def handed_on(model: Model, cluster: Cluster) -> dict[str, str]:
    """Tensors that hold values of another one, only moved or selected: they share its grid. In execution order."""
    moving = (op for op in cluster.bridges if op.op in SAME_GRID and tail(model, op) == op.output)
    return {op.output: float_inputs(model, op)[0] for op in moving}


def _first(cluster: Cluster) -> Op:
    return cluster.anchors[0].op if cluster.anchors else cluster.bridges[0]


def _cluster(
    group: set[int | str], anchors: Sequence[Anchor], bridges: Sequence[Op], writes: Mapping[str, int]
) -> Cluster:
    tensors = {name for name in group if isinstance(name, str)}
    return Cluster(
        tuple(anchor for anchor in anchors if anchor.op.uid in group),
        tuple(op for op in bridges if op.uid in group),
        frozenset(tensors & writes.keys()),
        frozenset(tensors - writes.keys()),
    )


def _writes(model: Model, ops: Sequence[Op]) -> dict[str, int]:
    return {tail(model, op): op.uid for op in ops}


def _worth_while(model: Model, anchors: Sequence[Anchor], possible: Sequence[Op]) -> list[Op]:
    """Bridges that have some int8 user or leave less to dequantise, in execution order."""
    reads = {anchor.op.uid: {anchor.data} for anchor in anchors}
    kept: list[Op] = []
    for op in reversed(possible):
        result = tail(model, op)
        shrinks = op.op in SHRINKING and not model.is_output(result)
        if shrinks or any(result in reads.get(user.uid, ()) for user in model.users(result)):
            kept.append(op)
            reads[op.uid] = set(float_inputs(model, op))
    return kept[::-1]


def possible_bridges(model: Model, anchors: Sequence[Anchor], blocked: frozenset[str]) -> list[Op]:
    """Bridges with int8 on all inputs, in execution order."""
    writers = {anchor.op.uid for anchor in anchors if anchor.op.op in WRITES_INT8}
    integer = {anchor.data for anchor in anchors}
    possible: list[Op] = []
    for op in model.leaves():
        bridge = _may_bridge(model, op, integer) and tail(model, op) not in blocked
        if bridge:
            possible.append(op)
        if bridge or op.uid in writers:
            integer.add(tail(model, op))
    return possible


def _may_bridge(model: Model, op: Op, integer: set[str]) -> bool:
    if op.domain or op.op not in BRIDGES or len(op.outputs) != 1:
        return False
    data = float_inputs(model, op)
    return bool(data) and integer.issuperset(data)
