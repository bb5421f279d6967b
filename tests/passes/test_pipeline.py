"""One pipeline, three spellings; order, conflicts, contracts and rollback."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.passes import registry, spec
from eopt.passes.base import Context, Outcome, Pass
from eopt.passes.contract import Exact, Sqnr
from eopt.passes.pipeline import Pipeline, Verification


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply a weight: wrong on purpose unless the factor is one."""

    name: ClassVar[str] = "scale"
    after: ClassVar[tuple[str, ...]] = ("other",)
    factor: float = 1.0
    loose: bool = False
    tags: tuple[str, ...] = ()

    @property
    def contract(self):
        return Sqnr(10.0) if self.loose else Exact()

    def run(self, model: Model, context: Context) -> Outcome:
        weight = model.weights.array("w2")
        return Outcome(model.with_weights({"w2": (weight * self.factor).astype(weight.dtype)}))


@dataclass(frozen=True)
class Other(Pass):
    """Does nothing."""

    name: ClassVar[str] = "other"
    conflicts: ClassVar[tuple[str, ...]] = ()

    def run(self, model: Model, context: Context) -> Outcome:
        return Outcome(model)


@pytest.fixture(autouse=True)
def passes(monkeypatch):
    known = {"scale": Scale, "other": Other}
    monkeypatch.setattr(registry, "load", known.__getitem__)


def two_layers() -> Model:
    rng = np.random.default_rng(0)
    weights = [numpy_helper.from_array(rng.standard_normal((8, 8)).astype("f"), name) for name in ("w1", "w2", "w3")]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h1"], name="/first/MatMul"),
        helper.make_node("Relu", ["h1"], ["r1"], name="/first/Relu"),
        helper.make_node("MatMul", ["r1", "w2"], ["h2"], name="/second/MatMul"),
        helper.make_node("MatMul", ["h2", "w3"], ["y"], name="/third/MatMul"),
    ]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8])
    graph = helper.make_graph(nodes, "g", [info("x")], [info("y")], weights)
    return onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


BATCH = [{"x": np.random.default_rng(1).standard_normal((16, 8)).astype("f")}]


def test_three_spellings_are_equal():
    text = Pipeline.parse("scale{factor=2,tags=[a,b]},other")
    yaml = Pipeline.from_yaml("passes:\n- other\n- scale: {factor: 2, tags: [a, b]}\n")
    assert text == yaml == Pipeline(Other(), Scale(factor=2.0, tags=("a", "b")))
    assert str(text) == "other,scale{factor=2.0,tags=[a,b]}"


@given(st.floats(-1e6, 1e6), st.booleans(), st.lists(st.text("abcxyz_", min_size=1, max_size=5), max_size=3))
def test_normal_form_parses_back(factor, loose, tags):
    pipeline = Pipeline(Scale(factor=factor, loose=loose, tags=tuple(f"t{tag}" for tag in tags)), Other())
    assert Pipeline(*(known_pass(item) for item in spec.parse(str(pipeline)))) == pipeline


def known_pass(item: spec.PassSpec) -> Pass:
    return {"scale": Scale, "other": Other}[item.name].from_spec(item)


def test_declared_order_wins_unless_kept():
    assert [item.name for item in Pipeline.parse("scale,other").passes] == ["other", "scale"]
    assert [item.name for item in Pipeline.parse("scale,other", keep_order=True).passes] == ["scale", "other"]


def test_conflicting_passes_are_refused(monkeypatch):
    monkeypatch.setattr(Other, "conflicts", ("scale",))
    with pytest.raises(UsageError, match="exclude each other"):
        Pipeline.parse("scale,other")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scale{factor=2", "closing brace"),
        ("scale}", "did not open"),
        ("scale{factor}", "key=value"),
        ("scale{facto=2}", "has no option 'facto'.*factor, loose, tags"),
        ("scale{factor=yes}", "should be of type float"),
        ("scale{loose=1}", "should be of type bool"),
    ],
)
def test_bad_text_names_the_fault(text, message):
    with pytest.raises(UsageError, match=message):
        Pipeline.parse(text)


@pytest.mark.parametrize("text", ["{", "a: 1", "- [x]", "- scale: 3", "- {scale: {}, other: {}}"])
def test_bad_yaml_is_a_usage_error(text):
    with pytest.raises(UsageError):
        Pipeline.from_yaml(text)


def test_a_violated_contract_rolls_back_and_names_the_region():
    model = two_layers()
    compiled = Pipeline(Scale(factor=1.5)).run(model, Context(OrtRunner()), Verification(BATCH))
    (step,) = compiled.steps
    assert not step.kept
    assert compiled.model is model
    assert step.broken_at.startswith("second/")


def test_a_kept_contract_keeps_the_rewrite():
    compiled = Pipeline(Scale(factor=1.05, loose=True)).run(two_layers(), Context(OrtRunner()), Verification(BATCH))
    (step,) = compiled.steps
    assert step.kept
    # y = 1.05 x against x: SQNR = 20 log10(1 / 0.05) = 26.0 dB exactly, up to float32 rounding
    assert step.verdict.measured == pytest.approx(26.02, abs=0.05)


def test_the_run_goes_on_after_a_rollback():
    good, bad = Scale(factor=1.05, loose=True), Scale(factor=-1.0)
    compiled = Pipeline(bad, good).run(two_layers(), Context(OrtRunner()), Verification(BATCH))
    assert [step.kept for step in compiled.steps] == [False, True]
    assert compiled.violated == (compiled.steps[0],)


def test_exact_is_not_met_by_a_loose_pass_alone():
    loose_then_exact = Pipeline(Scale(factor=1.05, loose=True), replace(Scale(), factor=1.0))
    compiled = loose_then_exact.run(two_layers(), Context(OrtRunner()), Verification(BATCH))
    assert all(step.kept for step in compiled.steps), "an exact pass inherits the error budget of those before it"


def test_data_is_demanded_where_needed(monkeypatch):
    monkeypatch.setattr(Scale, "needs_data", True)
    with pytest.raises(UsageError, match="--data"):
        Pipeline(Scale()).run(two_layers(), Context(OrtRunner()))
