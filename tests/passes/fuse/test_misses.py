"""Where a fusion must not happen: the golden models with one thing changed, and the reason a person reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from eopt.backends.ort import OrtRunner
from eopt.ir.text_parse import loads
from eopt.passes.base import Context
from eopt.passes.fuse import RULES
from eopt.passes.pipeline import Pipeline
from eopt.passes.rewrite import explain

GOLDEN = Path(__file__).parents[2] / "rewrites"

CASES = [
    ("conv-batchnorm", "output y:", "output c: float32[batch, 4, 6, 6]\noutput y:", "'c' is a graph output"),
    ("conv-batchnorm", "[1.0, 2.0, 0.5, 4.0]", "[1.0, 2.0, -0.5, 4.0]", "variance is negative"),
    ("conv-batchnorm", "y: float32[batch, 4, 6, 6] = Relu(n)", "y: float32[batch, 4, 6, 6] = Add(n, c)", "has 2 users"),
    ("matmul-add", "weight b: float32[4] = normal(2)", "input b: float32[4]", "'b' is no constant"),
    ("matmul-add", "weight b: float32[4]", "weight b: float32[1]", "the bias has shape (1,), not (4,)"),
    ("matmul-add", "input x: float32[batch, 8]", "input x: float32[2, batch, 8]", "Gemm takes matrices"),
    ("gelu-div", "[1.4142135381698608]", "[1.5]", "is 1.5, not 1.41421"),
    ("gelu-div", "one: float32[] = [1.0]", "one: float32[] = [2.0]", "2 is added, not 1"),
    ("gelu-div", "half: float32[] = [0.5]", "half: float32[] = [0.25]", "is neither x nor 1/2"),
    ("gelu-div", "output y:", "output b: float32[batch, 8]\noutput y:", "'b' is a graph output"),
    ("gelu-tanh", "[0.7978845834732056]", "[0.9]", "the factor is 0.9, not sqrt(2/pi)"),
    ("gelu-tanh", "[0.044714998453855515]", "[0.05]", "the cubic coefficient is 0.05"),
    ("gelu-tanh", "three: float32[] = [3.0]", "three: float32[] = [2.0]", "is 2, not 3"),
    ("layer-norm", "axes: int64[1] = [-1]", "axes: int64[1] = [1]", "over axes [1], not the last"),
    ("layer-norm", "two: float32[] = [2.0]", "two: float32[] = [3.0]", "is 3, not 2"),
    ("layer-norm", "[9.999999747378752e-06]", "[1.0]", "1 is no small constant"),
    (
        "layer-norm",
        "d: float32[batch, 4, 8] = Div(c, r)",
        "d: float32[batch, 4, 8] = Div(x, r)",
        "divides another value",
    ),
    ("rms-norm", "axes: int64[1] = [-1]", "axes: int64[1] = [0]", "over axes [0], not the last"),
    ("rms-norm", "n: float32[batch, 4, 8] = Mul(x, i)", "n: float32[batch, 4, 8] = Mul(s, i)", "has 2 users, not 1"),
    ("attention", "{perm: [0, 1, 3, 2]}", "{perm: [0, 1, 2, 3]}", "transposed otherwise"),
    ("attention", "Softmax(m) {axis: -1}", "Softmax(m) {axis: 1}", "not over the keys"),
    ("attention", "output y:", "output w: float32[batch, 2, 5, 6]\noutput y:", "'w' is a graph output"),
    ("attention-torch", "Where(n, zero, w)", "Where(n, minus, w)", "the guard does not put 0"),
]


@pytest.mark.parametrize(("name", "old", "new", "reason"), CASES)
def test_the_rule_misses_with_a_reason(name, old, new, reason):
    head = (GOLDEN / f"{name}.eopt").read_text().partition("---\n")[0]
    assert old in head
    model = loads(head.replace(old, new))
    rule = RULES[next(key for key in sorted(RULES, key=len, reverse=True) if name.startswith(key))]
    (anchor,) = [op for op in model.leaves() if rule.anchored_at(op)]
    miss = explain(model, rule, anchor)
    assert miss is not None
    assert reason in miss.reason
    outcome = Pipeline.parse(f"fuse{{only={rule.name}}}").run(model, Context(OrtRunner()))
    assert outcome.model.leaves() == model.leaves()


def test_every_rule_has_a_golden_file():
    stems = [path.stem for path in GOLDEN.glob("*.eopt")]
    assert all(any(stem.startswith(name) for stem in stems) for name in RULES)
