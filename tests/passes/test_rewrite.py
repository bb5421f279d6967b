"""The rule driver: reasons, gate, fixpoint, and what `why` answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.rewrite import Matcher, Miss, Replacement, apply_rules, explain, rule


@rule("double-negation", "Neg")
def double_negation(m: Matcher, op: Op) -> Replacement:
    inner = m.producer(op, 0, "Neg", uses=1)
    return Replacement([inner, op], [Op("Identity", inner.inputs, op.outputs)])


def chain(count: int, extra_output: bool = False) -> Model:
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{i + 1}"], name=f"/m/n{i}") for i in range(count)]
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])
    outputs = [info(f"v{count}")] + ([info("v1")] if extra_output else [])
    graph = helper.make_graph(nodes, "g", [info("v0")], outputs)
    return onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


@dataclass(frozen=True)
class Prices:
    before_j: float
    after_j: float
    undecided: tuple[str, ...] = ()


def gate(before_j: float, after_j: float, *undecided: str) -> Gate:
    return Gate(lambda before, after: Prices(before_j, after_j, undecided))


def test_rules_run_to_a_fixpoint():
    outcome = apply_rules(chain(5), [double_negation], Context(OrtRunner()), "test")
    assert [op.op for op in outcome.model.leaves()] == ["Identity", "Identity", "Neg"]
    assert len(outcome.applied) == 2


def test_new_operators_know_what_they_stand_for():
    outcome = apply_rules(chain(2), [double_negation], Context(OrtRunner()), "test")
    (identity,) = outcome.model.leaves()
    assert identity.origin == {1, 2}
    assert outcome.model.path(identity.uid) == "m"


def test_a_graph_output_is_never_fused_away():
    model = chain(2, extra_output=True)
    outcome = apply_rules(model, [double_negation], Context(OrtRunner()), "test")
    assert outcome.model is model
    miss = explain(model, double_negation, model.leaves()[1])
    assert miss is not None
    assert "is a graph output" in miss.reason


def test_the_reason_names_what_was_found_instead():
    model = chain(2)
    miss = explain(model, double_negation, model.leaves()[0])
    assert isinstance(miss, Miss)
    assert miss.reason == "input 0 of Neg comes from nothing, not from Neg"


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        (gate(1.0, 1.1), "predicted to use more energy"),
        (gate(1.0, 1.0), "no predicted gain"),
        (gate(1.0, 0.5, "Mystery"), "undecided: the cost of Mystery is unknown"),
    ],
)
def test_the_gate_refuses_with_a_reason(prices, reason):
    model = chain(2)
    outcome = apply_rules(model, [double_negation], Context(OrtRunner(), gate=prices), "test")
    assert outcome.model is model
    assert outcome.applied == ()
    assert [reason in change.reason for change in outcome.refused] == [True]


def test_the_gate_accepts_a_saving_and_reports_it():
    outcome = apply_rules(chain(2), [double_negation], Context(OrtRunner(), gate=gate(1.0, 0.75)), "test")
    assert [change.saved_j for change in outcome.applied] == [0.25]


def test_exempt_rules_do_not_ask_the_gate():
    exempt = rule("free", "Neg", exempt=True)(double_negation.rewrite)
    outcome = apply_rules(chain(2), [exempt], Context(OrtRunner(), gate=gate(1.0, 2.0)), "test")
    assert len(outcome.applied) == 1


def test_matcher_finds_constants_in_either_order():
    weight = numpy_helper.from_array(np.float32(2.0), "two")
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])
    for inputs in (["x", "two"], ["two", "x"]):
        graph = helper.make_graph([helper.make_node("Mul", inputs, ["y"])], "g", [info("x")], [info("y")], [weight])
        model = onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
        assert Matcher(model).constant_input(model.leaves()[0]) == (2.0, "x")
