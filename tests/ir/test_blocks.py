"""Modules of anonymous graphs: from the names of weights, else from dominators and repeats."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from eopt.ir import onnx_io, onnx_out
from eopt.ir.node import Region
from eopt.ir.prefixes import module_of
from eopt.ir.repeats import repeats

WIDTH = 8


def residual_layers(count: int, weight: str) -> list:
    """Pre-normalised residual blocks after an embedding, a mask added in each; `weight` names those of layer {n}."""
    nodes = [("Gather", ["embeddings.table" if "." in weight else "table", "ids"], "v")]
    nodes.append(("Cast", ["mask"], "m"))
    last = "v"
    for n in range(count):
        up, down = (weight.format(n=n, part=part) for part in ("up", "down"))
        nodes += [
            ("MatMul", [last, up], f"{n}.a"), ("Add", [f"{n}.a", "m"], f"{n}.b"), ("Relu", [f"{n}.b"], f"{n}.c"),
            ("MatMul", [f"{n}.c", down], f"{n}.d"), ("Add", [f"{n}.d", last], f"{n}.y"),
        ]  # fmt: skip
        last = f"{n}.y"
    return [*nodes, ("Softmax", [last], "out")]


def imported(count: int, weight: str):
    nodes = [
        helper.make_node(kind, inputs, [output], **({"to": TensorProto.FLOAT} if kind == "Cast" else {}))
        for kind, inputs, output in residual_layers(count, weight)
    ]
    names = sorted({name for node in nodes for name in node.input} - {o for node in nodes for o in node.output})
    arrays = [numpy_helper.from_array(np.eye(WIDTH, dtype="f"), name) for name in names if name not in ("ids", "mask")]
    feeds = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("mask", TensorProto.INT64, ["n", 1]),
    ]
    result = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", WIDTH])
    graph = helper.make_graph(nodes, "g", feeds, [result], arrays)
    return onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def children(region: Region) -> list[str]:
    return [child.name if isinstance(child, Region) else child.op for child in region.children]


@pytest.mark.parametrize("count", [2, 3, 12])
def test_blocks_between_dominators_repeat(count):
    model = imported(count, "onnx::MatMul_{n}{part}")
    blocks = [child for child in model.root.children if isinstance(child, Region) and child.name.startswith("block")]
    assert [[op.op for op in block.leaves()] for block in blocks] == [
        ["MatMul", "Add", "Relu", "MatMul", "Add"]
    ] * count
    ((_, members),) = repeats(model).items()
    assert len(members) == count


def test_weight_names_are_module_paths():
    model = imported(3, "encoder.layer.{n}.{part}.weight")
    # the last sum reads the embeddings too, through every residual: it lies above both
    assert children(model.root) == ["embeddings", "encoder", "Add", "Softmax"]
    encoder = next(region for region in model.regions() if region.name == "encoder")
    assert [child.name for child in encoder.children if isinstance(child, Region)] == ["layer.0", "layer.1", "layer.2"]


def test_a_chain_without_structure_stays_flat():
    nodes = [helper.make_node(kind, [f"v{i}"], [f"v{i + 1}"]) for i, kind in enumerate(("Neg", "Abs", "Exp"))]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])
    graph = helper.make_graph(nodes, "g", [info("v0")], [info("v3")])
    model = onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    assert children(model.root) == ["Neg", "Abs", "Exp"]


def test_a_rewritten_model_remembers_the_modules_found():
    model = imported(3, "onnx::MatMul_{n}{part}")
    relu = next(op for op in model.leaves() if op.op == "Relu")
    rewritten = model.replace([relu], [type(relu)("Tanh", relu.inputs, relu.outputs)])
    again = onnx_io.from_proto(onnx_out.to_proto(rewritten))
    paths = lambda m: {op.output: m.path(op.uid) for op in m.leaves()}
    assert paths(again) == paths(rewritten)
    assert set(paths(again).values()) >= {"block.0", "block.1", "block.2"}


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("encoder.layer.0.dense.weight", ("encoder", "layer.0", "dense")),
        ("bert/encoder/layer_0/dense/kernel", ("bert", "encoder", "layer_0", "dense")),
        ("features.0.0.weight", ("features.0.0",)),
        ("onnx::MatMul_12", ()),
        ("weight", ()),
        ("../../etc/passwd", ()),
    ],
)
def test_module_of_a_weight(name, module):
    assert tuple(part for part, _ in module_of(name)) == module
