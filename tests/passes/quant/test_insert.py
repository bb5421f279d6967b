"""The rewritten graph: what stands where, under which name, and what it computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_out
from eopt.ir.types import DType
from eopt.ir.verify import verify
from eopt.passes.quant import candidates, insert, params, placement, weights
from eopt.passes.quant.scheme import Scheme

NUMBERS = Scheme(DType.UINT8, DType.INT8, symmetric=False, weight_limit=127, integer_bias=True)
CONV = "(float[N,3,8,8] x) => (float[N,4,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, w, b) y = Exp(a) }"


def stored(model, name):
    return model.weights.array(name)


def test_matmul_reads_int8_and_writes_float(build, normal, quantise, types, sqnr):
    model = build("(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", w=normal(4, 3))
    after = quantise(model).model
    assert sorted(types(after)) == ["DequantizeLinear", "DequantizeLinear", "MatMul", "QuantizeLinear"]
    assert after.leaves()[-1].inputs == ("x_dq", "w_dq")
    assert after.leaves()[-1].output == "y"
    assert set(after.weights) == {"x_scale", "x_zero_point", "w_q", "w_scale", "w_zero_point"}
    assert stored(after, "w_q").dtype == np.int8 and stored(after, "x_zero_point").dtype == np.uint8
    # uniform noise of an 8-bit step on normal data is near 40 dB for the input and better for the weight
    assert sqnr(model, after) > 30


def test_conv_reads_and_writes_int8_with_an_int32_bias(build, normal, quantise, types):
    model = build(CONV, w=normal(4, 3, 3, 3), b=normal(4))
    after = quantise(model).model
    assert types(after)[-4:] == ["Conv", "QuantizeLinear", "DequantizeLinear", "Exp"]
    conv = next(op for op in after.leaves() if op.op == "Conv")
    assert conv.inputs == ("x_dq", "w_dq", "b_dq")
    bias_scale = stored(after, "x_scale") * stored(after, "w_scale")
    np.testing.assert_array_equal(stored(after, "b_scale"), bias_scale)
    assert stored(after, "b_q").dtype == np.int32
    np.testing.assert_allclose(stored(after, "b_q") * bias_scale, model.weights.array("b"), atol=bias_scale.max() / 2)


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales_run_along_the_output_axis(build, normal, quantise, per_channel):
    model = build("(float[N,4] x) => (float[N,3] y) { y = Gemm<transB=1>(x, w, b) }", w=normal(3, 4), b=normal(1, 3))
    after = quantise(model, per_channel=per_channel).model
    assert stored(after, "w_scale").shape == ((3,) if per_channel else ())
    assert stored(after, "b_q").shape == (3,)
    axes = {op.inputs[0]: op.attrs.get("axis") for op in after.leaves() if op.op == "DequantizeLinear"}
    assert axes == {"x_q": None, "w_q": 0 if per_channel else None, "b_q": 0 if per_channel else None}


def test_per_channel_is_more_exact_than_per_tensor(build, normal, quantise, sqnr):
    weight = normal(16, 8) * 10.0 ** np.arange(-3, 5, dtype=np.float32)
    scale = np.float32(1) / 10.0 ** np.arange(-3, 5, dtype=np.float32)
    graph = "(float[N,16] x) => (float[N,8] y) { h = MatMul(x, w) y = Mul(h, s) }"
    model = build(graph, w=weight, s=scale)
    fine, coarse = (sqnr(model, quantise(model, per_channel=option).model) for option in (True, False))
    assert fine > 30 > coarse


def test_an_input_shared_by_many_is_quantised_once(build, normal, quantise, types):
    graph = "(float[N,4] x) => (float[N,4] y) { q = MatMul(x, v) k = MatMul(x, w) s = Add(q, k) y = Add(s, x) }"
    after = quantise(build(graph, v=normal(4, 4), w=normal(4, 4))).model
    assert Counter(types(after))["QuantizeLinear"] == 1
    assert after.leaves()[-1].inputs == ("s", "x")  # float users keep the exact tensor


def test_a_residual_block_stays_in_int8(build, normal, quantise, types, sqnr):
    graph = """(float[N,4,8,8] x) => (float[N,4,8,8] y) {
      a = Conv<pads=[1,1,1,1]>(x, w1)
      r = Relu(a)
      b = Conv<pads=[1,1,1,1]>(r, w2)
      s = Add(b, r)
      t = Relu(s)
      c = Conv<pads=[1,1,1,1]>(t, w3)
      u = Add(c, t)
      m = MaxPool<kernel_shape=[1,1]>(u)
      d = Conv<pads=[1,1,1,1]>(m, w4)
      y = Exp(d)
    }"""
    model = build(graph, **{f"w{number}": normal(4, 4, 3, 3) / 6 for number in (1, 2, 3, 4)})
    after = quantise(model).model
    for op in after.leaves():
        if op.op in ("Conv", "Add", "MaxPool"):
            assert {after.producer(name).op for name in op.inputs} == {"DequantizeLinear"}
    assert Counter(types(after))["QuantizeLinear"] == 8  # x r b t c u m d
    np.testing.assert_array_equal(stored(after, "m_scale"), stored(after, "u_scale"))
    assert sqnr(model, after) > 20


def test_a_tied_weight_is_stored_once(build, normal, quantise, sqnr):
    graph = "(float[N,4] x) => (float[N,4] y) { h = MatMul(x, w) e = Tanh(h) y = MatMul(e, w) }"
    model = build(graph, w=normal(4, 4))
    after = quantise(model).model
    readers = [op for op in after.leaves() if op.op == "MatMul"]
    assert [op.inputs[1] for op in readers] == ["w_dq", "w_dq"]
    assert [name for name in after.weights if after.weights.array(name).shape == (4, 4)] == ["w_q"]
    assert sqnr(model, after) > 25


def test_a_weight_tied_across_axes_gets_one_scale(build, normal, quantise, sqnr):
    graph = "(float[N,4] x) => (float[N,4] y) { h = MatMul(x, w) e = Tanh(h) y = Gemm<transB=1>(e, w) }"
    model = build(graph, w=normal(4, 4))
    after = quantise(model).model
    assert stored(after, "w_scale").shape == ()
    assert sqnr(model, after) > 25


def test_a_tied_weight_whose_first_user_is_rewritten_last(build, normal, quantise, sqnr):
    graph = """(float[N,4] x) => (float[N,4] y) <int64[1] axis = {0}> {
      a = MatMul(x, v)
      b = Unsqueeze(a, axis)
      c = MatMul(b, w)
      d = Squeeze(c, axis)
      y = MatMul(d, w)
    }"""
    model = build(graph, v=normal(4, 4), w=normal(4, 4))
    after = quantise(model).model  # the first and the last product look alike, so both are rewritten before the middle
    assert [op.inputs[1] for op in after.leaves() if op.op == "MatMul"] == ["v_dq", "w_dq", "w_dq"]
    assert sqnr(model, after) > 25


def test_a_float_user_keeps_the_float_weight(build, normal, quantise):
    graph = "(int64[N,2] i) => (float[N,2,5] y) { h = Gather(w, i) y = MatMul(h, v) }"
    model = build(graph, w=normal(5, 5), v=normal(5, 5))
    after = quantise(model, Dataset({"i": np.zeros((4, 2), np.int64)})).model
    assert {"w", "v_q"} <= set(after.weights) and "v" not in after.weights


def test_a_graph_output_keeps_its_name(build, normal, quantise, sqnr):
    model = build("(float[N,3,8,8] x) => (float[N,4,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, w) }", w=normal(4, 3, 3, 3))
    after = quantise(model).model
    assert after.producer("y").op == "DequantizeLinear"
    assert [value.id for value in after.outputs] == ["y"]
    assert sqnr(model, after) > 25


def test_a_subgraph_goes_on_reading_the_name_it_captured(build, normal, quantise):
    graph = """(float[N,3,8,8] x, bool c) => (float[N,4,8,8] y) {
      a = Conv<pads=[1,1,1,1]>(x, w)
      y = If(c) <
        then_branch = t () => (float[N,4,8,8] p) { p = Exp(a) },
        else_branch = e () => (float[N,4,8,8] q) { q = Neg(a) }
      >
    }"""
    model = build(graph, w=normal(4, 3, 3, 3))
    anchors, _ = candidates.find(model, ("Conv",), ())
    (cluster,) = placement.clusters(model, anchors)
    grids = {name: params.asymmetric(-4, 4, DType.UINT8) for name in cluster.tensors}
    after = insert.quantise(model, cluster, grids, weights.weight_grids(model, anchors, grids, 127, True), NUMBERS, {})
    verify(after)
    assert after.producer("a").op == "DequantizeLinear"


def test_new_operators_live_where_their_operator_does(build, normal, quantise):
    graph = (
        '(float[N,4] x) => (float[N,4] y) { ["/body/fc/first"] h = MatMul(x, v) ["/head/fc/last"] y = MatMul(h, w) }'
    )
    model = build(graph, v=normal(4, 4), w=normal(4, 4))
    after = quantise(model).model
    places = {op.output: after.path(op.uid) for op in after.leaves()}
    assert places["x_q"] == places["v_dq"] == "body/fc" and places["h_q"] == places["w_dq"] == "head/fc"
    assert {op.origin for op in after.leaves()} == {frozenset({1}), frozenset({2})}


def test_names_already_taken(build, normal, quantise):
    graph = "(float[N,4] x) => (float[N,4] y) { x_q = Exp(x) h = MatMul(x, w) y = Add(h, x_q) }"
    after = quantise(build(graph, w=normal(4, 4))).model
    assert after.producer("x_q").op == "Exp"
    assert after.producer("x_q_1").op == "QuantizeLinear"


def test_the_result_is_the_same_every_time(build, normal, quantise, samples):
    model = build(CONV, w=normal(4, 3, 3, 3), b=normal(4))
    data = samples(model)
    first, second = (onnx_out.to_proto(quantise(model, data).model).SerializeToString() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "graph",
    [
        "(float[N,3,9] x) => (float[N,4,9] y) { a = Conv<pads=[1,1]>(x, w, b) y = Exp(a) }",
        "(float[N,3,5,5,5] x) => (float[N,4,5,5,5] y) { a = Conv<pads=[1,1,1,1,1,1]>(x, w, b) y = Exp(a) }",
    ],
)
def test_convolutions_of_any_rank(build, normal, quantise, graph):
    rank = graph.count("pads=[1,1,1,1,1,1]") * 2 + 1
    model = build(graph, w=normal(4, 3, *[3] * rank), b=normal(4))
    assert len(quantise(model).applied) == 1


def test_grouped_convolution(build, normal, quantise, sqnr):
    graph = "(float[N,4,8,8] x) => (float[N,4,8,8] y) { y = Conv<group=4,pads=[1,1,1,1]>(x, w) }"
    model = build(graph, w=normal(4, 1, 3, 3))
    assert sqnr(model, quantise(model).model) > 25


def test_an_all_zero_channel_stays_zero(build, normal, quantise, samples):
    weight = normal(4, 3)
    weight[:, 1] = 0
    model = build("(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", w=weight)
    data = samples(model)
    after = quantise(model, data).model
    assert np.all(stored(after, "w_scale") > 0)
    (result,) = OrtRunner().run(after, data.batches(model.feeds))
    assert np.all(result["y"][:, 1] == 0)
