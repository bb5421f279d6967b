"""E4M3 for weights and activations: what is written, that it computes, and where the gate lets it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from eopt.backends import executor, target
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.costmodel.tree import Situation, bindings_for, compare
from eopt.ir import onnx_out
from eopt.ir.errors import InputError, UsageError
from eopt.ir.types import DType
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.quant import Quant, params
from eopt.passes.quant.scheme import Activation, WeightType

FLOAT8 = {"weight": WeightType.FLOAT8}
GEMM = "(float[N,8] x) => (float[N,6] y) { y = Gemm(x, w, b) }"
LARGEST = 448  # of E4M3 without infinities, arXiv:2209.05433, table 1


@pytest.fixture
def model(build, normal):
    return build(GEMM, opset=17, w=normal(8, 6), b=normal(6))


def test_the_graph_has_float8_on_both_sides_and_a_bias_in_float(model, quantise, samples, types):
    data = samples(model)
    after = quantise(model, data, **FLOAT8).model
    assert sorted(types(after)) == ["DequantizeLinear", "DequantizeLinear", "Gemm", "QuantizeLinear"]
    assert after.opsets[""] == 19  # the first whose QuantizeLinear knows float8
    for name in ("x_q", "w_q", "x_zero_point", "w_zero_point"):
        assert after.value(name).dtype is DType.FLOAT8E4M3FN, name
    assert not after.weights.array("x_zero_point").astype(float).any()
    assert after.leaves()[-1].inputs == ("x_dq", "w_dq", "b")
    peak = np.abs(data.arrays["x"]).max()
    assert after.weights.array("x_scale") == pytest.approx(peak / LARGEST)
    np.testing.assert_allclose(after.weights.array("w_scale"), np.abs(model.constant("w")).max(0) / LARGEST, rtol=1e-6)


def test_it_computes_what_it_should(model, quantise, samples, sqnr):
    data = samples(model)
    after = quantise(model, data, **FLOAT8).model
    # 3 bits of mantissa: a relative error uniform in +-2^-4 at most, near 2^-4 / sqrt(3) / sqrt(2) = -32 dB; twice
    assert 25 < sqnr(model, after, data) < 40
    expected = np.concatenate([run["y"] for run in OrtRunner(threads=1).run(after, data.batches(model.feeds))])
    (found,) = ReferenceEvaluator(onnx_out.to_proto(after)).run(None, dict(data.arrays))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # sums in another order


def test_values_beyond_the_range_saturate_and_small_ones_survive():
    weight = np.array([[1000.0, -1000.0, 2.0**-9, 0.0]], np.float32)
    stored = params.quantized(weight, np.float32(1.0), None, DType.FLOAT8E4M3FN)
    np.testing.assert_array_equal(params.dequantized(stored, np.float32(1.0), None), [[448.0, -448.0, 2.0**-9, 0.0]])


def gated(model, device, engine):
    situation = Situation(target.load(device), executor.load(engine), bindings_for(model, 4096, {}))
    gate = Gate(lambda before, after: compare(before, after, situation))
    width = model.feeds[0].shape[1]
    data = Dataset({"x": np.random.default_rng(0).standard_normal((8, width)).astype(np.float32)})
    context = Context(OrtRunner(threads=1), data, gate, situation.target, situation.executor)
    return Quant(**FLOAT8).run(model, context)


@pytest.mark.parametrize(
    ("device", "engine", "accepted"),
    [("nvidia-h100-sxm", "tensorrt", True), ("nvidia-a100-80gb-sxm", "tensorrt", False),
     ("cpu-amd-epyc-9004", "onnxruntime", False)],
)  # fmt: skip
def test_the_gate_takes_it_where_there_are_kernels(build, normal, device, engine, accepted):
    graph = "(float[N,2048] x) => (float[N,2048] y) { y = MatMul(x, w) }"
    model = build(graph, w=normal(2048, 2048))
    outcome = gated(model, device, engine)
    assert bool(outcome.applied) is accepted
    if accepted:
        assert outcome.applied[0].saved_j > 0
        return
    assert outcome.model is model
    assert [change.reason for change in outcome.refused] == ["predicted to use more energy"]


def test_options_and_operator_sets_that_do_not_go_with_it(build, normal, samples):
    for activation in (Activation.INT8, Activation.UINT8):
        with pytest.raises(UsageError, match="no kernel mixes"):
            Quant(**FLOAT8, activation=activation).run(build(GEMM, w=normal(8, 6), b=normal(6)), Context(
                OrtRunner(threads=1), Dataset({"x": normal(4, 8)})))  # fmt: skip
    graph = "(float[N,8] x) => (float[N,1] y) { h = ReduceMean<axes=[1]>(x) y = MatMul(h, w) }"
    model = build(graph, opset=13, w=normal(1, 1))  # its axes are an input from 18 on
    with pytest.raises(InputError, match="needs opset 19"):
        Quant(**FLOAT8).run(model, Context(OrtRunner(threads=1), samples(model)))
