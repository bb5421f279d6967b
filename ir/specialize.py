"""Fix symbolic dims of a model, so that shapes computed from them become known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, helper

from eopt.ir import infer, onnx_out
from eopt.ir.model import Model
from eopt.ir.surgery import retyped
from eopt.ir.types import Value, bind, concrete
from eopt.ir.weights import WeightStore, weight_of

ROUNDS = 8  # shapes that depend on shapes: one round for each step of the chain
HOST_ELEMENTS = 1024
_HOST_OPERATORS = frozenset(
    """Abs Add Cast Concat Constant ConstantOfShape Div Equal Expand Floor Gather Identity Max Min Mul Neg Range Reshape
    Slice Squeeze Sub Unsqueeze Where""".split()
)

Array = np.ndarray[Any, Any]


def specialize(model: Model, bindings: Mapping[str, int]) -> Model:
    """A copy whose inputs have these extents; every other shape is inferred anew.

    Values computed from shapes alone are evaluated, since shape inference follows few operators on data. The result
    still holds the nodes that computed them; `simplify` folds them.
    """
    inputs = tuple(_bound(value, bindings) for value in model.inputs)
    outputs = tuple(_bound(value, bindings) for value in model.outputs)
    fixed = replace(model, inputs=inputs, outputs=outputs)
    proto = onnx_out.skeleton(fixed)
    del proto.graph.value_info[:]
    known: dict[str, Array] = {}
    for _ in range(ROUNDS):
        values = _inferred(proto, model.weights, known)
        count = len(known)
        _evaluate(model, proto, values, known)
        if len(known) == count:
            break
    return retyped(fixed, values)


def _inferred(proto: ModelProto, weights: WeightStore, known: Mapping[str, Array]) -> dict[str, Value]:
    nodes = [node for node in proto.graph.node if not all(name in known for name in node.output)]
    constants = weights.updated({name: weight_of(array) for name, array in known.items()})
    return infer.run(proto.graph, nodes, constants, proto.opset_import, proto.functions, proto.ir_version)


def _evaluate(model: Model, proto: ModelProto, values: Mapping[str, Value], known: dict[str, Array]) -> None:
    """Add the values of operators that depend on shapes and small constants only."""
    for node in proto.graph.node:
        if len(node.output) != 1 or node.output[0] in known or node.domain:
            continue
        if node.op_type == "Shape":
            shape = concrete(values[node.input[0]].shape) if node.input[0] in values else None
            arrays = None if shape is None else [np.asarray(shape, np.int64)]
        else:
            arrays = _operands(model, node, known)
        result = None if arrays is None else _run(node, arrays, model.opsets.get("", 1))
        if result is not None and result.size <= HOST_ELEMENTS:
            known[node.output[0]] = result


def _operands(model: Model, node: NodeProto, known: Mapping[str, Array]) -> list[Array] | None:
    if node.op_type not in _HOST_OPERATORS:
        return None
    arrays: list[Array] = []
    for name in node.input:
        small = name in model.weights and np.prod(model.weights.shape(name)) <= HOST_ELEMENTS
        array = known.get(name) if name in known or not small else model.constant(name)
        if array is None:
            return None
        arrays.append(array)
    return arrays


def _run(node: NodeProto, arrays: list[Array], opset: int) -> Array | None:
    from onnx.reference import ReferenceEvaluator

    if node.op_type == "Shape":
        first, last = (_integer(node, name) for name in ("start", "end"))
        return arrays[0][slice(first, last)]
    inputs = [helper.make_tensor_value_info(name, 0, None) for name in dict.fromkeys(node.input)]
    outputs = [helper.make_tensor_value_info(name, 0, None) for name in node.output]
    graph = helper.make_graph([node], "host", inputs, outputs)
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))
        (result,) = evaluator.run(None, dict(zip(node.input, arrays, strict=True)))
    except Exception:  # shape arithmetic that does not work out stays unknown, as before
        return None
    return np.asarray(result)


def _integer(node: NodeProto, name: str) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), None)


def _bound(value: Value, bindings: Mapping[str, int]) -> Value:
    return value if value.shape is None else replace(value, shape=bind(value.shape, bindings))
