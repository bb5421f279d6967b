"""The pass as users meet it: options, contract, gate, and everything it has to refuse."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from eopt.backends.data import Dataset
from eopt.backends.executor import load
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io, onnx_out
from eopt.ir.errors import InputError, UsageError
from eopt.ir.types import DType
from eopt.passes.base import Context
from eopt.passes.contract import Sqnr
from eopt.passes.gate import Decision
from eopt.passes.pipeline import Pipeline, Verification
from eopt.passes.quant import Quant
from eopt.passes.quant.observers import ObserverKind
from eopt.passes.quant.scheme import Activation, WeightType, scheme

MATMUL = "(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }"
LAYERS = """(float[N,4] x) => (float[N,4] y) {
  a = MatMul(x, w0) b = Tanh(a) c = MatMul(b, w1) d = Tanh(c) e = MatMul(d, w2) f = Tanh(e) y = MatMul(f, v)
}"""


def layers(build, normal):
    return build(LAYERS, v=normal(4, 4), **{f"w{number}": normal(4, 4) for number in range(3)})


@dataclass
class Recorded:
    """A gate that answers from a list and counts."""

    answers: list[Decision]
    calls: list[int] = field(default_factory=list)

    def decide(self, before, after):
        self.calls.append(len(after.leaves()) - len(before.leaves()))
        return self.answers[len(self.calls) - 1]


@dataclass(frozen=True)
class FakeTarget:
    kind: str
    features: frozenset[str] = frozenset()


# -- options and contract


def test_options_in_every_spelling():
    text = "quant{activation=int8,observer=percentile,percentile=99.9,per_channel=false,ops=[Conv],exclude=[head*,fc]}"
    (item,) = Pipeline.parse(text).passes
    assert item == Quant(
        activation=Activation.INT8,
        observer=ObserverKind.PERCENTILE,
        percentile=99.9,
        per_channel=False,
        ops=("Conv",),
        exclude=("head*", "fc"),
    )
    assert str(item) == text
    assert str(Quant()) == "quant"


@pytest.mark.parametrize(
    "text",
    [
        "quant{weight=int4,format=static}",
        "quant{weight=float8,format=dynamic}",
        "quant{weight=float8,activation=int8,format=weight-only}",
        "quant{format=[static,dynamic]}",
        "quant{format=weight-only,place=cost}",
        "quant{activation=float16}",
        "quant{observer=histogram}",
        "quant{smooth=1}",
        "quant{group=48}",
        "quant{percentile=0}",
        "quant{percentile=101}",
        "quant{ops=[Softmax]}",
        "quant{bits=8}",
    ],
)
def test_wrong_options_are_usage_errors(text):
    with pytest.raises(UsageError):
        Pipeline.parse(text)


def test_the_default_contract_admits_a_cosine_of_098():
    assert Quant().contract == Sqnr(13.0)
    assert 0.97 < (1 + 10 ** (-13.0 / 10)) ** -0.5 < 0.98


def test_the_pipeline_enforces_the_contract(build, normal, samples):
    model = layers(build, normal)
    data = samples(model)
    batches = list(data.batches(model.feeds))
    for bound, low in ((10.0, True), (90.0, False)):
        pipeline = Pipeline.parse(f"quant{{sqnr={bound}}}")
        compiled = pipeline.run(model, Context(OrtRunner(), data), Verification(batches))
        (step,) = compiled.steps
        assert step.kept
        assert bool(step.outcome.applied) is low
        assert (compiled.model is model) is not low
        assert any(not trial.holds for trial in step.outcome.trials) is not low  # what was tried is there to be seen


# -- refusals


def test_no_data_is_a_usage_error(build, normal):
    with pytest.raises(UsageError, match="--data"):
        Quant().run(build(MATMUL, w=normal(4, 3)), Context(OrtRunner()))


def test_a_quantised_model_is_left_alone(build, normal, quantise):
    once = quantise(build(MATMUL, w=normal(4, 3))).model
    again = quantise(once)
    assert again.model is once and not again.applied
    assert "quantised already" in again.notes[0]


def test_an_old_opset_is_an_input_error(build, normal, samples):
    model = build(MATMUL, opset=11, w=normal(4, 3))
    with pytest.raises(InputError, match="opset 11"):
        Quant().run(model, Context(OrtRunner(), samples(model)))


def test_nothing_to_quantise_changes_nothing(build, quantise):
    model = build("(float[N,4] x) => (float[N,4] y) { y = Exp(x) }")
    outcome = quantise(model)
    assert outcome.model is model and outcome.applied == outcome.refused == ()


def test_half_precision_is_refused_with_the_way_out(build):
    model = build("(float16[N,4] x) => (float16[N,3] y) { y = MatMul(x, w) }", w=np.ones((4, 3), np.float16))
    data = Dataset({"x": np.ones((4, 4), np.float16)})
    outcome = Quant().run(model, Context(OrtRunner(), data))
    assert outcome.model is model
    assert [change.reason for change in outcome.refused] == ["it computes in float16; quantise the float32 model"]


def test_activations_that_are_not_finite_leave_their_operator_in_float(build, normal, quantise):
    graph = "(float[N,4] x) => (float[N,4] y) { l = Log(x) a = MatMul(l, v) b = MatMul(x, w) y = Add(a, b) }"
    outcome = quantise(build(graph, v=normal(4, 4), w=normal(4, 4)))
    assert [change.reason for change in outcome.refused] == ["calibration saw NaN or infinity in 'l'"]
    assert len(outcome.applied) == 1


def test_a_tensor_without_values_leaves_its_operator_in_float(build, normal, quantise):
    graph = """(float[N,4] x) => (float[M,3] y) <int64[1] zero = {0}, int64[1] axis = {0}> {
      s = Slice(x, zero, zero, axis)
      y = MatMul(s, w)
    }"""
    outcome = quantise(build(graph, w=normal(4, 3)))
    assert [change.reason for change in outcome.refused] == ["calibration saw no value of 's'"]
    assert outcome.applied == ()


def test_constant_activations(build, normal, quantise, sqnr):
    model = build(MATMUL, w=normal(4, 3))
    for value in (0.0, 2.5, -3.0):
        data = Dataset({"x": np.full((8, 4), value, np.float32)})
        after = quantise(model, data).model
        assert after.weights.array("x_scale") > 0
        # the only value is an end of the grid, so what remains is the error of the weight
        assert value == 0.0 or sqnr(model, after, data) > 30


# -- scheme


def test_unsigned_activations_on_cpus_and_without_a_target(monkeypatch):
    vnni = frozenset({"avx512", "vnni"})
    monkeypatch.setattr("eopt.backends.detect.cpu_features", lambda: vnni)
    for target in (None, FakeTarget("cpu", vnni)):
        numbers = scheme(WeightType.INT8, Activation.AUTO, target, None)
        assert (numbers.dtype, numbers.symmetric, numbers.weight_limit) == (DType.UINT8, False, 127)
        assert scheme(WeightType.INT8, Activation.INT8, target, None).dtype is DType.INT8


def test_a_board_that_runs_onnxruntime_computes_as_a_cpu():
    assert scheme(WeightType.INT8, Activation.AUTO, FakeTarget("soc"), load("onnxruntime")).dtype is DType.UINT8


def test_seven_bit_weights_where_the_sums_would_saturate(monkeypatch):
    monkeypatch.setattr("eopt.backends.detect.cpu_features", lambda: frozenset({"avx2"}))
    assert scheme(WeightType.INT8, Activation.AUTO, None, None).weight_limit == 63, "without a target: this machine"
    assert scheme(WeightType.INT8, Activation.AUTO, FakeTarget("cpu", frozenset({"avx2"})), None).weight_limit == 63
    assert (
        scheme(WeightType.INT8, Activation.AUTO, FakeTarget("cpu", frozenset({"i8mm"})), None).weight_limit == 127
    )  # ARM


@pytest.mark.parametrize(
    ("target", "executor"),
    [(FakeTarget("gpu"), None), (FakeTarget("soc"), load("tensorrt")), (None, load("tensorrt"))],
)
def test_symmetric_int8_on_accelerators(target, executor):
    numbers = scheme(WeightType.INT8, Activation.AUTO, target, executor)
    assert (numbers.dtype, numbers.symmetric, numbers.integer_bias) == (DType.INT8, True, False)
    assert numbers.grid(-1.0, 3.0).zero_point == 0
    with pytest.raises(UsageError, match="uint8"):
        scheme(WeightType.INT8, Activation.UINT8, target, executor)


def test_a_gpu_gets_float_biases_and_no_offsets(build, normal, samples):
    model = build("(float[N,4] x) => (float[N,3] y) { y = Gemm(x, w, b) }", w=normal(4, 3), b=normal(3))
    context = Context(OrtRunner(), samples(model), target=FakeTarget("gpu"))
    after = Quant().run(model, context).model
    assert after.leaves()[-1].inputs == ("x_dq", "w_dq", "b")
    assert after.weights.array("x_zero_point") == 0 and after.weights.array("x_zero_point").dtype == np.int8


# -- gate


def test_clusters_alike_are_decided_once(build, normal, quantise):
    gate = Recorded([Decision(3.0)])
    outcome = quantise(layers(build, normal), gate=gate)
    assert len(gate.calls) == 1
    assert [change.saved_j for change in outcome.applied] == [0.75] * 4


def test_refused_clusters_keep_the_reason_and_the_rest_is_applied(build, normal, quantise):
    graph = "(float[N,4] x) => (float[N,2] y) { a = MatMul(x, v) b = Tanh(a) y = MatMul(b, w) }"
    gate = Recorded([Decision(-0.5, "predicted to use more energy"), Decision(0.5)])
    outcome = quantise(build(graph, v=normal(4, 4), w=normal(4, 2)), gate=gate)
    assert [(change.saved_j, change.reason) for change in outcome.refused] == [(-0.5, "predicted to use more energy")]
    assert [(change.saved_j, change.reason) for change in outcome.applied] == [(0.5, "")]
    assert {"v", "w_q"} <= set(outcome.model.weights)


def test_a_gate_that_refuses_all_leaves_the_model(build, normal, quantise):
    model = layers(build, normal)
    outcome = quantise(model, gate=Recorded([Decision(None, "undecided")]))
    assert outcome.model is model and len(outcome.refused) == 4


# -- real data flow


def test_calibration_streams_over_all_batches(build, normal, quantise):
    model = build(MATMUL, w=normal(4, 3))
    values = np.zeros((20, 4), np.float32)
    values[-1, 0], values[0, 1] = 51.0, -204.0  # extremes in different batches
    after = quantise(model, Dataset({"x": values})).model
    assert after.weights.array("x_scale") == 1.0
    assert after.weights.array("x_zero_point") == 204


def test_a_fixed_batch_and_leftover_samples(build, normal, quantise):
    model = build(MATMUL.replace("N", "3"), w=normal(4, 3))
    assert len(quantise(model, Dataset({"x": normal(10, 4)})).applied) == 1


def test_percentile_ignores_outliers(build, normal, quantise):
    model = build(MATMUL, w=normal(4, 3))
    values = normal(1000, 4)
    values[0, 0] = 1000.0
    data = Dataset({"x": values})
    wide = quantise(model, data).model.weights.array("x_scale")
    tight = quantise(model, data, observer=ObserverKind.PERCENTILE, percentile=99.9).model.weights.array("x_scale")
    assert tight < wide / 50


def test_the_file_shrinks_fourfold(build, normal, quantise):
    model = build("(float[N,256] x) => (float[N,256] y) { y = MatMul(x, w) }", w=normal(256, 256))
    before, after = (onnx_out.to_proto(item).ByteSize() for item in (model, quantise(model).model))
    assert after < before * 0.27


def test_onnx_reference_agrees_with_onnxruntime(build, normal, quantise, samples):
    graph = "(float[N,3,8,8] x) => (float[N,4,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(a) y = Neg(r) }"
    model = build(graph, w=normal(4, 3, 3, 3), b=normal(4))
    data = samples(model)
    after = quantise(model, data).model
    reference = ReferenceEvaluator(onnx_out.to_proto(after)).run(None, dict(data.arrays))[0]
    (first, second) = OrtRunner().run(after, data.batches(model.feeds, 8))
    step = after.weights.array("r_scale")
    difference = np.abs(np.concatenate([first["y"], second["y"]]) - reference)
    assert difference.max() <= step * 1.01  # a tie may round the other way in integer arithmetic


def test_exported_files_load(tmp_path, build, normal, quantise):
    model = quantise(build(MATMUL, w=normal(4, 3))).model
    onnx_out.write(model, tmp_path / "q.onnx")
    assert onnx.load(tmp_path / "q.onnx").graph.node[0].op_type
    assert [op.op for op in onnx_io.read(tmp_path / "q.onnx").leaves()] == [op.op for op in model.leaves()]
