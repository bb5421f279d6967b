"""Fix symbolic dims of a model, so that shapes computed from them become constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eopt.ir import infer, onnx_out
from eopt.ir.model import Model
from eopt.ir.surgery import retyped
from eopt.ir.types import Value, bind


def specialize(model: Model, bindings: Mapping[str, int]) -> Model:
    """A copy whose inputs have these extents; every other shape is inferred anew.

    The result still holds the nodes that computed shapes; `simplify` folds them.
    """
    inputs = tuple(_bound(value, bindings) for value in model.inputs)
    outputs = tuple(_bound(value, bindings) for value in model.outputs)
    fixed = replace(model, inputs=inputs, outputs=outputs)
    graph = onnx_out.skeleton(fixed).graph
    del graph.value_info[:]
    values = infer.run(graph, graph.node, model.weights, infer.opset_messages(model.opsets))
    return retyped(fixed, values)


def _bound(value: Value, bindings: Mapping[str, int]) -> Value:
    return value if value.shape is None else replace(value, shape=bind(value.shape, bindings))
