"""cast: few borders, kept interface, infinities kept, and the gate decides on the whole pass."""

from __future__ import annotations

import numpy as np
import pytest

from eopt.backends import data, executor, target
from eopt.backends.ort import OrtRunner
from eopt.costmodel.tree import Situation, bindings_for, compare
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.ir.text_parse import loads
from eopt.ir.types import DType
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.pipeline import Pipeline, Verification

NET = """
model {"": 20}
input x: float32[batch, 64]
weight w: float32[64, 64] = normal(1)
weight v: float32[64, 64] = normal(2)
a: float32[batch, 64] = MatMul(x, w)
b: float32[batch, 64] = Relu(a)
c: float32[batch, 64] = MatMul(b, v)
y: float32[batch, 64] = Softmax(c) {axis: -1}
output y: float32[batch, 64]
"""


def run(text: str, passes: str = "cast") -> tuple[Model, Model]:
    model = loads(text)
    batches = list(data.synthetic(model.feeds, {}, 0).batches(model.feeds))
    compiled = Pipeline.parse(passes).run(model, Context(OrtRunner()), Verification(batches))
    assert not compiled.violated, compiled.steps[-1].verdict
    return model, compiled.model


def test_only_the_borders_are_cast():
    before, after = run(NET)
    assert [op.op for op in after.leaves()] == ["Cast", "MatMul", "Relu", "MatMul", "Softmax", "Cast"]
    assert (after.inputs, after.outputs) == (before.inputs, before.outputs)
    assert after.value("a").dtype is DType.FLOAT16
    assert {after.weights.dtype(name) for name in after.weights} == {DType.FLOAT16}


def test_kept_operators_stay_wide():
    _, after = run(NET, "cast{keep=Softmax}")
    softmax = next(op for op in after.leaves() if op.op == "Softmax")
    assert after.value(softmax.inputs[0]).dtype is DType.FLOAT32


def test_bfloat16_is_offered_and_other_types_are_refused():
    _, after = run(NET, "cast{to=float16}")
    assert after.value("a").dtype is DType.FLOAT16
    with pytest.raises(UsageError, match="choose from float16, bfloat16"):
        run(NET, "cast{to=int8}")


def test_overflow_is_clipped_and_infinity_kept():
    text = NET.replace("Relu(a)", "Max(a, low)").replace("batch", "2")
    model = loads(
        text.replace("a: float32", 'weight low: float32[2, 1] = ["-inf", -1e6]\na: float32', 1).replace("batch", "2")
    )
    compiled = Pipeline.parse("cast").run(model, Context(OrtRunner()))
    (low,) = [name for name in compiled.model.weights if name.startswith("low")]
    assert compiled.model.weights.array(low).reshape(-1).tolist() == [-np.inf, -65504.0]
    assert "clipped" in compiled.steps[0].outcome.notes[0]


@pytest.mark.parametrize(
    ("name", "engine", "kept"),
    [("nvidia-a100-80gb-sxm", "tensorrt", True), ("cpu-amd-epyc-7003", "onnxruntime", False)],
)
def test_the_gate_decides_on_the_whole_pass(name, engine, kept):
    model = loads(NET)
    situation = Situation(target.load(name), executor.load(engine), bindings_for(model, 4096, {}))
    gate = Gate(lambda before, after: compare(before, after, situation))
    outcome = Pipeline.parse("cast").run(model, Context(OrtRunner(), gate=gate)).steps[0].outcome
    assert bool(outcome.applied) is kept
    assert bool(outcome.refused) is not kept
