"""Symbolic extents: read as written, found by trying, and never believed beyond what was tried."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.ir.dims import evaluate, late, tried
from eopt.ir.specialize import specialize
from eopt.ir.text_parse import loads
from eopt.ir.types import bind, concrete

BINDINGS = {"batch": 4, "seq": 7}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("batch", 4), ("2*batch", 8), ("batch*seq + 1", 29), ("Min(512, seq)", 7), ("Max(seq, 9)", 9),
        ("(seq - 1)//2", 3),
        ("other", None), ("2*other", None), ("seq - 9", None), ("seq//0", None), ("__import__('os')", None),
        ("batch.real", None), ("[1]", None), ("9**9**9**9", None), ("(" * 400 + "1" + ")" * 400, None),
        ("*" * 600, None),
    ],
)  # fmt: skip
def test_expressions(text, value):
    assert evaluate(text, BINDINGS) == value


@given(st.text(alphabet="()+-*/%,. 019azMin", max_size=40))
def test_no_text_does_harm(text):
    found = evaluate(text, BINDINGS)
    assert found is None or found >= 0


HEADS = """model {"": 20}
input x: float32[batch, seq, 8]
weight w: float32[8, 12] = normal(0)
weight two: int64[1] = [2]
weight rest: int64[1] = [-1]
q: ?? = MatMul(x, w)
s: ?? = Shape(q) {start: 0, end: 2}
h: ?? = Concat(s, two, rest) {axis: 0}
y: ?? = Reshape(q, h)
flat: ?? = Concat(rest, two) {axis: 0}
z: ?? = Reshape(y, flat)
output y: float32?
output z: float32?
"""


def test_extents_computed_at_run_time_are_found():
    model = loads(HEADS)
    assert not late(model).complete
    found = tried(model)
    assert found.complete
    for extents in ({"batch": 3, "seq": 11}, {"batch": 100, "seq": 33}, {"batch": 1, "seq": 4000}):
        bound, sample = found.bound(extents), specialize(model, extents)
        for name in ("q", "y", "z"):
            assert concrete(bind(found.model.value(name).shape, bound)) == concrete(sample.value(name).shape)
    assert found.covers({"batch": 8, "seq": 512})
    assert not found.covers({"batch": 8, "seq": 10**6}), "nobody tried a million"


def test_what_is_no_polynomial_is_not_made_one():
    model = loads(
        """model {"": 20}
input x: float32[n, 4]
weight start: int64[1] = [0]
weight end: int64[1] = [6]
y: ?? = Slice(x, start, end)
output y: float32?
"""
    )
    found = tried(model)  # min(n, 6) rows
    assert not found.covers({"n": 100}) or concrete(found.model.value("y").shape) == (6, 4)
    for extent in (2, 6, 50):
        if found.covers({"n": extent}):
            shape = concrete(bind(found.model.value("y").shape, found.bound({"n": extent})))
            assert shape == concrete(specialize(model, {"n": extent}).value("y").shape)
