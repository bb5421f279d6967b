"""Any operators of any model, cut out with all they read, give what they give inside of it, in every copy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from eopt.backends.ort import OrtRunner
from eopt.costmodel.cut import cut
from eopt.ir.model import Model
from eopt.ir.onnx_io import from_proto
from eopt.ir.types import DType
from eopt.ir.weights import AbsentWeight, WeightStore

WIDTH = 4
UNARY, BINARY = ("Relu", "Tanh", "Softmax", "Neg"), ("Add", "Mul", "MatMul")


@st.composite
def models(draw) -> Model:
    """Square matrices, so that every operator fits every value; some operands are weights."""
    names, nodes, weights = ["x", "z"], [], []
    for number in range(draw(st.integers(1, 8))):
        op = draw(st.sampled_from(UNARY + BINARY))
        read = [draw(st.sampled_from(names)) for _ in range(1 if op in UNARY else 2)]
        if op in BINARY and draw(st.booleans()):
            read[1] = f"w{number}"
            array = np.random.default_rng(number).standard_normal((WIDTH, WIDTH)).astype("f") / WIDTH
            weights.append(numpy_helper.from_array(array, read[1]))
        nodes.append(helper.make_node(op, read, [f"y{number}"], name=f"n{number}"))
        names.append(f"y{number}")
    square = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDTH, WIDTH])
    graph = helper.make_graph(nodes, "g", [square("x"), square("z")], [square(names[-1])], weights)
    return from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def outputs(proto: bytes, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feed), strict=True))


@settings(max_examples=40)
@given(models(), st.integers(1, 3), st.data())
def test_what_is_cut_out_computes_what_it_computed_inside(model, copies, data):
    ops = model.leaves()
    first = data.draw(st.integers(0, len(ops) - 1))
    members = ops[first : data.draw(st.integers(first + 1, len(ops)))]
    draw = np.random.default_rng(0).standard_normal
    feed = {name: draw((WIDTH, WIDTH)).astype("f") for name in ("x", "z")}
    (inside,) = OrtRunner(threads=1, optimize=False).run(model, [feed], [op.output for op in ops])
    inside = {**feed, **inside}
    found = cut(model, members, {}, copies=copies)
    graph = onnx.load_from_string(found.onnx).graph
    asked = {info.name: inside[info.name.partition(".")[0]] for info in graph.input}
    given_back = outputs(found.onnx, asked)
    assert found.copies == copies
    assert len(graph.node) == copies * len(members)
    assert given_back
    for name, array in given_back.items():
        np.testing.assert_allclose(array, inside[name.partition(".")[0]], rtol=1e-4, atol=1e-4)  # kernels fuse


@settings(max_examples=20)
@given(models(), st.integers(2, 4))
def test_copies_share_nothing(model, copies):
    """What two copies read or compute alike, an executor would do once."""
    graph = onnx.load_from_string(cut(model, model.leaves(), {}, copies=copies).onnx).graph
    owners: dict[str, set[str]] = {}
    for node in graph.node:
        for name in (*node.input, *node.output):
            owners.setdefault(name, set()).add(node.name.partition(".")[2])
    assert all(len(found) == 1 for found in owners.values())


@settings(max_examples=20)
@given(models())
def test_what_somebody_else_reads_is_a_result(model):
    for op in model.leaves():
        graph = onnx.load_from_string(cut(model, [op], {}).onnx).graph
        assert [info.name for info in graph.output] == [op.output]
        assert {info.name for info in graph.input} == {name for name in op.reads if name not in model.weights}


def test_a_weight_of_which_only_the_shape_is_known_is_drawn_alike_each_time():
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xy")
    weight = numpy_helper.from_array(np.zeros((3, 3), "f"), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    unknown = replace(model, weights=WeightStore({"w": AbsentWeight.of(DType.FLOAT32, (3, 3))}))
    one, other = (cut(unknown, unknown.leaves(), {}) for _ in range(2))
    assert one == other
    drawn = numpy_helper.to_array(onnx.load_from_string(one.onnx).graph.initializer[0])
    assert len(set(drawn.flat)) == 9
