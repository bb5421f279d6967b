"""A transformer's encoder as an exporter writes it, not fused: the third whole model beside the examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto


def encoder(layers: int = 4, width: int = 768, heads: int = 12, length: int = 128, seed: int = 0) -> ModelProto:
    """float32 (batch, length, width) to the same, with random weights."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    draw, weights = np.random.default_rng(seed), dict[str, Any]()

    def weight(name: str, *shape: int) -> str:
        weights[name] = numpy_helper.from_array(draw.standard_normal(shape).astype("f") / shape[0] ** 0.5, name)
        return name

    constants = {
        "split": np.array([0, length, heads, width // heads]), "joined": np.array([0, length, width]),
        "root": np.float32((width // heads) ** 0.5), "sqrt2": np.float32(2**0.5),
        "one": np.float32(1), "half": np.float32(0.5), "scale": np.ones(width, "f"), "shift": np.zeros(width, "f"),
    }  # fmt: skip
    weights |= {name: numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()}
    nodes, last = [], "x"
    for number in range(layers):
        for kind, inputs, output, attrs in _layer(f"l{number}", last, width, weight):
            nodes.append(helper.make_node(kind, inputs, [output], name=output, **attrs))
        last = f"l{number}.out"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", length, width]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], list(weights.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _layer(at: str, x: str, width: int, weight: Any) -> Iterator[tuple[str, list[str], str, dict[str, Any]]]:
    """Operator, operands, result and attributes of one layer, norms first."""
    yield "LayerNormalization", [x, "scale", "shift"], f"{at}.n1", {"axis": -1}
    for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        yield from _linear(f"{at}.{part}", f"{at}.n1", weight, width, width)
        yield "Reshape", [f"{at}.{part}", "split"], f"{at}.{part}.s", {}
        yield "Transpose", [f"{at}.{part}.s"], f"{at}.{part}.t", {"perm": order}
    yield "MatMul", [f"{at}.q.t", f"{at}.k.t"], f"{at}.qk", {}
    yield "Div", [f"{at}.qk", "root"], f"{at}.scores", {}
    yield "Softmax", [f"{at}.scores"], f"{at}.p", {"axis": -1}
    yield "MatMul", [f"{at}.p", f"{at}.v.t"], f"{at}.pv", {}
    yield "Transpose", [f"{at}.pv"], f"{at}.pv.t", {"perm": [0, 2, 1, 3]}
    yield "Reshape", [f"{at}.pv.t", "joined"], f"{at}.heads", {}
    yield from _linear(f"{at}.o", f"{at}.heads", weight, width, width)
    yield "Add", [x, f"{at}.o"], f"{at}.r", {}
    yield "LayerNormalization", [f"{at}.r", "scale", "shift"], f"{at}.n2", {"axis": -1}
    yield from _linear(f"{at}.up", f"{at}.n2", weight, width, 4 * width)
    yield "Div", [f"{at}.up", "sqrt2"], f"{at}.g1", {}
    yield "Erf", [f"{at}.g1"], f"{at}.g2", {}
    yield "Add", [f"{at}.g2", "one"], f"{at}.g3", {}
    yield "Mul", [f"{at}.up", f"{at}.g3"], f"{at}.g4", {}
    yield "Mul", [f"{at}.g4", "half"], f"{at}.g5", {}
    yield from _linear(f"{at}.down", f"{at}.g5", weight, 4 * width, width)
    yield "Add", [f"{at}.r", f"{at}.down"], f"{at}.out", {}


def _linear(name: str, x: str, weight: Any, read: int, made: int) -> Iterator[tuple[str, list[str], str, Any]]:
    yield "MatMul", [x, weight(f"{name}.w", read, made)], f"{name}.m", {}
    yield "Add", [f"{name}.m", weight(f"{name}.b", made)], name, {}
