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
from eopt.ir.text_parse import loads
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.rewrite import Matcher, Miss, Replacement, Rule, apply_rules, explain, rule


@rule("double-negation", "Neg")
def double_negation(m: Matcher, op: Op) -> Replacement:
    inner = m.producer(op, 0, "Neg", uses=1)
    return Replacement([inner, op], [Op("Identity", inner.inputs, op.outputs)])


@rule("halving", "Neg")
def halving(m: Matcher, op: Op) -> Replacement:
    """Two negations become one: no algebra, but one operator less each time."""
    inner = m.producer(op, 0, "Neg", uses=1)
    return Replacement([inner, op], [Op("Neg", inner.inputs, op.outputs)])


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


@rule("to-abs", "Neg")
def to_abs(m: Matcher, op: Op) -> Replacement:
    return Replacement([op], [Op("Abs", op.inputs, op.outputs)])


@rule("to-neg", "Abs")
def to_neg(m: Matcher, op: Op) -> Replacement:
    return Replacement([op], [Op("Neg", op.inputs, op.outputs)])


def test_rules_that_undo_each_other_end_and_are_named():
    outcome = apply_rules(chain(3), [to_abs, to_neg], Context(OrtRunner()), "test")
    assert len(outcome.applied) == 4 * 3 + 64
    (note,) = outcome.notes
    assert note.startswith("stopped after 76 rewrites")
    assert "to-abs 1" in note
    assert "to-neg 1" in note


def test_a_budget_that_suffices_is_not_mentioned():
    outcome = apply_rules(chain(5), [double_negation], Context(OrtRunner()), "test", budget=2)
    assert len(outcome.applied) == 2
    assert outcome.notes == ()
    stopped = apply_rules(chain(5), [double_negation], Context(OrtRunner()), "test", budget=1)
    assert len(stopped.applied) == 1
    assert "double-negation still matching" in stopped.notes[0]


def counted(original: Rule) -> tuple[Rule, list[int]]:
    """The rule, and the operators it was tried at."""
    tried: list[int] = []

    def rewrite(m: Matcher, op: Op) -> Replacement:
        tried.append(op.uid)
        return original.rewrite(m, op)

    return Rule(original.name, original.anchors, rewrite), tried


def modules(count: int) -> Model:
    """A chain of negations in modules of 100, so that a rewrite copies a short list of children."""
    line = lambda i: f"v{i}: float32[4] = Neg(v{i - 1})"
    blocks = [
        "\n".join([f"m{start} {{", *(line(i) for i in range(start, min(start + 100, count + 1))), "}"])
        for start in range(1, count + 1, 100)
    ]
    return loads("\n".join(['model {"": 20}', "input v0: float32[4]", *blocks, f"output v{count}: float32[4]"]))


@pytest.mark.parametrize("count", [1_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_a_long_chain_takes_a_number_of_attempts_linear_in_its_length(count: int):
    """Each operator once, and what is left once more; a round of all operators for each level took 16 times that."""
    candidate, tried = counted(halving)
    outcome = apply_rules(modules(count), [candidate], Context(OrtRunner()), "test")
    assert len(outcome.applied) == count - 1
    assert [op.op for op in outcome.model.leaves()] == ["Neg"]
    assert len(tried) <= 2 * count


def test_a_rewrite_wakes_the_rule_that_waited_for_it_however_far_away():
    """`far` looks five operators up; only the rewrite there makes it match."""
    tried: list[int] = []

    @rule("far", "Relu")
    def far(m: Matcher, op: Op) -> Replacement:
        tried.append(op.uid)
        above = op
        for _ in range(5):
            above = m.producer(above, 0, ("Neg", "Abs"))
        m.need(above.op == "Abs", "it is not absolute", above)
        return Replacement([op], [Op("Identity", op.inputs, op.outputs)])

    @rule("late", "Exp")
    def late(m: Matcher, op: Op) -> Replacement:
        first = m.producer(op, 0, "Neg")
        return Replacement([first], [Op("Abs", first.inputs, first.outputs)])

    lines = [f"v{i}: float32[4] = Neg(v{i - 1})" for i in range(1, 6)]
    lines += ["y: float32[4] = Relu(v5)", "z: float32[4] = Exp(v1)", "output y: float32[4]", "output z: float32[4]"]
    model = loads("\n".join(['model {"": 20}', "input v0: float32[4]", *lines]))
    outcome = apply_rules(model, [far, late], Context(OrtRunner()), "test")
    assert [change.rule for change in outcome.applied] == ["late", "far"]
    assert len(tried) == 2


def test_what_a_rewrite_leaves_dead_is_no_user_any_more():
    """b reads a until d, its only user, reads x instead; then a has one user, and the pair above it is one."""

    @rule("shortcut", "Tanh")
    def shortcut(m: Matcher, op: Op) -> Replacement:
        m.producer(op, 0, "Exp")
        return Replacement([op], [Op("Tanh", ("x",), op.outputs)])

    model = loads(
        """
model {"": 20}
input x: float32[4]
n: float32[4] = Neg(x)
b: float32[4] = Exp(n)
d: float32[4] = Tanh(b)
y: float32[4] = Neg(n)
output d: float32[4]
output y: float32[4]
"""
    )
    outcome = apply_rules(model, [double_negation, shortcut], Context(OrtRunner()), "test")
    assert [change.rule for change in outcome.applied] == ["shortcut", "double-negation"]


def test_the_reason_is_that_of_the_operand_that_came_furthest():
    model = loads(
        """
model {"": 20}
input x: float32[4]
e: float32[4] = Exp(x)
n: float32[4] = Neg(x)
s: float32[4] = Add(e, n)
y: float32[4] = Add(s, n)
output y: float32[4]
"""
    )
    m = Matcher(model)
    with pytest.raises(Miss) as miss:
        m.either(model.leaves()[2], "Neg", uses=1)
    assert miss.value.reason == "'n' has 2 users, not 1"
    assert miss.value.node is model.leaves()[1]


def product(expression: str) -> Model:
    """`expression` is lines of operators over the inputs a, b, c and the constants two and four."""
    head = 'model {"": 20}\ninput a: float32[4]\ninput b: float32[4]\ninput c: float32[4]\n'
    weights = "weight two: float32[] = [2.0]\nweight four: float32[1] = [4.0]\nweight wide: float32[1, 1] = [3.0]\n"
    return loads(head + weights + expression + "\noutput y: float32[4]")


@pytest.mark.parametrize(
    ("lines", "names", "scalar", "count"),
    [
        ("t: float32[4] = Mul(a, b)\ny: float32[4] = Mul(t, c)", "abc", 1.0, 2),
        ("t: float32[4] = Mul(c, b)\ny: float32[4] = Mul(a, t)", "abc", 1.0, 2),
        ("t: float32[4] = Mul(two, b)\nu: float32[4] = Mul(a, four)\ny: float32[4] = Mul(u, t)", "ab", 8.0, 3),
        ("t: float32[4] = Div(a, two)\ny: float32[4] = Mul(b, t)", "ab", 0.5, 2),
        ("t: float32[4] = Mul(a, b)\ny: float32[4] = Mul(t, t)", "tt", 1.0, 1),
        ("t: float32[4] = Mul(a, b)\ny: float32[4] = Mul(t, c)\noutput t: float32[4]", "ct", 1.0, 1),
        ("t: float32[4] = Sub(a, two)\ny: float32[4] = Add(four, t)", "a", 2.0, 2),
        ("y: float32[4] = Mul(wide, a)", "a" + "wide", 1.0, 1),
    ],
)
def test_a_chain_is_its_operands_however_nested(lines, names, scalar, count):
    model = product(lines)
    (last,) = [op for op in model.leaves() if op.output == "y"]
    found = Matcher(model).operands(last)
    assert sorted("".join(found.names)) == sorted(names)
    assert (found.scalar, len(found.ops)) == (scalar, count)


def test_a_chain_of_any_length_costs_a_constant_to_look_at():
    lines = ["t0: float32[4] = Mul(a, b)", *(f"t{i}: float32[4] = Mul(t{i - 1}, c)" for i in range(1, 400))]
    model = product("\n".join([*lines, "y: float32[4] = Mul(t399, c)"]))
    m = Matcher(model)
    found = m.operands(model.leaves()[-1])
    assert len(found.ops) == 16
    assert len(m.model.asked) < 200


def test_matcher_finds_constants_in_either_order():
    weight = numpy_helper.from_array(np.float32(2.0), "two")
    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])
    for inputs in (["x", "two"], ["two", "x"]):
        graph = helper.make_graph([helper.make_node("Mul", inputs, ["y"])], "g", [info("x")], [info("y")], [weight])
        model = onnx_io.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
        assert Matcher(model).constant_input(model.leaves()[0]) == (2.0, "x")
