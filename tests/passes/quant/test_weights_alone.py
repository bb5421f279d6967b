"""Weights alone: as few bits as the contract and the gate allow, product by product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from eopt.backends import executor, target
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.costmodel.tree import Situation, bindings_for, compare, kernels_j
from eopt.ir.types import DType
from eopt.passes.base import Context
from eopt.passes.gate import Gate
from eopt.passes.pipeline import Pipeline, Verification
from eopt.passes.quant import Quant, weights_alone
from eopt.passes.quant.scheme import Format, WeightType
from eopt.passes.quant.weight_only import Form
from eopt.passes.quant.weights_alone import Rounding

LAYERS = """(float[N,64] x) => (float[N,64] y) {
  ["first"] a = MatMul(x, u) b = Tanh(a) ["worst"] c = MatMul(b, v) d = Tanh(c) ["last"] y = MatMul(d, w)
}"""
TIED = '(float[N,64] x) => (float[N,64] y) { ["one"] a = MatMul(x, w) b = Tanh(a) ["two"] y = MatMul(b, w) }'
BITS = {DType.INT4: "int4", DType.UINT4: "int4", DType.INT8: "int8", DType.UINT8: "int8", DType.FLOAT32: "float"}


def small(normal):
    """A weight whose products stay in the middle of tanh."""
    return normal(64, 64) / 8


def lopsided(normal):
    """Two weights in a row: what the first makes small, the second makes large again, at the cost of its neighbours."""
    before, after = small(normal), small(normal)
    before[:, ::16] /= 30
    after[::16] *= 30
    return {"u": before, "v": after}


def stored(model) -> list[str]:
    """How each product reads its weight, in execution order."""
    weights = [op.inputs[1] for op in model.leaves() if op.op == "MatMul"]
    sources = [model.producer(name) for name in weights]
    names = [name if source is None else source.inputs[0] for name, source in zip(weights, sources, strict=True)]
    return [BITS[model.value(name).dtype] for name in names]


def compiled(model, data, text, gate=None):
    context = Context(OrtRunner(threads=1), data, gate)
    return Pipeline.parse(text).run(model, context, Verification(list(data.batches(model.feeds, 16))))


def test_four_bits_where_the_contract_holds(build, normal, samples):
    model = build(LAYERS, u=small(normal), v=small(normal), w=small(normal))
    (step,) = compiled(model, samples(model), "quant{weight=int4,sqnr=10}").steps
    assert stored(step.outcome.model) == ["int4"] * 3 and not step.outcome.trials


def test_the_worst_weight_alone_falls_back_to_eight_bits(build, normal, samples):
    model = build(LAYERS, **lopsided(normal), w=small(normal))
    (step,) = compiled(model, samples(model), "quant{weight=int4}").steps
    assert step.kept and stored(step.outcome.model) == ["int4", "int8", "int4"]
    assert {change.where: change.rule for change in step.outcome.applied} == {
        "first": "weight-only int4", "worst": "weight-only int8", "last": "weight-only int4"
    }  # fmt: skip
    assert not step.outcome.trials[0].holds and any(trial.chosen for trial in step.outcome.trials)


def test_what_eight_bits_do_not_hold_stays_in_float(build, normal, samples):
    model = build(LAYERS, u=small(normal), v=small(normal), w=small(normal))
    (step,) = compiled(model, samples(model), "quant{weight=int4,sqnr=100}").steps
    assert stored(step.outcome.model) == ["float"] * 3
    assert {change.reason for change in step.outcome.refused} == {"needed in float for accuracy"}


@pytest.mark.parametrize("text", ["quant{weight=int4,sqnr=5}", "quant{weight=int4,sqnr=30}"])
def test_a_tied_weight_has_one_precision(build, normal, samples, text):
    model = build(TIED, w=small(normal))
    after = compiled(model, samples(model), text).model
    assert stored(after) in (["int4"] * 2, ["int8"] * 2)
    assert stored(after)[0] == ("int4" if "=5" in text else "int8")
    products = [op for op in after.leaves() if op.op == "MatMul"]
    assert after.producer(products[0].inputs[1]).inputs == after.producer(products[1].inputs[1]).inputs


@dataclass
class Counting:
    """A runner that leaves its mark in a list each time."""

    runs: list[int]
    mark: int

    def run(self, model, batches, taps=()):
        self.runs.append(self.mark)
        return OrtRunner(threads=1).run(model, batches, taps)


@pytest.mark.parametrize("graph", [LAYERS, TIED])
def test_hessians_in_parts_give_the_model_of_all_at_once(build, normal, samples, monkeypatch, graph):
    """Less memory is more runs of the model, and nothing else."""
    given = {name: small(normal) for name in "uvw" if f" {name})" in graph}
    model, found, runs = build(graph, **given), [], []
    for most in (1 << 30, 1):
        monkeypatch.setattr(weights_alone, "HESSIAN_BYTES", most)
        context = Context(Counting(runs, most), samples(model))
        found.append(Quant(weight=WeightType.INT4, rounding=Rounding.GPTQ).run(model, context).model)
    whole, parts = found
    assert [op.inputs for op in whole.leaves()] == [op.inputs for op in parts.leaves()]
    assert set(whole.weights) == set(parts.weights)
    for name in whole.weights:
        np.testing.assert_array_equal(parts.weights.array(name), whole.weights.array(name))
    assert runs.count(1 << 30) == 1 and runs.count(1) == (2 if graph is LAYERS else 1)  # x alone needs no run


def test_gptq_beats_the_nearest_point_through_the_pass(build, normal, sqnr):
    """On inputs that go together, as those of networks do."""
    mixed = normal(256, 64) @ (normal(64, 64) * np.exp(-np.arange(64, dtype=np.float32) / 6))
    model, data = (
        build("(float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", w=normal(64, 64)),
        Dataset({"x": mixed}),
    )
    context = Context(OrtRunner(threads=1), data)
    nearest, solved = (
        sqnr(model, Quant(weight=WeightType.INT4, rounding=rounding).run(model, context).model, data)
        for rounding in (Rounding.RTN, Rounding.GPTQ)
    )
    assert solved > nearest + 3  # half the noise


@pytest.mark.parametrize("weight", [WeightType.INT4, WeightType.INT8])
def test_the_gate_takes_it_where_weights_are_what_moves(build, normal, weight):
    """For one row a product moves 16 MiB to compute 8 Mflop; for a million it moves the same, which is then nothing."""
    model = build("(float[N,2048] x) => (float[N,2048] y) { y = MatMul(x, w) }", w=normal(2048, 2048))
    device, engine = target.load("cpu-amd-epyc-9004"), executor.load("onnxruntime")

    def outcome(batch: int):
        situation = Situation(device, engine, bindings_for(model, batch, {}))
        gate = Gate(lambda a, b: compare(a, b, situation), lambda m: kernels_j(m, situation))
        context = Context(OrtRunner(threads=1), None, gate, device, engine)
        return Quant(format=(Format.WEIGHT_ONLY,), weight=weight).run(model, context), gate.compare(
            model, model
        ).before_j

    (alone, joules), (full, _) = outcome(1), outcome(1 << 20)
    assert alone.applied[0].saved_j > 0.6 * joules  # an eighth or a quarter of the bytes, and scales
    assert full.model is model and not full.applied
    assert [change.reason for change in full.refused] == ["no predicted gain on this target and executor"]


@pytest.mark.parametrize("form", [Form.QDQ, Form.NBITS])
def test_zero_points_serve_weights_of_one_sign(build, normal, samples, sqnr, form):
    """A symmetric grid wastes the half of its integers that no weight uses: a bit, or 6 dB."""
    model = build("(float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }", w=1 + normal(64, 64) / 8)
    data = samples(model)
    context = Context(OrtRunner(optimize=False), data)
    found = {
        given: Quant(weight=WeightType.INT4, rounding=Rounding.RTN, form=form, zero_points=given)
        .run(model, context)
        .model
        for given in (False, True)
    }
    assert any("zero_point" in name for name in found[True].weights)
    assert sqnr(model, found[True], data) > sqnr(model, found[False], data) + 5
