"""One plan answers for all extents: equal kernels are priced once, and late binding changes no figure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from immutables import Map

from eopt.backends import executor, target
from eopt.costmodel import tree
from eopt.costmodel.plan import planned
from eopt.costmodel.prior import Prior
from eopt.costmodel.tree import Situation, price
from eopt.ir.specialize import specialize
from eopt.ir.text_parse import loads

H100, TENSORRT = target.load("nvidia-h100-sxm"), executor.load("tensorrt")


def layers(count: int) -> str:
    """Layers over a shape that is computed at run time."""
    lines = ['model {"": 20}', "input v0: float32[batch, seq, 64]", "weight rest: int64[1] = [-1]"]
    lines += ["weight wide: int64[1] = [64]"]
    lines += [f"weight w{i}: float32[64, 64] = normal({i})" for i in range(count)]
    for i in range(count):
        lines += [
            f"layer.{i}: Layer {{", f"m{i}: ?? = MatMul(v{i}, w{i})", f"f{i}: ?? = Concat(rest, wide) {{axis: 0}}",
            f"r{i}: ?? = Reshape(m{i}, f{i})", f"t{i}: ?? = Softmax(r{i})", f"s{i}: ?? = Shape(v{i})",
            f"v{i + 1}: ?? = Reshape(t{i}, s{i})", "}",
        ]  # fmt: skip
    return "\n".join([*lines, f"output v{count}: float32[batch, seq, 64]"]) + "\n"


class Counting(Prior):
    """How often a kernel is asked for."""

    asked = 0

    def query(self, *arguments):
        type(self).asked += 1
        return super().query(*arguments)


def situation(batch: int, seq: int, model=None) -> Situation:
    return Situation(H100, TENSORRT, Map({"batch": batch, "seq": seq}), model or Prior())


def test_layers_that_repeat_are_priced_once():
    model = loads(layers(8))
    Counting.asked = 0
    counting = Counting()
    many = price(model, situation(2, 16, counting))
    assert not many.unknown
    assert len(many.known) >= 8 * Counting.asked / 2 > 0, "asked by kind, not by layer"
    single = price(loads(layers(1)), situation(2, 16))
    assert many.energy_j.mid == pytest.approx(8 * single.energy_j.mid)


def test_the_plan_is_made_once_for_all_extents(monkeypatch):
    made = []
    monkeypatch.setattr(tree, "planned", lambda *arguments: made.append(arguments) or planned(*arguments))
    model = loads(layers(3))
    for batch in range(1, 9):
        price(model, situation(batch, 8))
    assert len(made) == 2, "one for the first extents, one for all others"


@settings(max_examples=12)
@given(st.integers(1, 40), st.integers(1, 600))
def test_binding_late_equals_fixing_the_dims_first(batch, seq):
    model = MODEL
    late = price(model, situation(batch, seq))
    fixed = price(specialize(model, {"batch": batch, "seq": seq}), replace(situation(batch, seq), bindings=Map()))
    assert late.energy_j.mid == pytest.approx(fixed.energy_j.mid)
    assert late.latency_s.mid == pytest.approx(fixed.latency_s.mid)
    assert len(late.known) == len(fixed.known)
    assert not late.unknown


MODEL = loads(layers(2))
