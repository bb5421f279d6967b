"""Quantised ONNX operators in words TVM's importer knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from eopt.backends.base import Array
from eopt.ir.errors import InputError


def expanded(model: ModelProto) -> ModelProto:
    """The model without `QLinearMatMul`, `QLinearConv` and `ConvInteger`, which TVM does not import.

    The first two become what the standard defines them by: dequantise, operate, quantise. `backends/tvm/int8.py` then
    makes integer arithmetic of it.

    Raises:
        InputError: a quantised bias whose scales are no constants, naming the node.
    """
    if not any(node.op_type in _RULES for node in model.graph.node):
        return model
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    scope = _Scope(result)
    for node in model.graph.node:
        result.graph.node.extend(_RULES[node.op_type](node, scope) if node.op_type in _RULES else [node])
    return result


class _Scope:
    """Constants of a model that is being written, and names that are new in it."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.arrays = {tensor.name: tensor for tensor in self.graph.initializer}
        self.fresh = (f"eopt.tvm.{number}" for number in count())

    def constant(self, name: str, node: NodeProto) -> Array:
        if name not in self.arrays:
            raise InputError(
                f"node {node.name or node.output[0]!r} ({node.op_type}): {name!r} must be a constant for TVM"
            )
        return numpy_helper.to_array(self.arrays[name])

    def added(self, array: Array) -> str:
        name = next(self.fresh)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> NodeProto:
        return helper.make_node(op, list(inputs), [output or next(self.fresh)], **attributes)


def _matmul(node: NodeProto, scope: _Scope) -> Iterator[NodeProto]:
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = node.input
    left = scope.node("DequantizeLinear", a, a_scale, a_zero)
    right = scope.node("DequantizeLinear", b, b_scale, b_zero, axis=-1)
    product = scope.node("MatMul", left.output[0], right.output[0])
    quantised = scope.node("QuantizeLinear", product.output[0], scale, zero, output=node.output[0])
    yield from (left, right, product, quantised)


def _conv(node: NodeProto, scope: _Scope) -> Iterator[NodeProto]:
    x, x_scale, x_zero, w, w_scale, w_zero, scale, zero, *bias = node.input
    left = scope.node("DequantizeLinear", x, x_scale, x_zero)
    right = scope.node("DequantizeLinear", w, w_scale, w_zero, axis=0)
    inputs = [left.output[0], right.output[0]]
    if bias and bias[0]:
        step = scope.constant(x_scale, node) * scope.constant(w_scale, node)
        inputs.append(scope.added((scope.constant(bias[0], node) * step).astype(np.float32)))
    convolved = scope.node("Conv", *inputs)
    convolved.attribute.extend(node.attribute)
    quantised = scope.node("QuantizeLinear", convolved.output[0], scale, zero, output=node.output[0])
    yield from (left, right, convolved, quantised)


def _conv_integer(node: NodeProto, scope: _Scope) -> Iterator[NodeProto]:
    sources = []
    for value, zero in zip(node.input[:2], [*node.input[2:], "", ""][:2], strict=True):
        nodes = _centred(value, zero, scope)
        yield from nodes
        sources.append(nodes[-1].output[0])
    convolved = scope.node("Conv", *sources, output=node.output[0])
    convolved.attribute.extend(node.attribute)
    yield convolved


def _centred(value: str, zero: str, scope: _Scope) -> list[NodeProto]:
    wide = scope.node("Cast", value, to=TensorProto.INT32)
    if not zero:
        return [wide]
    offset = scope.node("Cast", zero, to=TensorProto.INT32)
    return [wide, offset, scope.node("Sub", wide.output[0], offset.output[0])]


_RULES: dict[str, Callable[[NodeProto, _Scope], Iterator[NodeProto]]] = {
    "QLinearMatMul": _matmul, "QLinearConv": _conv, "ConvInteger": _conv_integer,
}  # fmt: skip
