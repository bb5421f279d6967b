"""simplify keeps interface, scopes and results, and folds what only depends on weights."""

from __future__ import annotations

import numpy as np
import pytest

from eopt.backends import data
from eopt.backends.ort import OrtRunner
from eopt.ir.model import Model
from eopt.ir.text_parse import loads
from eopt.passes import simplify
from eopt.passes.base import Context
from eopt.passes.contract import Exact
from eopt.passes.opset import lift
from eopt.passes.pipeline import Pipeline, Verification


def run(model: Model) -> Model:
    batches = list(data.synthetic(model.feeds, {}, 0).batches(model.feeds))
    compiled = Pipeline.parse("simplify").run(model, Context(OrtRunner()), Verification(batches))
    assert not compiled.violated
    return compiled.model


def kinds(model: Model) -> list[str]:
    return [op.op for op in model.leaves()]


SHAPED = """
model {"": 20}
input x: float32[batch, 4, 6]
weight zero: int64[1] = [0]
weight minus: int64[1] = [-1]
block: Block {
  s: int64[3] = Shape(x)
  b: int64[] = Gather(s, start) {axis: 0}
  u: int64[1] = Unsqueeze(b, zero)
  t: int64[2] = Concat(u, minus) {axis: 0}
  y: float32[batch, 24] = Reshape(x, t)
}
output y: float32[batch, 24]
weight start: int64[] = [0]
"""


def test_interface_and_scopes_stay():
    before = loads(SHAPED)
    after = run(before)
    assert (after.inputs, after.outputs, after.opsets) == (before.inputs, before.outputs, before.opsets)
    assert {after.path(op.uid) for op in after.leaves()} == {"block"}


def test_shape_arithmetic_on_fixed_dims_is_folded():
    fixed = loads(SHAPED.replace("batch", "2"))
    assert kinds(run(fixed)) == ["Reshape"]


def test_large_weights_are_never_handed_to_onnxsim(monkeypatch):
    seen = []
    original = simplify._run_onnxsim
    monkeypatch.setattr(simplify, "_run_onnxsim", lambda proto: seen.append(proto) or original(proto))
    text = 'model {"": 20}\ninput x: float32[2, 64]\nweight w: float32[64, 64] = normal(0)\n'
    after = run(loads(text + "y: float32[2, 64] = MatMul(x, w)\noutput y: float32[2, 64]"))
    assert [tensor.name for tensor in seen[0].graph.initializer] == []
    assert "w" in after.weights


def test_when_onnxsim_gives_up_the_rest_still_runs(monkeypatch):
    def fail(proto: object) -> None:
        raise RuntimeError("no schema for Foo\nstack")

    monkeypatch.setattr(simplify, "_run_onnxsim", fail)
    model = loads(
        'model {"": 20}\ninput x: float32[2]\na: float32[2] = Identity(x)\n'
        "y: float32[2] = Relu(a)\noutput y: float32[2]"
    )
    compiled = Pipeline.parse("simplify").run(model, Context(OrtRunner()))
    assert kinds(compiled.model) == ["Relu"]
    assert "onnxsim gave up (no schema for Foo)" in compiled.steps[0].outcome.notes[0]


def test_a_sequence_that_is_only_indexed_is_a_split():
    model = loads(
        """
model {"": 20}
input x: float32[2, 6]
weight size: int64[] = [4]
weight zero: int64[] = [0]
weight one: int64[] = [1]
s: ?? = SplitToSequence(x, size) {axis: 1}
a: float32[2, 4] = SequenceAt(s, zero)
b: float32[2, 2] = SequenceAt(s, one)
y: float32[2, 6] = Concat(b, a) {axis: 1}
output y: float32[2, 6]
"""
    )
    after = run(model)
    assert kinds(after) == ["Split", "Concat"]
    feed = {"x": np.arange(12, dtype="f").reshape(2, 6)}
    before_after = [list(OrtRunner().run(m, [feed])) for m in (model, after)]
    assert Exact().check(*before_after).holds


@pytest.mark.parametrize(
    ("line", "version", "reason"),
    [
        ("y: float32[2, 1] = ReduceMean(x) {axes: [1]}", 17, "ReduceMean changed its meaning in opset 18"),
        ("y: float32[2, 6] = Relu(x)", 12, "export it at 13 or later"),
        ("y: float32[2, 6] = Relu(x)", 17, ""),
    ],
)
def test_the_operator_set_is_raised_only_over_additions(line, version, reason):
    shape = "[2, 1]" if "Reduce" in line else "[2, 6]"
    model = loads(f'model {{"": {version}}}\ninput x: float32[2, 6]\n{line}\noutput y: float32{shape}')
    lifted, why = lift(model, 23)
    assert reason in why
    assert lifted.opsets[""] == (version if reason else 23)
