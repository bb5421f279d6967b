"""Bias correction: the mean of every output channel is what it was before the weights were rounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends import target as targets
from eopt.backends.data import Dataset
from eopt.backends.ort import OrtRunner
from eopt.ir.text_parse import loads
from eopt.passes.base import Context
from eopt.passes.quant import Quant, scheme
from eopt.passes.quant.scheme import Format

CONV = """model {{"": 20}}
input x: float32[N, {channels}, {extents}]
weight w: float32[{shape}] = zeros
weight b: float32[4] = zeros
a: float32[N, 4, {unknown}] = Conv(x, w, b) {{{attrs}}}
y: float32[N, 4, {unknown}] = Exp(a)
output y: float32[N, 4, {unknown}]
"""
FOUR_BITS = 7  # of weights, so that rounding them is what goes wrong


@pytest.fixture(autouse=True)
def few_bits(monkeypatch):
    monkeypatch.setattr(scheme, "FULL_RANGE", FOUR_BITS)


def on_the_grid(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values that 8 bits hold exactly: 0 to 255, both of them in every sample. What is left is rounding of weights."""
    values = rng.integers(0, 256, shape).astype(np.float32)
    values.reshape(len(values), -1)[:, :2] = 0, 255
    return values


def run(model, data, **options):
    context = Context(OrtRunner(threads=1), data, target=targets.load("cpu-amd-epyc-9004"))
    return Quant(**options).run(model, context).model


def mean(model, data, name, axes):
    """Of a value by output channel, over all samples."""
    runs = OrtRunner(threads=1).run(model, data.batches(model.feeds, 8), [name])
    return np.concatenate([found[name] for found in runs]).astype(float).mean(axes)


def off(model, after, data, axes=None):
    """Mean error of each channel of the only product, before anything behind it is rounded; its sums in a bias too."""
    name, other = (_summed(m) for m in (model, after))
    axes = axes or tuple(range(len(model.value(name).shape) - 1))
    return np.abs(mean(after, data, other, axes) - mean(model, data, name, axes))


def _summed(model) -> str:
    (product,) = (op for op in model.leaves() if op.op in ("Conv", "Gemm", "MatMul"))
    users = model.users(product.output)
    return users[0].output if users and users[0].op in ("Add", "Sum") else product.output


@st.composite
def convolutions(draw: st.DrawFn):
    """A convolution of any geometry, with its attributes and the shape of its weight."""
    rank, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4]))
    several = lambda least, most, count=rank: draw(st.lists(st.integers(least, most), min_size=count, max_size=count))
    kernel, extents = several(1, 3), several(5, 8)
    geometry = {"strides": several(1, 3), "pads": several(0, 2, 2 * rank), "dilations": several(1, 2), "group": groups}
    return extents, (4, 4 // groups, *kernel), geometry, draw(st.integers(0, 2**16))


@settings(max_examples=40)
@given(convolutions())
def test_convolutions_of_any_geometry_keep_their_means(drawn):
    extents, shape, geometry, seed = drawn
    rng = np.random.default_rng(seed)
    unknown = ", ".join("_UV"[axis] for axis in range(1, len(extents) + 1))
    attrs = ", ".join(f"{name}: {value}" for name, value in geometry.items())
    text = {"extents": ", ".join(map(str, extents)), "shape": ", ".join(map(str, shape)), "attrs": attrs}
    model = loads(CONV.format(channels=4, unknown=unknown, **text))
    weight, bias = rng.standard_normal(shape), rng.standard_normal(4)
    model = model.with_weights({"w": weight.astype(np.float32), "b": bias.astype(np.float32)})
    data = Dataset({"x": on_the_grid(rng, 6, 4, *extents)})
    after = run(model, data, bias_correction=True)
    assert after.weights.array("x_scale") == 1.0
    # the bias is an integer of steps of the accumulator; sums of some hundred in float32 are off by 1e-3 at most
    half_a_step = after.weights.array("b_scale") / 2
    assert (off(model, after, data, (0, *range(2, 2 + len(extents)))) <= half_a_step + 1e-3).all()


PRODUCTS = {
    "gemm": ("(float[N,16] x) => (float[N,6] y) { y = Gemm(x, w, b) }", {}),
    "transposed": ("(float[N,16] x) => (float[N,6] y) { y = Gemm<transB=1>(x, w, b) }", {}),
    "add": ("(float[N,16] x) => (float[N,6] y) { p = MatMul(x, w) y = Add(b, p) }", {}),
    "sequence": ("(float[N,5,16] x) => (float[N,5,6] y) { p = MatMul(x, w) y = Add(p, b) }", {}),
    "dynamic": ("(float[N,16] x) => (float[N,6] y) { y = Gemm(x, w, b) }", {"format": (Format.DYNAMIC,)}),
}


@pytest.mark.parametrize("form", PRODUCTS)
@pytest.mark.parametrize("per_channel", [True, False])
def test_products_keep_their_means_and_lose_them_without_correction(build, normal, form, per_channel):
    graph, options = PRODUCTS[form]
    weights = {"w": normal(6, 16) if form == "transposed" else normal(16, 6), "b": normal(6)}
    model = build(graph, **weights)
    data = Dataset({"x": on_the_grid(np.random.default_rng(0), 16, *model.feeds[0].shape[1:])})
    wrong, right = (
        off(model, run(model, data, bias_correction=wanted, per_channel=per_channel, **options), data)
        for wanted in (False, True)
    )
    # E[x] is near 128, weights are off by up to 3 / 7 / 2 and 16 of them meet: some tens. Corrected: half a step of
    # the accumulator, 3 / 7 / 2, where the bias is an integer
    assert wrong.max() > 10 and right.max() < 0.25


def test_a_model_with_its_own_rounding_of_activations_gains_too(build, normal, sqnr):
    """A mean far from 0 makes the shift larger than the noise that is left."""
    model = build("(float[N,16] x) => (float[N,6] y) { y = Gemm(x, w, b) }", w=normal(16, 6), b=normal(6))
    data, others = (Dataset({"x": 3 + normal(64, 16)}) for _ in range(2))
    plain, corrected = (sqnr(model, run(model, data, bias_correction=on), others) for on in (False, True))
    assert corrected > plain + 6  # E[x]^2 = 9 goes, a variance of 1 stays: 10 dB, less what one draw of weights varies


def test_a_vector_behind_a_convolution_is_none_of_its_channels(build, normal):
    """It runs along the last axis, whatever its length."""
    graph = "(float[N,3,6,6] x) => (float[N,4,4,4] y) { a = Conv(x, w) y = Add(a, c) }"
    model = build(graph, w=normal(4, 3, 3, 3), c=normal(4))
    data = Dataset({"x": on_the_grid(np.random.default_rng(0), 8, 3, 6, 6)})
    after = run(model, data, bias_correction=True)
    assert after.leaves()[-1].inputs[1] == "c"


@pytest.mark.parametrize(
    ("graph", "shape"),
    [
        ("(float[8,8] x) => (float[8,8] y) { y = Gemm<transA=1>(x, w, b) }", (8, 8)),
        ('(float[N,8,6,6] x) => (float[N,8,6,6] y) { y = Conv<auto_pad="SAME_UPPER">(x, w, b) }', (8, 8, 3, 3)),
    ],
)
def test_where_means_are_not_known_biases_stay(build, normal, graph, shape):
    model = build(graph, w=normal(*shape), b=normal(8))
    data = Dataset({"x": on_the_grid(np.random.default_rng(0), 8, *model.feeds[0].shape[1:])})
    plain, corrected = (run(model, data, bias_correction=wanted) for wanted in (False, True))
    np.testing.assert_array_equal(corrected.weights.array("b_q"), plain.weights.array("b_q"))


def test_a_bias_that_two_share_is_corrected_for_each(build, normal):
    graph = "(float[N,8] x) => (float[N,8] y) { h = Gemm(x, v, b) t = Tanh(h) y = Gemm(t, w, b) }"
    model = build(graph, v=normal(8, 8), w=normal(8, 8), b=normal(8))
    after = run(model, Dataset({"x": 1 + normal(16, 8)}), bias_correction=True)
    first, second = (op for op in after.leaves() if op.op == "Gemm")
    assert first.inputs[2] != second.inputs[2]
