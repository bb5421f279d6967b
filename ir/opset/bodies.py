"""Bodies of operators that hold subgraphs: their shapes are inferred for the operands at hand, their work is summed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
from onnx import AttributeProto, GraphProto, defs, helper

from eopt.ir import infer
from eopt.ir.errors import InputError
from eopt.ir.model import Model, OnnxEnvelope
from eopt.ir.node import Attrs, Op, Region
from eopt.ir.ops import OpView, Tensor, Unit, Work, spec, view
from eopt.ir.types import DType, Value
from eopt.ir.weights import InlineWeight, Weight, WeightStore, weight_of

MAX_NESTING = 8  # bodies inside bodies; exporters reach three

NOTHING = Work(0.0, 0.0, 0.0, Unit.NONE, DType.FLOAT32)


def check_nesting(graphs: Iterable[GraphProto], op: str) -> None:
    """Refuse hostile depth before anything recurses.

    Raises:
        InputError: bodies nested deeper than anybody writes.
    """
    pending = [(graph, 1) for graph in graphs]
    while pending:
        graph, depth = pending.pop()
        if depth > MAX_NESTING:
            raise InputError(f"{op}: subgraphs nested deeper than {MAX_NESTING}")
        for node in graph.node:
            for attribute in node.attribute:
                inner = [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs)
                pending += [(each, depth + 1) for each in inner]


def body(outer: OpView, graph: GraphProto, operands: Sequence[Tensor]) -> Model:
    """A subgraph as a model of its own: what it captures and is given are inputs, or constants where they are known.

    Raises:
        InputError: it takes another number of operands.
    """
    if len(operands) != len(graph.input):
        raise InputError(f"{outer.op}: its body takes {len(graph.input)} operands and gets {len(operands)}")
    given = dict(outer.captures) | dict(zip((value.name for value in graph.input), operands, strict=True))
    weights: dict[str, Weight] = {tensor.name: InlineWeight(tensor) for tensor in graph.initializer}
    weights |= {name: weight_of(tensor.const) for name, tensor in given.items() if _is_host(tensor.const)}
    store = WeightStore(weights)
    inputs = tuple(Value(name, tensor.dtype, tensor.shape) for name, tensor in given.items() if name not in weights)
    declared = GraphProto(name="body", input=[infer.info_of(value) for value in inputs], value_info=graph.value_info)
    opsets = dict(outer.opsets) or {"": defs.onnx_opset_version()}
    values = infer.run(declared, graph.node, store, [helper.make_opsetid(*item) for item in opsets.items()])
    ops = [
        Op(
            node.op_type,
            tuple(name or None for name in node.input),
            tuple(values.get(name, Value(name)) for name in node.output),
            Attrs(node.attribute),
            "" if node.domain == "ai.onnx" else node.domain,
            uid,
        )
        for uid, node in enumerate(graph.node, start=1)
    ]
    outputs = tuple(values.get(value.name, Value(value.name)) for value in graph.output)
    return Model(Region(0, "", children=ops), inputs, outputs, store, OnnxEnvelope(), opsets)


def _is_host(const: np.ndarray[Any, Any] | None) -> TypeGuard[np.ndarray[Any, Any]]:
    """Integers may be shapes and axes; other constants take part by type and shape."""
    return const is not None and const.dtype.kind in "iub"


def work_of(outer: OpView, model: Model) -> Work:
    """Work of one run of a body, operator by operator as executors run it: intermediates are written and read.

    Raises:
        InputError: one of its operators has no specification, an unknown shape or work that is unknown.
    """
    parts = [_one(outer, model, op) for op in model.leaves()]
    return total([part for part in parts if part.unit is not Unit.NONE])


def _one(outer: OpView, model: Model, op: Op) -> Work:
    described, seen = spec(op.op, op.domain), view(model, op, {})
    if described is None:
        raise InputError(f"{outer.op}: {op.op} in its body has no operator specification")
    if seen is None:
        raise InputError(f"{outer.op}: a shape around {op.op} in its body is unknown")
    return described.work(seen)


def total(parts: Sequence[Work]) -> Work:
    """The sum; unit and type are those of most arithmetic, or of most traffic where there is none."""
    if not parts:
        return NOTHING
    first = max(parts, key=lambda part: (part.flops, part.read_bytes + part.write_bytes))
    return replace(
        first,
        flops=sum(part.flops for part in parts),
        read_bytes=sum(part.read_bytes for part in parts),
        write_bytes=sum(part.write_bytes for part in parts),
        reread_bytes=sum(part.reread_bytes for part in parts),
        held_bytes=max(part.held_bytes for part in parts),
    )


def repeated(work: Work, times: float) -> Work:
    """The work of so many runs."""
    return replace(
        work,
        flops=work.flops * times,
        read_bytes=work.read_bytes * times,
        write_bytes=work.write_bytes * times,
        reread_bytes=work.reread_bytes * times,
    )


def weight(work: Work) -> float:
    """What decides which of two works is the more expensive: operations and bytes alike."""
    return work.flops + work.read_bytes + work.write_bytes
