"""SmoothQuant: the same function before quantisation, the factors of the paper, and less noise after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir.text_parse import loads
from eopt.ir.verify import verify
from eopt.passes.base import Context
from eopt.passes.quant import candidates, smooth

LAYER = """(float[N,L,8] x) => (float[N,L,6] y) { n = LayerNormalization(x, g, c) y = MatMul(n, w) }"""
RESIDUAL = """(float[N,L,8] x) => (float[N,L,8] y) { n = LayerNormalization(x, g, c) p = MatMul(n, w) y = Add(p, n) }"""
TWO = """(float[N,L,8] x) => (float[N,L,6] y) {
  n = LayerNormalization(x, g, c) p = MatMul(n, v) q = MatMul(n, w) y = Add(p, q)
}"""
TEXT = """model {{"": {opset}}}
input x: float32[N, 8]
weight g: float32[8] = normal(1)
weight c: float32[8] = normal(2)
weight w: float32[8, 8] = normal(3)
n: float32[N, 8] = {norm} {{axis: -1}}
y: float32[N, 8] = {product}
output y: float32[N, 8]
"""


def smoothed(model, data, alpha=0.5):
    anchors, _ = candidates.find(model, ("Gemm", "MatMul"), ())
    context = Context(OrtRunner(threads=1), data)
    after = smooth.smoothed(model, smooth.groups(model, anchors), data, context, alpha)
    verify(after)
    return after


def outlying(normal, channel=2, by=100.0):
    """Weights of a normalisation with one channel that is much larger than the others."""
    scale = np.ones(8, np.float32) + 0.1 * normal(8)
    scale[channel] *= by
    return {"g": scale, "c": 0.1 * normal(8), "w": normal(8, 6)}


@pytest.fixture
def data(normal):
    return Dataset({"x": normal(16, 4, 8)})


@settings(max_examples=25)
@given(st.integers(0, 2**16), st.floats(0.1, 0.9), st.floats(-3, 3))
def test_the_function_stays_the_same(seed: int, alpha: float, decades: float):
    """Factors of up to 1e4 either way are float32 roundings of scale and weight: a few eps (-138 dB each)."""
    rng = np.random.default_rng(seed)
    model = loads(TEXT.format(opset=20, norm="LayerNormalization(x, g, c)", product="MatMul(n, w)"))
    weight = (rng.standard_normal((8, 8)) * 10 ** rng.uniform(-abs(decades), abs(decades), (8, 1))).astype(np.float32)
    model = model.with_weights({"w": weight, "g": rng.standard_normal(8).astype(np.float32)})
    data = Dataset({"x": rng.standard_normal((8, 8)).astype(np.float32)})
    after = smoothed(model, data, alpha)
    assert [op.op for op in after.leaves()] == ["LayerNormalization", "MatMul"]
    assert not np.array_equal(after.weights.array(after.leaves()[-1].inputs[1]), weight)
    (expected,), (actual,) = (list(OrtRunner(threads=1).run(m, data.batches(model.feeds, 8))) for m in (model, after))
    error = np.square(expected["y"].astype(float) - actual["y"]).sum()
    assert error <= 1e-10 * np.square(expected["y"].astype(float)).sum()  # 100 dB


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
def test_the_factors_are_those_of_the_paper(build, normal, data, alpha):
    """`s_j = max|x_j|^a / max|W_j|^(1-a)`, arXiv:2211.10438, equation 4; a factor common to all cancels."""
    weights = outlying(normal)
    model = build(LAYER, **weights)
    after = smoothed(model, data, alpha)
    (run,) = list(OrtRunner(threads=1).run(model, data.batches(model.feeds, 16), ["n"]))
    expected = np.abs(run["n"]).max((0, 1)) ** alpha / np.abs(weights["w"]).max(1) ** (1 - alpha)
    product = after.leaves()[-1]
    found = (after.weights.array(product.inputs[1]) / weights["w"]).mean(1)
    np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=1e-5)  # float32
    norm = after.producer(product.inputs[0])
    np.testing.assert_allclose(weights["g"] / after.weights.array(norm.inputs[1]), found, rtol=1e-5)


def test_outliers_cost_fewer_decibels(build, normal, quantise, sqnr, data):
    model = build(LAYER, **outlying(normal))
    plain, even = (sqnr(model, quantise(model, data, smooth=share).model, data) for share in (0.0, 0.5))
    # one scale serves a channel 100 times the others: their rounding errors are what is left. Evened out, the ranges
    # of x and of W both have a spread of 10, so that steps of x are smaller by an order of magnitude relative to them
    assert even > plain + 3


def test_a_residual_keeps_the_tensor_as_it_was(build, normal, data, sqnr):
    weights = {**outlying(normal), "w": normal(8, 8)}
    model = build(RESIDUAL, **weights)
    after = smoothed(model, data)
    assert [op.op for op in after.leaves()].count("LayerNormalization") == 2
    (add,) = (op for op in after.leaves() if op.op == "Add")
    assert add.inputs[1] == "n" and after.producer("n").inputs[1] == "g"
    assert sqnr(model, after, data) > 100  # see above


def test_products_alone_leave_one_normalisation_and_share_its_factors(build, normal, data, sqnr):
    model = build(TWO, **outlying(normal), v=normal(8, 6))
    after = smoothed(model, data)
    assert [op.op for op in after.leaves()].count("LayerNormalization") == 1
    assert len({op.inputs[0] for op in after.leaves() if op.op == "MatMul"}) == 1
    assert not {"g", "c", "v", "w"} & set(after.weights)
    assert sqnr(model, after, data) > 100


@pytest.mark.parametrize(
    "graph",
    [
        TWO.replace("v)", "w)"),  # one weight, twice behind the same normalisation
        "(float[N,L,8] x) => (float[N,L,8] y) { n = LayerNormalization(x, g, c) h = MatMul(n, w) y = MatMul(h, w) }",
        "(float[N,L,8] x, float[8] g2) => (float[N,L,6] y) { n = LayerNormalization(x, g2, c) y = MatMul(n, w) }",
        "(float[N,4,8] x) => (float[N,4,6] y) { n = LayerNormalization<axis=1>(x, g, c) y = MatMul(n, w) }",
    ],
)
def test_weights_that_others_read_and_scales_of_another_form_stay(build, normal, graph):
    shape = (4, 8) if "axis=1" in graph else (8,)
    width = 8 if "MatMul(h" in graph else 6
    model = build(graph, g=np.ones(shape, np.float32), c=np.zeros(shape, np.float32), w=normal(8, width))
    anchors, _ = candidates.find(model, ("MatMul",), ())
    assert smooth.groups(model, anchors) == []


@pytest.mark.parametrize(
    ("norm", "product", "opset"),
    [
        ("RMSNormalization(x, g)", "MatMul(n, w)", 23),  # no bias
        ("LayerNormalization(x, g, c)", "Gemm(n, w, c) {transB: 1}", 20),
        ("LayerNormalization(x, g)", "Gemm(n, w)", 20),
    ],
)
def test_other_forms(normal, sqnr, norm, product, opset):
    model = loads(TEXT.format(opset=opset, norm=norm, product=product))
    data = Dataset({"x": normal(16, 8)})
    after = smoothed(model, data)
    assert {"w_smooth", "g_smooth"} <= set(after.weights) and "w" not in after.weights
    assert sqnr(model, after, data) > 100


def test_channels_of_zeros_keep_the_factor_one(build, normal, data, sqnr):
    weights = outlying(normal)
    weights["g"][3] = weights["c"][3] = 0.0  # x is never anything else there
    weights["w"][5] = 0.0
    model = build(LAYER, **weights)
    after = smoothed(model, data)
    changed = after.weights.array("w_smooth")
    np.testing.assert_array_equal(changed[3], weights["w"][3])
    assert not changed[5].any() and np.isfinite(after.weights.array("g_smooth")).all()
    assert sqnr(model, after, data) > 100


def test_activations_that_are_not_finite_move_nothing(build, normal, data):
    data.arrays["x"][0, 0, 0] = np.nan
    model = build(LAYER, **outlying(normal))
    after = smoothed(model, data)
    assert [op.inputs for op in after.leaves()] == [op.inputs for op in model.leaves()]
