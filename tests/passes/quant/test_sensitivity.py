"""Two models find what one model for each operator would: the noise every operator adds alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eopt.backends.ort import OrtRunner
from eopt.passes.base import Context
from eopt.passes.contract import Sqnr
from eopt.passes.quant import Quant, activations, sensitivity, weights_alone
from eopt.passes.quant.candidates import find
from eopt.passes.quant.choose.problem import FLOAT
from eopt.passes.quant.scheme import Activation, WeightType, scheme
from eopt.passes.quant.weight_only import Form

RESIDUAL = """(float[N,4,8,8] x) => (float[N,3] y, float[N,4,8,8] s) {
  a = Conv<pads=[1,1,1,1]>(x, w1)
  r = Relu(a)
  b = Conv<pads=[1,1,1,1]>(r, w2)
  s = Add(b, r)
  p = GlobalAveragePool(s)
  f = Flatten(p)
  y = Gemm<transB=1>(f, w3, c)
}"""


@pytest.fixture
def residual(build, normal):
    """A residual block and a classifier; a convolution is a graph output's neighbour."""
    return build(RESIDUAL, w1=normal(4, 4, 3, 3), w2=normal(4, 4, 3, 3), w3=normal(3, 4), c=normal(3))


def choices_of(model, context, **options):
    chosen = Quant(smooth=0.0, **options)
    numbers = scheme(WeightType.INT8, Activation.AUTO, None, None)
    return activations._found(chosen, model, numbers, context).choices


def alone(choices, problem, context):
    """By brute force: a model for every operator and option."""
    feeds = list(context.data.take(slice(0, sensitivity.SAMPLES)).batches(choices.model.feeds))
    reference = list(context.runner.run(choices.model, feeds))
    return {
        (site.key, option.name): 10 ** (-Sqnr(0).check(reference, list(context.runner.run(built, feeds))).measured / 10)
        for site in problem.sites
        for option in site.options
        if option.name != FLOAT
        for built in [choices.built({site.key: option})]
    }


def test_noise_is_that_of_the_operator_quantised_alone(residual, samples):
    context = Context(OrtRunner(), samples(residual))
    choices = choices_of(residual, context)
    problem = choices.problem(None)
    found, expected = sensitivity.measured(choices, problem, context), alone(choices, problem, context)
    assert len(found) == 6  # two convolutions, a sum, a pool, a view, a product
    assert found.keys() == expected.keys()
    for pair in found:  # the exact parts of the models are fused differently, which rounds differently
        assert found[pair] == pytest.approx(expected[pair], rel=0.02)


def test_formats_and_shared_inputs_are_told_apart(build, normal, samples):
    graph = "(float[N,8] x) => (float[N,4] y) { q = MatMul(x, v) k = MatMul(x, w) y = Mul(q, k) }"
    model = build(graph, v=normal(8, 4), w=normal(8, 4) * 10.0 ** np.arange(4, dtype=np.float32))
    context = Context(OrtRunner(), samples(model))
    choices = choices_of(model, context, format=("static", "dynamic"), place="cost")
    problem = choices.problem(None)
    found, expected = sensitivity.measured(choices, problem, context), alone(choices, problem, context)
    assert len(found) == 4
    assert found == pytest.approx(expected, rel=0.02)


def test_weights_in_blocks_and_tied_ones(build, normal, samples):
    graph = "(float[N,32] x) => (float[N,32] y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, w) }"
    model = build(graph, w=normal(32, 32))
    context = Context(OrtRunner(optimize=False), samples(model))  # fused, weights are multiplied in int8
    anchors, _ = find(model, ("MatMul",), ())
    specs = weights_alone._specs(Quant(weight=WeightType.INT4), context)
    weights = weights_alone._Weights(model, tuple(anchors), specs, Form.QDQ, None)
    problem = weights.problem(None)
    found = sensitivity.measured(weights, problem, context)
    ((key, _), *_) = found
    assert found.keys() == {(key, "int4"), (key, "int8")}  # one weight, one site
    assert found[key, "int8"] < found[key, "int4"] / 100  # 16 times finer steps
    assert found[key, "int4"] == pytest.approx(alone(weights, problem, context)[key, "int4"], rel=0.5)  # the second
    # product also sees the error of the first, which here is added behind each on its own


def test_few_runs_and_two_models(residual, samples):
    class Counting:
        calls: list[int] = []

        def run(self, model, batches, taps=()):
            listed = list(batches)
            self.calls.append(len(listed))
            return OrtRunner().run(model, listed, taps)

    context = Context(Counting(), samples(residual))
    choices = choices_of(residual, context)
    Counting.calls.clear()
    sensitivity.measured(choices, choices.problem(None), context)
    assert Counting.calls == [1, 7]  # the twins once; exact, and six operators


def test_an_error_that_is_no_number_counts_infinite():
    tally = sensitivity._Tally()
    tally.add(None, {"y": np.ones(3, np.float32)})
    tally.add((1, "static"), {"y": np.array([1, np.nan, 1], np.float32)})
    assert math.isinf(tally.noise((1, "static")))
