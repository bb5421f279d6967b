"""What can be quantised, and the reason for everything that cannot."""

from __future__ import annotations

import numpy as np
import pytest

from eopt.passes.quant import candidates

ALL = ("Conv", "Gemm", "MatMul")


def reasons(model, exclude=()):
    _, refused = candidates.find(model, ALL, exclude)
    return [change.reason for change in refused]


@pytest.mark.parametrize(
    ("graph", "shape", "axis", "channels"),
    [
        ("(float[N,3,8,8] x) => (float[N,4,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, w) }", (4, 3, 3, 3), 0, 4),
        ("(float[N,5] x) => (float[N,4] y) { y = Gemm(x, w) }", (5, 4), 1, 4),
        ("(float[N,5] x) => (float[N,4] y) { y = Gemm<transB=1>(x, w) }", (4, 5), 0, 4),
        ("(float[N,7,5] x) => (float[N,7,4] y) { y = MatMul(x, w) }", (5, 4), 1, 4),
        ("(float[2,7,5] x) => (float[2,7,4] y) { y = MatMul(x, w) }", (2, 5, 4), None, 4),
    ],
)
def test_the_channel_axis_is_the_output_axis(build, normal, graph, shape, axis, channels):
    (anchor,), refused = candidates.find(build(graph, w=normal(*shape)), ALL, ())
    assert (anchor.axis, anchor.channels, anchor.data, anchor.weight) == (axis, channels, "x", "w")
    assert not refused


@pytest.mark.parametrize(
    ("graph", "weights", "reason"),
    [
        ("(float[N,4] x, float[4,3] w) => (float[N,3] y) { y = MatMul(x, w) }", {}, "computed"),
        ("(float[4,N] x) => (float[3,N] y) { y = MatMul(w, x) }", {"w": (3, 4)}, "left operand"),
        ("(float[N,4] x) => (float[N] y) { y = MatMul(x, w) }", {"w": (4,)}, "vector"),
        ("(float[N,4] x) => (float[N,3] y) { y = Gemm<alpha=0.5>(x, w) }", {"w": (4, 3)}, "alpha or beta"),
        ("(float[2,4] x) => (float[2,3] y) { y = Gemm(x, w, b) }", {"w": (4, 3), "b": (2, 3)}, "bias has shape [2, 3]"),
        ("(float[N,4] x, float[3] b) => (float[N,3] y) { y = Gemm(x, w, b) }", {"w": (4, 3)}, "no constant"),
        ("(float[N,4] z) => (float[2,3] y) { y = Gemm(x, w) }", {"x": (2, 4), "w": (4, 3)}, "simplify folds it"),
    ],
)
def test_a_reason_for_every_refusal(build, normal, graph, weights, reason):
    model = build(graph, **{name: normal(*shape) for name, shape in weights.items()})
    (found,) = reasons(model)
    assert reason in found


def test_weights_that_are_not_float32(build):
    half = build("(float16[N,4] x) => (float16[N,3] y) { y = MatMul(x, w) }", w=np.ones((4, 3), np.float16))
    assert reasons(half) == ["it computes in float16; quantise the float32 model"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_weights(build, normal, bad):
    weight = normal(4, 3)
    weight[1, 1] = bad
    assert "NaN or infinity" in reasons(build("(float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", w=weight))[0]


def test_exclude_by_path_name_or_both(build, normal):
    graph = (
        '(float[N,4] x) => (float[N,4] y) { ["/head/fc/first"] h = MatMul(x, v) ["/body/fc/last"] y = MatMul(h, w) }'
    )
    model = build(graph, v=normal(4, 4), w=normal(4, 4))
    for pattern in ("head*", "*first", "head/fc/*"):
        anchors, refused = candidates.find(model, ALL, (pattern,))
        assert [anchor.weight for anchor in anchors] == ["w"]
        assert refused[0].reason == f"excluded by {pattern!r}"


def test_other_types_are_not_mentioned(build, normal):
    model = build("(float[N,4] x) => (float[N,3] y) { h = Relu(x) y = MatMul(h, w) }", w=normal(4, 3))
    assert candidates.find(model, ("Conv",), ()) == ([], [])
