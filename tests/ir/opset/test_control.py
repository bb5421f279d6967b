"""Control flow costs what its body costs, as often as it runs; what nobody can know is an error with a reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from eopt.ir import onnx_io
from eopt.ir.errors import InputError
from eopt.ir.ops import OpView, Tensor, Work, spec, view
from eopt.ir.types import DType

PRODUCT = 2 * 3 * 4 * 4


def only(text: str, **weights: np.ndarray) -> tuple[Work | None, OpView | None]:
    """The first operator with a subgraph of a model in onnx's text form, looked at with nothing bound."""
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = onnx_io.from_proto(proto)
    op = next(op for op in model.leaves() if op.attrs.graphs)
    seen = view(model, op, {})
    return seen and spec(op.op, op.domain).work(seen), seen


def weight(*shape: int) -> np.ndarray:
    return np.ones(shape, dtype="f")


LOOP = """(float[3, 4] x) => (float[3, 4] y) {{ {before}
    y = Loop (trips, keep, x) <body = inner (int64 n, bool c, float[3, 4] h) => (bool d, float[3, 4] k)
    {{ d = Identity(c) k = MatMul(h, w) }}> }}"""


def test_a_loop_costs_its_body_times_the_constant_trip_count():
    done, seen = only(LOOP.format(before=""), trips=np.array(7), keep=np.array(True), w=weight(4, 4))
    assert done.flops == 7 * PRODUCT
    assert done.read_bytes == 7 * 4 * (12 + 16)
    assert set(seen.captures) == {"trips", "keep", "x", "w"}, "what it reads, captured or given"


def test_the_trip_count_may_come_from_a_constant_operator():
    done, _ = only(LOOP.format(before="trips = Constant <value_int: int = 5> ()"), keep=np.array(True), w=weight(4, 4))
    assert done.flops == 5 * PRODUCT


def test_a_loop_of_unknown_length_is_an_error_and_not_free():
    text = LOOP.format(before="").replace("(float[3, 4] x)", "(float[3, 4] x, int64 trips)")
    with pytest.raises(InputError, match="trip count is not a constant"):
        only(text, keep=np.array(True), w=weight(4, 4))


def test_a_loop_whose_state_grows_is_an_error():
    text = """(float[3, 4] x) => (float[a, 4] y) {
        y = Loop (trips, keep, x) <body = inner (int64 n, bool c, float[m, 4] h) => (bool d, float[k, 4] z)
        { d = Identity(c) z = Concat <axis: int = 0> (h, h) }> }"""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    loop = model.graph.node[0]
    seen = OpView(
        "Loop",
        "",
        (Tensor((), DType.INT64, np.array(3)), Tensor((), DType.BOOL), Tensor((3, 4), DType.FLOAT32)),
        (Tensor((24, 4), DType.FLOAT32),),
        onnx_io.Attrs(loop.attribute),
    )
    with pytest.raises(InputError, match="changes its shape"):
        spec("Loop").work(seen)


def test_a_branch_costs_the_more_expensive_one():
    text = """(float[3, 4] x, bool p) => (float[3, 4] y) {
        y = If (p) <then_branch = a () => (float[3, 4] u) { u = MatMul(x, w) },
                    else_branch = b () => (float[3, 4] v) { v = Relu(x) }> }"""
    done, _ = only(text, w=weight(4, 4))
    assert (done.flops, done.read_bytes) == (PRODUCT, 4 * (12 + 16))


def test_bodies_in_bodies_see_what_their_surroundings_capture():
    text = """(float[3, 4] x, bool p) => (float[3, 4] y) {
        y = Loop (trips, keep, x) <body = inner (int64 n, bool c, float[3, 4] h) => (bool d, float[3, 4] k) {
            d = Identity(c)
            k = If (p) <then_branch = a () => (float[3, 4] u) { u = MatMul(h, w) },
                        else_branch = b () => (float[3, 4] v) { v = Relu(h) }> }> }"""
    done, _ = only(text, trips=np.array(3), keep=np.array(True), w=weight(4, 4))
    assert done.flops == 3 * PRODUCT


def test_constants_of_the_surroundings_are_constants_inside():
    text = """(float[3, 4] x, bool p) => (float[2, 6] y) {
        y = If (p) <then_branch = a () => (float[2, 6] u) { t = Reshape(x, s) u = Relu(t) },
                    else_branch = b () => (float[2, 6] v) { v = Reshape(x, s) }> }"""
    done, _ = only(text, s=np.array([2, 6]))
    assert done.flops == 12


def test_a_scan_runs_once_for_every_slice():
    text = """(float[3, 4] h, float[5, 3, 4] xs) => (float[3, 4] y, float[5, 3, 4] ys) {
        y, ys = Scan <num_scan_inputs: int = 1, body = inner (float[3, 4] s, float[3, 4] x)
            => (float[3, 4] t, float[3, 4] o) { m = MatMul(s, w) t = Add(m, x) o = Identity(t) }> (h, xs) }"""
    done, _ = only(text, w=weight(4, 4))
    assert done.flops == 5 * (PRODUCT + 12)


def test_score_functions_of_attention_count():
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["s"], ["t"])],
        "mod",
        [helper.make_tensor_value_info("s", 1, [1, 2, 3, 3])],
        [helper.make_tensor_value_info("t", 1, [1, 2, 3, 3])],
    )
    tensors = (Tensor((1, 2, 3, 4), DType.FLOAT32),) * 3
    attrs = onnx_io.Attrs([helper.make_attribute("score_mod", graph)])
    seen = OpView("FlexAttention", "ai.onnx.preview", tensors, tensors[:1], attrs)
    assert spec("FlexAttention", "ai.onnx.preview").work(seen).flops == 2 * 9 * (4 * 4 + 14) + 20 * 18


def test_what_a_body_holds_without_a_specification_is_named():
    text = """(float[3, 4] x, bool p) => (float[3, 4] y) {
        y = If (p) <then_branch = a () => (float[3, 4] u) { u = custom.Mystery(x) },
                    else_branch = b () => (float[3, 4] v) { v = Relu(x) }> }"""
    text = text.replace("custom.Mystery", "Mystery")
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20, "custom": 1]> g {text}')
    proto.graph.node[0].attribute[0].g.node[0].domain = "custom"
    (op,) = onnx_io.from_proto(proto).leaves()
    with pytest.raises(InputError, match="Mystery"):
        spec("If").work(view(onnx_io.from_proto(proto), op, {}))


def test_a_sequence_has_no_length():
    seen = OpView("SequenceMap", "", (), (), onnx_io.Attrs())
    with pytest.raises(InputError, match="length of a sequence"):
        spec("SequenceMap").work(seen)


def test_hostile_depth_is_refused_before_anything_recurses():
    deep = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    for _ in range(12):
        loop = helper.make_node("Loop", ["m", "c"], ["y"], body=deep)
        deep = helper.make_graph([loop], "g", [], [])
    attrs = onnx_io.Attrs([helper.make_attribute("then_branch", deep), helper.make_attribute("else_branch", deep)])
    seen = OpView("If", "", (Tensor((), DType.BOOL),), (Tensor((1,), DType.FLOAT32),), attrs)
    with pytest.raises(InputError, match="nested deeper"):
        spec("If").work(seen)
