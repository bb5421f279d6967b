"""Grids found when the model runs: what is written, what onnxruntime makes of it, and that no samples are needed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_out
from eopt.ir.verify import verify
from eopt.passes.base import Context
from eopt.passes.gate import Decision
from eopt.passes.quant import Quant, dynamic
from eopt.passes.quant.scheme import Format

DYNAMIC = {"format": (Format.DYNAMIC,)}
SHARED = """(float[N,L,8] x) => (float[N,L,6] y) {
  q = MatMul(x, v) k = MatMul(x, w) s = Add(q, k) t = Tanh(s) y = MatMul(t, u)
}"""
GEMM = "(float[N,8] x) => (float[N,6] y) { y = Gemm(x, w, b) }"


def shared(build, normal):
    return build(SHARED, v=normal(8, 8), w=normal(8, 8), u=normal(8, 6))


def fused(model, tmp_path) -> Counter[str]:
    """Operators of the model as onnxruntime runs it."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    ort.InferenceSession(onnx_out.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)


def test_products_read_a_grid_found_at_run_time_once_for_each_tensor(build, normal, quantise, types, sqnr):
    model = shared(build, normal)
    data = Dataset({"x": normal(16, 5, 8)})
    after = quantise(model, data, **DYNAMIC).model
    counts = Counter(types(after))
    assert counts["DynamicQuantizeLinear"] == 2 and "QuantizeLinear" not in counts  # x for q and k, and t
    for product in (op for op in after.leaves() if op.op == "MatMul"):
        read, weight = (after.producer(name) for name in product.inputs)
        assert (read.op, weight.op) == ("DequantizeLinear", "DequantizeLinear")
        assert after.producer(read.inputs[0]).op == "DynamicQuantizeLinear"
    # 255 steps over +-4 deviations: noise of (8/255)^2/12, which is 41 dB below the signal; weights add as much, and
    # a second layer doubles both
    assert sqnr(model, after, data) > 33


def test_no_samples_are_needed_and_none_are_read(build, normal):
    outcome = Quant(**DYNAMIC).run(shared(build, normal), Context(OrtRunner(threads=1)))
    verify(outcome.model)
    assert len(outcome.applied) == 2 and not outcome.refused
    assert not Quant(**DYNAMIC).asks_for_data and Quant(**DYNAMIC, bias_correction=True).asks_for_data


@pytest.mark.parametrize("transposed", [False, True])
def test_gemm_becomes_a_product_and_a_sum(build, normal, quantise, types, sqnr, transposed):
    graph = GEMM.replace("Gemm", "Gemm<transB=1>") if transposed else GEMM
    model = build(graph, w=normal(*((6, 8) if transposed else (8, 6))), b=normal(6))
    after = quantise(model, **DYNAMIC).model
    assert types(after)[-2:] == ["MatMul", "Sum"] and "Gemm" not in types(after)
    assert after.weights.shape("w_t_q" if transposed else "w_q") == (8, 6)
    assert sqnr(model, after) > 35  # one layer, see above


def test_splitting_changes_no_result(build, normal, samples):
    graph = "(float[N,8] x) => (float[N,6] y) { h = Gemm<transB=1>(x, v, c) g = Gemm(h, w) y = Gemm(g, u, b) }"
    model = build(graph, v=normal(8, 8), c=normal(1, 8), w=normal(8, 8), u=normal(8, 6), b=normal(1))
    after = dynamic.split(model)
    assert [op.op for op in after.leaves()] == ["MatMul", "Add", "MatMul", "MatMul", "Add"]
    feeds = list(samples(model).batches(model.feeds, 16))
    (before,), (behind,) = (list(OrtRunner(threads=1).run(m, feeds)) for m in (model, after))
    np.testing.assert_allclose(behind["y"], before["y"], rtol=1e-5, atol=1e-5)  # sums in another order


def test_what_has_no_kernel_is_refused_with_a_reason(build, normal, quantise):
    graph = """(float[N,3,8,8] x, float[4,2] z) => (float[N,4,6,6] y, float[2,3] p) {
      y = Conv(x, w) p = Gemm<transA=1>(z, v)
    }"""
    model = build(graph, w=normal(4, 3, 3, 3), v=normal(4, 3))
    outcome = Quant(**DYNAMIC).run(model, Context(OrtRunner(threads=1)))
    assert outcome.model is model and not outcome.applied
    assert [change.reason for change in outcome.refused] == [
        "no kernel finds the grid of a convolution",
        "no kernel finds the grid of an input that it transposes",
    ]


@pytest.mark.parametrize("graph", [
    "(float[N,8] x) => (float[N,8] y) { y = Gemm(x, w, b) }",
    "(float[N,8] x) => (float[N,8] y) { p = MatMul(x, w) y = Add(b, p) }",
    "(float[N,L,8] x) => (float[N,L,8] y) { p = MatMul(x, w) y = Add(p, b) }",
    "(float[N,8] x) => (float[N,8] y) { y = MatMul(x, w) }",
])  # fmt: skip
def test_onnxruntime_multiplies_integers(build, normal, tmp_path, graph):
    model = build(graph, w=normal(8, 8), b=normal(8))
    found = fused(Quant(**DYNAMIC).run(model, Context(OrtRunner(threads=1))).model, tmp_path)
    assert found["DynamicQuantizeMatMul"] + found["MatMulIntegerToFloat"] == 1
    assert not {"MatMul", "Gemm", "DequantizeLinear"} & set(found)


def test_what_the_gate_refuses_is_added_as_before(build, normal, quantise, types):
    graph = "(float[N,8] x) => (float[N,6] y) { h = Gemm(x, w, b) t = Tanh(h) y = Gemm(t, u, c) }"
    model = build(graph, w=normal(8, 8), b=normal(8), u=normal(8, 6), c=normal(6))
    answers = iter([Decision(1.0), Decision(-1.0, "dear")])
    gate = type("Gate", (), {"decide": lambda self, before, after: next(answers)})()
    after = quantise(model, gate=gate, **DYNAMIC).model
    assert [kind for kind in types(after) if kind in ("Add", "Sum")] == ["Sum", "Add"]


def test_symbolic_extents_stay_and_every_length_runs(build, normal, sqnr):
    model = shared(build, normal)
    after = Quant(**DYNAMIC).run(model, Context(OrtRunner(threads=1))).model
    assert [value.shape for value in (*after.feeds, *after.outputs)] == [("N", "L", 8), ("N", "L", 6)]
    for shape in ((1, 1, 8), (3, 17, 8)):
        assert sqnr(model, after, Dataset({"x": normal(*shape)})) > 30  # as above, on few values


def test_ranges_far_from_any_calibration_lose_nothing(build, normal, sqnr):
    """A static grid would saturate."""
    model = build("(float[N,8] x) => (float[N,6] y) { y = MatMul(x, w) }", w=normal(8, 6))
    after = Quant(**DYNAMIC).run(model, Context(OrtRunner(threads=1))).model
    for scale in (1e-3, 1e4):
        assert sqnr(model, after, Dataset({"x": np.float32(scale) * normal(16, 8)})) > 33
