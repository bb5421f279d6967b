"""Models of any size for the benchmarks of the IR: residual blocks of a transformer's feed-forward shape."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPS_PER_BLOCK = 10


def blocks(nodes: int, width: int = 64, scoped: bool = False) -> ModelProto:
    """About `nodes` operators over tensors of shape (batch, width); one weight is shared by all blocks.

    Args:
        scoped: name the nodes as the TorchScript exporter does, which gives a module tree; flat otherwise.
    """
    generator = np.random.default_rng(0)
    weight = numpy_helper.from_array(generator.standard_normal((width, width)).astype("f") / width, "w")
    scale = numpy_helper.from_array(np.full(width, 0.5, "f"), "scale")
    half = numpy_helper.from_array(np.float32(0.5), "half")
    made, last = [], "x"
    for number in range(max(1, nodes // OPS_PER_BLOCK)):
        made += list(_block(number, last, scoped))
        last = f"{number}.out"
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(made, "blocks", [info("x")], [info(last)], [weight, scale, half])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _block(number: int, last: str, scoped: bool) -> Iterator[NodeProto]:
    chain = [
        ("LayerNormalization", ["scale"]), ("MatMul", ["w"]), ("Mul", ["half"]), ("Tanh", []), ("Add", [last]),
        ("MatMul", ["w"]), ("Sigmoid", []), ("Mul", ["scale"]), ("Identity", []), ("Add", [last]),
    ]  # fmt: skip
    value = last
    for position, (kind, others) in enumerate(chain):
        output = f"{number}.out" if position == len(chain) - 1 else f"{number}.{position}"
        name = f"/layers.{number}/{'norm' if position == 0 else 'ffn'}/{kind}_{position}" if scoped else ""
        yield helper.make_node(kind, [value, *others], [output], name=name)
        value = output


def external(path: Path, layers: int, width: int) -> int:
    """A chain of `layers` MatMul + Relu with float32 weights (width, width) in external data, written in pieces.

    Returns:
        Bytes of weights.
    """
    nodes, weights, last = [], [], "x"
    size = width * width * 4
    row = np.random.default_rng(0).standard_normal(width).astype("f") / width**0.5
    piece = np.stack([np.roll(row, shift) for shift in range(256)]).tobytes()
    with path.with_name(path.name + ".data").open("wb") as data:
        for number in range(layers):
            weight = TensorProto(name=f"layer.{number}.weight", data_type=TensorProto.FLOAT, dims=[width, width])
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", path.name + ".data"), ("offset", number * size), ("length", size)):
                weight.external_data.add(key=key, value=str(value))
            for _ in range(size // len(piece)):
                data.write(piece)
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [last, weight.name], [f"{number}.product"]))
            nodes.append(helper.make_node("Identity", [f"{number}.product"], [f"{number}.same"]))
            nodes.append(helper.make_node("Relu", [f"{number}.same"], [f"{number}.out"]))
            last = f"{number}.out"
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
    graph = helper.make_graph(nodes, "chain", [info("x")], [info(last)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return layers * size
