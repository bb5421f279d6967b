"""Bad input: each has one clear outcome, and what stood in the output folder stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io, onnx_out
from eopt.ir.errors import InputError, UsageError
from eopt.passes.base import Context
from eopt.passes.pipeline import Pipeline, Verification
from eopt.passes.quant.observers import ObserverKind
from eopt.passes.quant.scheme import WeightType
from eopt.tools.cli import main

MATMUL = "(float[N,8] x) => (float[N,6] y) { y = MatMul(x, w) }"
CONV = "(float[N,3,8,8] x) => (float[N,4,8,8] y) { a = Conv<pads=[1,1,1,1]>(x, w, b) y = Exp(a) }"
VIT = Path(__file__).parents[3] / "examples" / "vit"


def ran(model, text, data=None, verified=False):
    """A pass as users spell it, on a model."""
    feeds = list((data or Dataset({"x": np.ones((4, 8), np.float32)})).batches(model.feeds, 4)) if verified else None
    return Pipeline.parse(text).run(model, Context(OrtRunner(threads=1), data), feeds and Verification(feeds))


# -- samples


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("quant", True),
        ("quant{format=dynamic}", False),
        ("quant{format=dynamic,smooth=0.5}", False),  # left out: it needs ranges, the rest does not
        ("quant{format=dynamic,bias_correction=true}", True),
        ("quant{format=weight-only}", False),
        ("quant{weight=int4}", False),
        ("quant{weight=int4,rounding=gptq}", True),
        ("quant{weight=float8}", True),
    ],
)
def test_samples_are_asked_for_where_they_are_needed_and_only_there(build, normal, text, needed):
    model = build(MATMUL, w=normal(8, 6))
    if not needed:
        (step,) = ran(model, text).steps
        assert len(step.outcome.applied) == 1
        return
    with pytest.raises(UsageError, match="needs calibration samples; give them with --data"):
        ran(model, text)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"image": np.zeros((4, 8), "f")}, "missing ['x']; unknown ['image']"),
        ({"x": np.zeros((4, 9), "f")}, "'x' has shape [4, 9]"),
        ({"x": np.zeros((4, 8), "d")}, "'x' is float64, not float32"),
        ({"x": np.full((4, 8), np.nan, "f")}, "NaN or infinity"),
        ({"x": np.zeros((0, 8), "f")}, "number of samples"),
    ],
)
@pytest.mark.parametrize("text", ["quant", "quant{weight=int4,rounding=gptq}"])
def test_samples_that_do_not_fit_are_named_and_outputs_stay(build, normal, tmp_path, capsys, text, arrays, complaint):
    onnx_out.write(build(MATMUL, w=normal(8, 6)), tmp_path / "m.onnx")
    np.savez(tmp_path / "data.npz", **arrays)
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("previous")
    code = main(
        ["compile", str(tmp_path / "m.onnx"), "--passes", text, "--data", str(tmp_path / "data.npz"), "--out", str(out)]
    )
    assert code == 3
    assert complaint in capsys.readouterr().err
    assert {path.name: path.read_text() for path in out.iterdir()} == {"model.onnx": "previous"}


@pytest.mark.parametrize("text", ["quant{smooth=0.5,bias_correction=true}", "quant{weight=float8}",
                                  "quant{format=dynamic}", "quant{weight=int4,rounding=gptq}"])  # fmt: skip
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_activations_that_never_change(build, normal, text, value):
    """Any scale serves zeros; one value is an end of its grid. Nothing but rounding of weights is left of it."""
    model = build(MATMUL, w=normal(8, 6))
    data = Dataset({"x": np.full((4, 8), value, np.float32)})
    (step,) = ran(model, text, data, verified=True).steps
    assert step.kept and step.outcome.applied
    (run,) = OrtRunner(threads=1).run(step.outcome.model, data.batches(model.feeds, 4))
    assert np.isfinite(run["y"]).all() and (value or not run["y"].any())


@pytest.mark.parametrize("text", ["quant", "quant{smooth=0.5}", "quant{bias_correction=true}", "quant{weight=float8}"])
def test_samples_that_make_nan_leave_the_operator_that_reads_it(build, normal, text):
    """Of a logarithm; those of inputs are refused when they are read."""
    graph = "(float[N,8] x) => (float[N,6] y) { l = Log(x) a = MatMul(l, v) b = MatMul(x, w) y = Add(a, b) }"
    (step,) = ran(build(graph, v=normal(8, 6), w=normal(8, 6)), text, Dataset({"x": normal(16, 8)})).steps
    assert [change.reason for change in step.outcome.refused] == ["calibration saw NaN or infinity in 'l'"]
    assert len(step.outcome.applied) == 1


def test_gptq_names_the_weight_whose_activations_are_no_numbers(build, normal):
    model = build("(float[N,8] x) => (float[N,6] y) { l = Log(x) y = MatMul(l, w) }", w=normal(8, 6))
    with pytest.raises(InputError, match=r"'w'.*NaN or infinity in 'l'"):
        ran(model, "quant{weight=int4,rounding=gptq}", Dataset({"x": normal(16, 8)}))


# -- models


@pytest.mark.parametrize(
    "kind", ["quant", "quant{per_channel=false}", "quant{weight=float8}", "quant{bias_correction=true}"]
)
def test_channels_without_weights(build, normal, quantise, sqnr, kind):
    weight = normal(4, 3, 3, 3)
    weight[1] = 0.0
    bias = normal(4)
    bias[2] = 0.0
    (item,) = Pipeline.parse(kind).passes
    model = build(CONV, w=weight, b=bias)
    chosen = {f: getattr(item, f) for f in ("per_channel", "weight", "bias_correction")}
    after = quantise(model, observer=ObserverKind.MINMAX, **chosen).model  # an exponential makes much of what is cut
    scales = after.weights.array("w_scale")
    assert np.isfinite(scales).all() and (scales > 0).all()
    if item.per_channel and item.weight == WeightType.INT8:
        # a bias of int32 on a scale of 1 would be an integer: its channel is on the least scale that holds it
        assert 0 < scales[1] * after.weights.array("x_scale") * 2**30 / abs(bias[1]) == pytest.approx(1, rel=1e-5)
    assert sqnr(model, after) > 15  # behind an exponential; 8 bits leave more, float8 25 dB


def test_a_weight_of_zeros(build, quantise):
    after = quantise(build(MATMUL, w=np.zeros((8, 6), np.float32))).model
    np.testing.assert_array_equal(after.weights.array("w_scale"), np.ones(6, np.float32))


@pytest.mark.parametrize(
    ("text", "needed"),
    [("quant", 13), ("quant{format=dynamic}", 13), ("quant{weight=int4}", 21), ("quant{weight=float8}", 19)],
)
def test_an_old_operator_set_is_named_with_the_one_that_is_needed(build, normal, text, needed):
    model = build(MATMUL, opset=11, w=normal(8, 6))
    with pytest.raises(InputError, match=rf"opset 11(.|\n)*{needed}|opset {needed}: the model is at opset 11"):
        ran(model, text, Dataset({"x": normal(8, 8)}))


@pytest.mark.parametrize(
    "first",
    ["quant", "quant{format=dynamic}", "quant{weight=int4}", "quant{weight=int4,form=nbits}", "quant{weight=float8}"],
)
@pytest.mark.parametrize("then", ["quant", "quant{format=dynamic}", "quant{weight=int4}"])
def test_a_model_that_is_quantised_already_is_left_alone(build, normal, first, then):
    data = Dataset({"x": normal(8, 32)})
    once = ran(build("(float[N,32] x) => (float[N,6] y) { y = MatMul(x, w) }", w=normal(32, 6)), first, data).model
    (step,) = ran(once, then, data).steps
    assert not step.outcome.applied
    assert [op.op for op in step.outcome.model.leaves()] == [op.op for op in once.leaves()]
    assert step.outcome.notes or step.outcome.refused


@pytest.mark.parametrize("text", ["quant", "quant{format=dynamic}", "quant{weight=int4}"])
def test_a_model_in_float16(build, normal, text):
    model = build(MATMUL.replace("float[", "float16["), w=normal(8, 6).astype(np.float16))
    result = ran(model, text, Dataset({"x": normal(8, 8).astype(np.float16)}))
    assert result.model is model
    assert [change.reason for change in result.steps[0].outcome.refused] == [
        "it computes in float16; quantise the float32 model"
    ]


def test_signed_activations_that_onnxruntime_cannot_load(build, normal):
    """From opset 21 on onnxruntime moves QuantizeLinear behind Reshape with an `output_dtype`, and then makes its zero
    point unsigned (github.com/microsoft/onnxruntime/issues/25526): that operator stays in float."""
    graph = """(float[N,3,8,8] x) => (float[N,6] y) <int64[2] s = {0, -1}> {
      ["first"] a = Conv(x, w) h = Reshape(a, s) t = Tanh(h) ["last"] y = MatMul(t, v) }"""
    model = build(graph, opset=21, w=normal(4, 3, 3, 3), v=normal(144, 6))
    data = Dataset({"x": normal(8, 3, 8, 8)})
    (step,) = ran(model, "quant{activation=int8}", data, verified=True).steps
    assert step.kept and step.verdict.holds
    assert [change.where for change in step.outcome.refused] == ["first"]
    (unsigned,) = ran(model, "quant", data, verified=True).steps
    assert len(unsigned.outcome.applied) == 2


@pytest.mark.slow
def test_signed_activations_on_a_transformer():
    model = onnx_io.read(VIT / "model.onnx")
    data = Dataset({"image": np.load(VIT / "calibration.npz")["image"][:4]})
    result = ran(model, "simplify,fuse,quant{activation=int8}", data, verified=True)
    step = result.steps[-1]
    assert step.kept and step.verdict.holds and len(step.outcome.applied) > 10
