"""Types and shapes of every value, by onnx's shape inference on a model without its weights."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    OperatorSetIdProto,
    TensorShapeProto,
    ValueInfoProto,
    helper,
)

from eopt.ir import limits
from eopt.ir.types import DType, Shape, Value
from eopt.ir.weights import WeightStore
from eopt.ir.wire import KEEP_BYTES


def infer_values(proto: ModelProto, weights: WeightStore) -> dict[str, Value]:
    """Every value of the main graph that is declared or can be inferred, by name."""
    return run(proto.graph, proto.graph.node, weights, proto.opset_import, proto.functions, proto.ir_version)


def run(
    graph: GraphProto,
    nodes: Iterable[NodeProto],
    weights: WeightStore,
    opsets: Iterable[OperatorSetIdProto],
    functions: Iterable[FunctionProto] = (),
    ir_version: int = 10,
) -> dict[str, Value]:
    """Infer over `nodes` within the declarations of `graph`; large weights take part by type and shape alone."""
    from onnx import checker, shape_inference

    typed = ModelProto(ir_version=max(ir_version, 4), opset_import=opsets, functions=functions)
    typed.graph.name = graph.name or "graph"
    typed.graph.node.extend(nodes)
    typed.graph.input.extend(graph.input)
    typed.graph.output.extend(graph.output)
    typed.graph.value_info.extend(graph.value_info)
    declared = {info.name for info in graph.input}
    for name in weights:
        if weights.nbytes(name) <= KEEP_BYTES:
            typed.graph.initializer.append(weights.message(name))
        elif name not in declared:
            typed.graph.input.append(
                helper.make_tensor_value_info(name, weights[name].header.data_type, weights.shape(name))
            )
    try:
        inferred = limits.within_memory(partial(shape_inference.infer_shapes, typed, data_prop=True)).graph
    except (shape_inference.InferenceError, checker.ValidationError, RuntimeError, ValueError, MemoryError):
        inferred = typed.graph  # an operator newer than this onnx, an absurd extent: what is declared still stands
    return _values(inferred, weights)


def _values(graph: GraphProto, weights: WeightStore) -> dict[str, Value]:
    values = {name: Value(name, weights.dtype(name), weights.shape(name)) for name in weights}
    declared = [info for info in graph.value_info if info.name not in values]  # a weight knows better
    for info in (*declared, *graph.input, *graph.output):
        values[info.name] = value_of(info)
    return values


def value_of(info: ValueInfoProto) -> Value:
    """Read a declaration; a dim without value or name, or with -1 as some write it, gets a name of its own."""
    if not info.type.HasField("tensor_type"):
        return Value(info.name)
    tensor = info.type.tensor_type
    shape: Shape | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value
            if dim.HasField("dim_value") and dim.dim_value >= 0
            else dim.dim_param or f"{info.name}.{axis}"
            for axis, dim in enumerate(tensor.shape.dim)
        )
    return Value(info.name, DType.from_onnx(tensor.elem_type), shape)


def _is_fixed(dim: TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value >= 0


def info_of(value: Value) -> ValueInfoProto:
    """Declare a value with what is known of it."""
    if value.dtype is None:
        return ValueInfoProto(name=value.id)
    return helper.make_tensor_value_info(value.id, value.dtype.onnx, value.shape)
