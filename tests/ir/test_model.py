"""Rewriting the tree: placement, origins, names, and an index that equals one built from scratch."""

from __future__ import annotations

import random

import pytest

from eopt.ir.index import Index
from eopt.ir.node import Op, Region
from eopt.ir.specialize import specialize
from eopt.ir.surgery import retyped
from eopt.ir.text_parse import loads
from eopt.ir.types import DType, Value
from eopt.ir.verify import VerifyError, verify

TWO_MODULES = """
model {"": 20}
input x: float32[4]
outer: Outer {
  first: First {
    a: float32[4] = Relu(x)
    b: float32[4] = Neg(a)
  }
  second: Second {
    c: float32[4] = Exp(b)
    d: float32[4] = Neg(c)
  }
}
y: float32[4] = Add(d, x)
output y: float32[4]
"""


def model():
    return loads(TWO_MODULES)


def op_of(model, value) -> Op:
    found = model.producer(value)
    assert found is not None
    return found


def vector(name: str) -> Value:
    return Value(name, DType.FLOAT32, (4,))


def assert_index_is_fresh(rewritten) -> None:
    fresh, kept = Index.of(rewritten.root), rewritten.index
    assert (fresh.nodes, fresh.parents, fresh.producers) == (kept.nodes, kept.parents, kept.producers)
    assert fresh.users == kept.users
    assert set(fresh.order) == set(kept.order)
    for region in rewritten.regions():
        keys = [kept.order[child.uid] for child in region.children]
        assert keys == sorted(set(keys)), "keys order siblings as they stand"


def test_a_new_operator_lands_in_the_lowest_common_ancestor():
    before = model()
    rewritten = before.replace([op_of(before, "b"), op_of(before, "c")], [Op("Tanh", ("a",), (vector("c"),))])
    tanh = op_of(rewritten, "c")
    assert rewritten.path(tanh.uid) == "outer"
    assert [op.op for op in rewritten.leaves()] == ["Relu", "Tanh", "Neg", "Add"]
    assert tanh.origin == op_of(before, "b").origin | op_of(before, "c").origin
    verify(rewritten)
    assert_index_is_fresh(rewritten)


def test_what_is_not_on_the_path_is_shared():
    before = model()
    rewritten = before.replace([op_of(before, "a")], [Op("Abs", ("x",), (vector("a"),))])
    second = next(region for region in before.regions() if region.name == "second")
    assert second in rewritten.regions()
    assert any(region is second for region in rewritten.regions())


def test_emptied_regions_disappear():
    before = model()
    rewritten = before.replace([op_of(before, "a"), op_of(before, "b")], [], renames={"b": "x"})
    assert "first" not in {region.name for region in rewritten.regions()}
    assert op_of(rewritten, "c").inputs == ("x",)
    verify(rewritten)
    assert_index_is_fresh(rewritten)


def test_a_graph_output_keeps_its_name():
    before = model()
    rewritten = before.replace([op_of(before, "y")], [Op("Mul", ("d", "x"), (vector("z"),))], renames={"y": "z"})
    assert op_of(rewritten, "y").op == "Mul"
    from_input = before.replace([op_of(before, "y")], [], renames={"y": "x"})
    assert op_of(from_input, "y").op == "Identity"
    for changed in (rewritten, from_input):
        verify(changed)
        assert_index_is_fresh(changed)


def test_a_value_in_use_cannot_lose_its_producer():
    before = model()
    with pytest.raises(ValueError, match="'b' is still in use"):
        before.replace([op_of(before, "b")], [])


def test_an_insertion_that_crosses_others_regrows_the_tree():
    """The new operator needs d (late) and feeds c's user region (early): only another order of leaves works."""
    before = loads(
        """
model {"": 20}
input x: float32[4]
m {
  a: float32[4] = Relu(x)
  p: float32[4] = Neg(a)
}
n {
  b: float32[4] = Exp(x)
  q: float32[4] = Neg(b)
}
y: float32[4] = Add(p, q)
output y: float32[4]
"""
    )
    fused = Op("Pair", ("x", "q"), (vector("a"),), domain="test")
    rewritten = before.replace([op_of(before, "a")], [fused])
    verify(rewritten)
    assert [op.op for op in rewritten.leaves()].index("Pair") > [op.op for op in rewritten.leaves()].index("Exp")


def test_random_rewrites_keep_the_index_true():
    rng = random.Random(0)
    current = model()
    for step in range(60):
        op = rng.choice(current.leaves())
        kind = rng.choice(["Sin", "Cos", "Abs"])
        middle = vector(current.fresh(f"m{step}"))
        pair = [Op(kind, (op.inputs[0],), (middle,)), Op("Neg", (middle.id,), op.outputs)]
        current = current.replace([op], pair if rng.random() < 0.5 else [Op(kind, (op.inputs[0],), op.outputs)])
        verify(current)
    assert_index_is_fresh(current)


def test_sweep_drops_what_no_output_needs():
    before = model()
    dead = before.replace([op_of(before, "y")], [Op("Relu", ("x",), (vector("y"),))]).swept()
    assert [op.op for op in dead.leaves()] == ["Relu"]
    verify(dead)


def test_retyping_keeps_everything_else():
    before = model()
    half = retyped(before, {"c": Value("c", DType.FLOAT16, (4,))})
    assert half.value("c").dtype is DType.FLOAT16
    assert [op.uid for op in half.leaves()] == [op.uid for op in before.leaves()]


def test_analyses_are_computed_once():
    calls = []
    counted = model()
    analysis = lambda m, key: calls.append(key) or len(m.leaves())
    assert [counted.get(analysis, 1), counted.get(analysis, 1), counted.get(analysis, 2)] == [5, 5, 5]
    assert calls == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "input x: float32[4]\na: float32[4] = Relu(b)\nb: float32[4] = Relu(x)\noutput b: float32[4]",
            "reads 'b' before",
        ),
        ("input x: float32[4]\na: float32[4] = Relu(x)\na: float32[4] = Neg(x)\noutput a: float32[4]", "already has"),
        ("input x: float32[4]\noutput q: float32[4]", "never produced"),
    ],
)
def test_verify_catches_broken_dataflow(content, message):
    with pytest.raises(VerifyError, match=message):
        loads(content)


def test_verify_catches_broken_trees():
    sound = model()
    twice = sound.with_index(Index.of(Region(0, "", children=(*sound.root.children, Region(999, "empty")))))
    with pytest.raises(VerifyError, match="is empty"):
        verify(twice)
    same = sound.with_index(Index.of(Region(op_of(sound, "y").uid, "", children=sound.root.children)))
    with pytest.raises(VerifyError, match="is used twice"):
        verify(same)


def test_shapes_computed_from_shapes_are_known_once_dims_are_fixed():
    computed = loads(
        """
model {"": 20}
input x: float32[batch, 4, 6]
weight zero: int64[1] = [0]
weight one: int64[1] = [1]
weight minus: int64[1] = [-1]
s: int64[3] = Shape(x)
b: int64[1] = Slice(s, zero, one)
t: int64[2] = Concat(b, minus) {axis: 0}
y: float32? = Reshape(x, t)
z: float32? = Relu(y)
output z: float32?
"""
    )
    assert computed.value("z").shape is None
    assert specialize(computed, {"batch": 5}).value("z").shape == (5, 24)
