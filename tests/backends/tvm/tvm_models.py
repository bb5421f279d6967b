"""Small models, as bytes, for everything TVM is asked to do."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from eopt.backends.base import Array
from eopt.backends.harness.base import Workload


def workload(nodes: list[NodeProto], inputs: dict[str, Array], outputs: dict[str, str], **constants: Array) -> Workload:
    """Inputs by an example of each, outputs by their dtype; ranks of outputs are left to whoever infers them."""
    described = [_info(name, array.dtype, array.shape) for name, array in inputs.items()]
    results = [_info(name, np.dtype(dtype), None) for name, dtype in outputs.items()]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "graph", described, results, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return Workload("+".join(node.op_type for node in nodes), model.SerializeToString())


def _info(name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)


def onnxruntime(wanted: Workload, feed: dict[str, Array]) -> list[Array]:
    """What the model gives with every quantised operator as the standard defines it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    return ort.InferenceSession(wanted.onnx, options, providers=["CPUExecutionProvider"]).run(None, feed)


def product(rows: int = 16, inner: int = 128, columns: int = 64) -> tuple[Workload, dict[str, Array]]:
    """A matrix product with a ReLU, which TVM makes one kernel of."""
    draw = np.random.default_rng(0).standard_normal
    feed = {"a": draw((rows, inner), np.float32)}
    nodes = [helper.make_node("MatMul", ["a", "w"], ["t"]), helper.make_node("Relu", ["t"], ["y"])]
    return workload(nodes, feed, {"y": "float32"}, w=draw((inner, columns), np.float32)), feed
