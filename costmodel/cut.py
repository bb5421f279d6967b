"""Cut what an executor runs at once out of a model: a small model of its own, which can be measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper, numpy_helper

from eopt.backends.base import Array
from eopt.backends.harness.base import Workload
from eopt.ir.analysis import with_own
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import Value, bind, concrete

MAX_BYTES = 1 << 30  # of weights and inputs together; a message ends at twice that
IR_VERSION = 10
_SEED = 0


@dataclass(frozen=True)
class Piece:
    """Operators of a model with all that crosses their boundary.

    Attributes:
        ops: in execution order.
        fixed: weights they read.
        fed: values somebody else computes.
        results: values somebody else reads.
    """

    ops: tuple[Op, ...]
    fixed: tuple[str, ...]
    fed: tuple[Value, ...]
    results: tuple[Value, ...]


def cut(
    model: Model,
    members: Sequence[Op],
    bindings: Mapping[str, int],
    own: Set[int] = frozenset(),
    name: str = "",
    copies: int = 1,
) -> Workload:
    """A workload of these operators, several independent copies of them.

    Args:
        model: with a shape for every value.
        bindings: extents of its symbolic dims.
        own: uids of operators that belong to whoever reads them: constants, and dequantisations that vanish in kernels.
        copies: each with inputs and weights of its own, so that no executor merges them.

    Raises:
        InputError: a shape is unknown, or more than `MAX_BYTES` would be needed.
    """
    piece = _piece(model, with_own(model, members, own), bindings)
    copies = 1 if any(op.attrs.graphs for op in piece.ops) else copies
    weights = {weight: _array(model, weight) for weight in piece.fixed}
    size = sum(array.nbytes for array in weights.values()) + sum(_nbytes(value) for value in piece.fed)
    if size * copies > MAX_BYTES:
        raise InputError(f"{name or members[0].op}: {size * copies} bytes of operands, more than {MAX_BYTES}")
    graph = GraphProto(name="piece")
    for number in range(copies):
        _add(graph, piece, weights, f".{number}" if number else "")
    opsets = [helper.make_opsetid(domain, version) for domain, version in model.opsets.items()]
    proto = ModelProto(ir_version=IR_VERSION, opset_import=opsets, graph=graph)
    return Workload(name or members[0].op, proto.SerializeToString(deterministic=True), copies)


def _piece(model: Model, ops: Sequence[Op], bindings: Mapping[str, int]) -> Piece:
    uids, made = {op.uid for op in ops}, {value.id for op in ops for value in op.outputs}
    read = list(dict.fromkeys(name for op in ops for name in op.reads if name not in made))
    fixed = tuple(name for name in read if name in model.weights)
    fed = tuple(_bound(model.value(name), bindings) for name in read if name not in model.weights)
    leaving = [
        value.id
        for op in ops
        for value in op.outputs
        if value.id and (model.is_output(value.id) or any(user.uid not in uids for user in model.users(value.id)))
    ]
    names = leaving or [ops[-1].output]
    return Piece(tuple(ops), fixed, fed, tuple(_bound(model.value(name), bindings) for name in names))


def _bound(value: Value, bindings: Mapping[str, int]) -> Value:
    shape = concrete(bind(value.shape, bindings)) if value.shape is not None else None
    if shape is None or value.dtype is None:
        raise InputError(f"the shape or type of {value.id!r} is unknown, so what reads it cannot be measured alone")
    return Value(value.id, value.dtype, shape)


def _nbytes(value: Value) -> float:
    shape = concrete(value.shape)
    assert shape is not None
    assert value.dtype is not None
    return float(np.prod(shape, dtype=np.float64)) * value.dtype.bits / 8


def _array(model: Model, name: str) -> Array:
    """A weight; one of which only type and shape are known is drawn at random."""
    if not model.weights.is_absent(name):
        return model.weights.array(name)
    dtype = model.weights.dtype(name)
    assert dtype is not None
    drawn = np.random.default_rng(_SEED).standard_normal(model.weights.shape(name)) * 0.02
    return drawn.astype(dtype.numpy)


def _add(graph: GraphProto, piece: Piece, weights: Mapping[str, Array], suffix: str) -> None:
    graph.input.extend(_declared(value, suffix) for value in piece.fed)
    graph.output.extend(_declared(value, suffix) for value in piece.results)
    graph.initializer.extend(numpy_helper.from_array(array, name + suffix) for name, array in weights.items())
    graph.node.extend(_node(op, suffix) for op in piece.ops)


def _declared(value: Value, suffix: str) -> ValueInfoProto:
    assert value.dtype is not None
    return helper.make_tensor_value_info(value.id + suffix, value.dtype.onnx, value.shape)


def _node(op: Op, suffix: str) -> NodeProto:
    node = NodeProto(op_type=op.op, domain=op.domain, name=f"{op.name or op.op}_{op.uid}{suffix}")
    node.input.extend(name + suffix if name else "" for name in op.inputs)
    node.output.extend(value.id + suffix if value.id else "" for value in op.outputs)
    node.attribute.extend(op.attrs.protos)
    return node
