"""The text form round-trips, and hostile text ends in one clear error."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eopt.ir import text, text_parse
from eopt.ir.errors import EoptError, InputError
from eopt.ir.model import Model, OnnxEnvelope
from eopt.ir.node import Attrs, Op, Region
from eopt.ir.types import DType, Value
from eopt.ir.weights import WeightStore, weight_of

NAMES = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=8)
SHAPES = st.none() | st.lists(st.integers(0, 9) | st.sampled_from(["batch", "unk 0"]), max_size=3).map(tuple)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["alpha", "axes", "mode", "other"]),
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, width=32)
    | NAMES
    | st.lists(st.integers(-9, 9), min_size=1),
    max_size=3,
)


@st.composite
def models(draw) -> Model:
    """A chain of operators with random names, types, attributes and nested regions."""
    names = draw(st.lists(NAMES, min_size=2, max_size=8, unique=True))
    values = [Value(name, draw(st.none() | st.sampled_from(list(DType))), draw(SHAPES)) for name in names]
    ops = [
        Op(
            "Kind",
            (None, before.id),
            (after,),
            Attrs.of(**draw(ATTRIBUTES)),
            draw(st.sampled_from(["", "a.b"])),
            uid + 1,
        )
        for uid, (before, after) in enumerate(pairwise(values))
    ]
    depth = draw(st.integers(0, 3))
    children: tuple[Op | Region, ...] = tuple(ops)
    for level in range(depth):
        children = (Region(100 + level, draw(NAMES), draw(st.just("") | NAMES), children=children),)
    weight = np.array(draw(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)), np.int64)
    store = WeightStore({draw(NAMES.filter(lambda name: name not in names)): weight_of(weight)})
    root = Region(0, "", children=children)
    return Model(root, (values[0],), (values[-1],), store, OnnxEnvelope(), {"": 20})


@given(models())
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_what_is_printed_parses_back(model):
    printed = text.dumps(model)
    parsed = text_parse.loads(printed)
    assert text.dumps(parsed) == printed
    assert [(op.op, op.domain, op.inputs, op.outputs, op.attrs) for op in parsed.leaves()] == [
        (op.op, op.domain, op.inputs, op.outputs, op.attrs) for op in model.leaves()
    ]


@given(st.text(max_size=200))
@settings(max_examples=200)
def test_arbitrary_text_never_raises_anything_else(content):
    try:
        text_parse.loads(content)
    except EoptError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("input x float32[2]", "line 1, column 8: expected ':'"),
        ("y: float32[2] = Relu(x", "expected an input"),
        ("weight w: float32[2] = [1]", "expected 2 numbers, not 1"),
        ("weight w: float32[9] = sha256:00", "which must be handed in"),
        ("weight w: float32[99999999] = zeros", "at most"),
        ("a {", "region 'a' is not closed"),
        ("}", "no region is open"),
        ("a {\n" * 100, "nested deeper"),
        ("y: float33[2] = Relu(x)", "a type such as float32"),
        ('model {"": "x"}', "operator sets"),
        ('y: float32[2] = Relu(x) {alpha: proto("!")}', "an encoded attribute"),
        ("y: float32[2] = Relu(x)", "reads 'x' before anything produces it"),
        ("input x: float32[1e999]", "an extent"),
        ("input x: float32[99999999999999999999]", "an extent"),
        ("weight w: int8[1] = [300]", "numbers that int8 can hold"),
        ("weight w: string[1] = [1]", "strings are not listed"),
        ("weight w: string[1] = ones", "no strings"),
        ("weight w: float32[1] = normal(1.5)", "a seed"),
        (f"weight w: float32[1] = [{'9' * 5000}]", "a number of at most"),
        ('input "\\ud800": float32[1]', "valid JSON"),
        ('input x: float32[1]\ny: float32[1] = Einsum(x) {equation: "......->a"}', "is no equation"),
    ],
)
def test_errors_say_where_and_what(content, message):
    with pytest.raises(EoptError) as caught:
        text_parse.loads(content)
    assert message in str(caught.value)


def test_large_text_is_refused(monkeypatch):
    monkeypatch.setattr(text_parse, "MAX_CHARACTERS", 10)
    with pytest.raises(InputError, match="longer than 10"):
        text_parse.loads("input x: float32[2]")


def test_complex_weights_are_printed_by_digest():
    store = WeightStore({"w": weight_of(np.array([1 + 2j], np.complex64))})
    model = Model(Region(0, ""), (), (Value("w", DType.COMPLEX64, (1,)),), store, OnnxEnvelope(), {"": 20})
    assert "sha256:" in text.dumps(model)
    assert text_parse.loads(text.dumps(model), store).weights.array("w") == 1 + 2j
