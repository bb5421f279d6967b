"""Precision by joules: the problem that is posed, the model that an assignment gives, and what prices decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eopt.backends import formats
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir import onnx_io
from eopt.ir.errors import UsageError
from eopt.ir.types import DType
from eopt.ir.verify import verify
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.pipeline import Pipeline
from eopt.passes.quant import candidates, placement
from eopt.passes.quant.bias import Means
from eopt.passes.quant.build import Builder
from eopt.passes.quant.calibrate import Calibration
from eopt.passes.quant.choices import Choices
from eopt.passes.quant.choose.problem import Form
from eopt.passes.quant.scheme import Format, Scheme

RESIDUAL = """(float[N,3,8,8] x) => (float[N,5] y) {
  a = Conv<pads=[1,1,1,1]>(x, v) r = Relu(a) b = Conv<pads=[1,1,1,1]>(r, w) s = Add(b, r)
  p = GlobalAveragePool(s) f = Flatten(p) y = MatMul(f, u)
}"""
NUMBERS = Scheme(DType.UINT8, DType.INT8, symmetric=False, weight_limit=127, integer_bias=True)
BOUNDARIES = {"QuantizeLinear": 0.5, "DequantizeLinear": 0.25, "DynamicQuantizeLinear": 0.75}
FLOATS = {"Conv": 8.0, "MatMul": 4.0, "Add": 2.0, "GlobalAveragePool": 1.0}
CHEAP = {"Conv": 2.0, "MatMul": 1.0, "Add": 0.5, "GlobalAveragePool": 0.125}
DEAR = {name: 2 * joules for name, joules in FLOATS.items()}


@dataclass(frozen=True)
class Priced:
    """Joules by type, one table for operators on floats and one for operators in 8 bits."""

    low: dict[str, float]
    high: dict[str, float]

    def __call__(self, model) -> dict[int, float]:
        found = {}
        for op in model.leaves():
            table = BOUNDARIES if op.op in BOUNDARIES else self.low if formats.format_of(model, op) else self.high
            stored = op.op == "DequantizeLinear" and op.inputs[0] in model.weights  # read by the kernel as it is
            if op.op in table and not stored:
                found[op.uid] = table[op.op]
        return found

    def gate(self) -> Gate:
        total = lambda model: sum(self(model).values())
        return Gate(lambda before, after: Compared(total(before), total(after)), self)


@dataclass(frozen=True)
class Compared:
    before_j: float
    after_j: float
    undecided: tuple[str, ...] = ()


@pytest.fixture
def model(build, normal):
    return build(RESIDUAL, v=normal(4, 3, 3, 3), w=normal(4, 4, 3, 3), u=normal(4, 5))


def choices(model, *asked: Format) -> Choices:
    anchors, _ = candidates.find(model, ("Conv", "MatMul"), ())
    bridges = placement.possible_bridges(model, anchors, frozenset())
    seen = Calibration(
        {value.id: (-8.0, 8.0) for op in model.leaves() for value in op.outputs} | {"x": (-4.0, 4.0)}, {}
    )
    builder = Builder(model, seen, NUMBERS, True, Means(model, ()))
    return Choices(builder, tuple(anchors), tuple(bridges), asked, frozenset(a.op.uid for a in anchors))


def by_result(model, problem):
    return {model.index.op(site.key).output: site for site in problem.sites}


def test_every_site_has_the_options_its_kernels_allow(model):
    problem = choices(model, Format.STATIC, Format.DYNAMIC).problem(Priced(CHEAP, FLOATS))
    sites = by_result(model, problem)
    assert list(sites) == [*"absp", "f", "y"]
    offered = {name: {o.name: (o.reads, o.writes, o.cost_j) for o in site.options} for name, site in sites.items()}
    float_, static, dynamic = Form.FLOAT, Form.STATIC, Form.DYNAMIC
    conv = {"float": (float_, float_, 8.0), "static": (static, static, 2.0)}
    assert offered["a"] == offered["b"] == conv
    assert offered["s"] == {"float": (float_, float_, 2.0), "static": (static, static, 0.5)}
    assert offered["f"] == {"float": (float_, float_, 0.0), "static": (static, static, 0.0)}  # a view: free, unpriced
    product = {"float": (float_, float_, 4.0), "static": (static, float_, 1.0), "dynamic": (dynamic, float_, 1.0)}
    assert offered["y"] == product
    assert (sites["a"].reads, sites["a"].writes) == (("x",), "r")  # behind the Relu
    assert sites["s"].reads == ("b", "r")


def test_boundaries_cost_what_stands_between_the_forms(model):
    problem = choices(model, Format.STATIC, Format.DYNAMIC).problem(Priced(CHEAP, FLOATS))
    for name in "xrbspf":
        assert problem.conversion_j[name, Form.FLOAT, Form.STATIC] == 0.5
        assert problem.conversion_j[name, Form.STATIC, Form.FLOAT] == 0.25
        assert problem.conversion_j[name, Form.FLOAT, Form.DYNAMIC] == 0.75
        assert problem.conversion_j[name, Form.STATIC, Form.DYNAMIC] == 1.0
    assert problem.pinned == {"y"}  # leaves the model; all others are read by sites alone


def test_a_tensor_that_something_else_reads_is_pinned(build, normal):
    graph = "(float[N,4] x) => (float[N,4] y, float[N,4] z) { a = MatMul(x, v) y = MatMul(a, w) z = Exp(a) }"
    model = build(graph, v=normal(4, 4), w=normal(4, 4))
    assert choices(model, Format.STATIC).problem(None).pinned == {"a", "y"}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_what_is_chosen_computes_in_8_bits_and_nothing_else(model, data):
    offered = choices(model, Format.STATIC, Format.DYNAMIC)
    problem = offered.problem(None)
    chosen = {site.key: data.draw(st.sampled_from(site.options)) for site in problem.sites}
    after = offered.built(chosen)
    verify(after)
    list(OrtRunner(threads=1).run(after, [{"x": np.ones((1, 3, 8, 8), np.float32)}]))
    written = {site.writes: chosen[site.key].writes for site in problem.sites}
    found = {op.op + str(op.origin): op for op in after.leaves()}
    for anchor in offered.anchors:
        option, op = chosen[anchor.op.uid].name, found[anchor.op.op + str(anchor.op.origin)]
        if option == "dynamic" and written.get(anchor.data) == Form.STATIC:
            option = "static"  # what it reads is on a grid already
        assert formats.format_of(after, op) == ("" if option == "float" else f"{option}-int8")
        assert (anchor.weight in after.weights) == (option == "float")


def test_an_assignment_of_floats_is_the_model_itself(model):
    after = choices(model, Format.STATIC).built({})
    assert after.leaves() == model.leaves() and set(after.weights) == set(model.weights)


# -- what prices decide, from end to end

CNN = Path(__file__).parents[3] / "examples" / "cnn"


def compiled(prices: Priced | None):
    model = onnx_io.read(CNN / "model.onnx")
    data = Dataset({"image": np.load(CNN / "calibration.npz")["image"][:4]})
    context = Context(OrtRunner(threads=1), data, prices.gate() if prices else None)
    return model, Pipeline.parse("quant{place=cost}").run(model, context)


def test_dear_kernels_leave_everything_in_float():
    model, result = compiled(Priced(DEAR, FLOATS))
    assert result.model is model
    (step,) = result.steps
    assert not step.outcome.applied
    assert {change.reason for change in step.outcome.refused} == {
        "in float it is predicted to use no more joules, or is needed for accuracy"
    }


def test_cheap_kernels_are_all_taken_and_dear_ones_are_left_out():
    _, everything = compiled(Priced(CHEAP | {"Gemm": 1.0}, FLOATS | {"Gemm": 4.0}))
    assert not everything.steps[0].outcome.refused
    assert sum(change.saved_j for change in everything.steps[0].outcome.applied) > 0
    _, most = compiled(Priced(CHEAP | {"Gemm": 5.0}, FLOATS | {"Gemm": 4.0}))
    assert len(most.steps[0].outcome.refused) == 1 and "linear" in most.steps[0].outcome.refused[0].where


def test_what_has_no_price_stays_in_float():
    _, result = compiled(Priced({**CHEAP, "Gemm": 1.0}, FLOATS))  # Gemm in float is unknown
    (kept,) = result.steps[0].outcome.refused
    assert "linear" in kept.where


def test_without_a_target_there_are_no_joules():
    with pytest.raises(UsageError, match="--target"):
        compiled(None)
