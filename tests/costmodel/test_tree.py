"""Whole trees: roll-up, fusion priced fairly, unknown kept apart, and the paired difference the gate decides on."""

from __future__ import annotations

from pathlib import Path

import pytest

from eopt.backends import executor, target
from eopt.costmodel.tree import Situation, bindings_for, compare, price
from eopt.ir import text
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.ir.text_parse import loads

GOLDEN = Path(__file__).parents[1] / "rewrites"
H100 = target.load("nvidia-h100-sxm")

NET = """
model {"": 20}
input x: float32[batch, 16, 32, 32]
weight w: float32[32, 16, 3, 3] = normal(1)
weight v: float32[32, 1, 3, 3] = normal(2)
stem: Stem {
  a: float32[batch, 32, 30, 30] = Conv(x, w) {name: "conv", kernel_shape: [3, 3]}
  b: float32[batch, 32, 30, 30] = Relu(a)
}
depthwise: Block {
  c: float32[batch, 32, 28, 28] = Conv(b, v) {name: "depthwise", group: 32, kernel_shape: [3, 3]}
  d: float32[batch, 25088] = Flatten(c)
}
y: float32[batch, 25088] = Relu(d)
output y: float32[batch, 25088]
"""


def situation(model: Model, engine: str = "tensorrt", device=H100, batch: int = 64) -> Situation:
    symbolic = isinstance(model.feeds[0].shape[0], str)
    others = {dim: 16 for feed in model.feeds for dim in feed.shape[1:] if isinstance(dim, str)}
    return Situation(device, executor.load(engine), bindings_for(model, batch if symbolic else None, others))


def test_regions_add_up_to_the_total():
    model = loads(NET)
    priced = price(model, situation(model))
    total = priced.region(model.root)
    assert total == pytest.approx((priced.operators_j.mid, priced.operators_s.mid))
    parts = [priced.region(region) for region in model.regions() if region is not model.root]
    outside = priced.shares.get(model.producer("y").uid, (0, 0))
    assert sum(part[0] for part in parts) + outside[0] == pytest.approx(total[0])
    assert 0 < priced.launch_share < 1


def test_views_are_free_and_not_unknown():
    model = loads(NET)
    priced = price(model, situation(model, "torch"))
    assert model.producer("d").uid in priced.free
    assert priced.unknown == {}


def test_an_operator_nobody_knows_is_unknown_and_never_zero():
    model = loads(NET.replace("Relu(d)", "com.acme.Mystery(d)"))
    priced = price(model, situation(model))
    (unknown,) = priced.unknown.values()
    assert unknown.reasons == ("com.acme.Mystery has no operator specification",)
    assert model.producer("y").uid not in priced.shares


def test_what_the_executor_fuses_is_one_kernel():
    model = loads(NET)
    fused, eager = price(model, situation(model)), price(model, situation(model, "torch"))
    assert len(fused.costs) < len(eager.costs)
    assert fused.group_of(model.producer("b").uid) == "epilogue"


@pytest.mark.parametrize("name", ["gelu-div", "layer-norm", "rms-norm"])
def test_a_fusion_the_executor_does_anyway_saves_nothing_worth_a_rewrite(name):
    head, _, after = (GOLDEN / f"{name}.eopt").read_text().partition("---\n")
    before, rewritten = loads(head), loads(after)
    by_itself = compare(before, rewritten, situation(before))
    eager = compare(before, rewritten, situation(before, "torch"))
    assert by_itself.before_j == pytest.approx(by_itself.after_j, rel=0.35)
    assert eager.after_j < 0.8 * eager.before_j, "eager torch launches every operator: there the rewrite pays"


QDQ = """
model {"": 20}
input x: float32[batch, 256]
weight s: float32[] = [0.1]
weight z: int8[] = [0]
weight w: int8[256, 256] = zeros
q: int8[batch, 256] = QuantizeLinear(x, s, z)
d: float32[batch, 256] = DequantizeLinear(q, s, z)
f: float32[256, 256] = DequantizeLinear(w, s, z)
y: float32[batch, 256] = MatMul(d, f)
output y: float32[batch, 256]
"""
FLOAT = """
model {"": 20}
input x: float32[batch, 256]
weight w: float32[256, 256] = zeros
y: float32[batch, 256] = MatMul(x, w)
output y: float32[batch, 256]
"""


@pytest.mark.parametrize(
    ("device", "engine", "pays"),
    [
        ("nvidia-h100-sxm", "tensorrt", True),
        ("nvidia-h100-sxm", "onnxruntime-cuda", False),
        ("nvidia-p100-sxm2", "tensorrt", False),
        ("nvidia-h100-sxm", "torch", False),
        ("cpu-intel-xeon-ice-lake", "onnxruntime", True),
        ("cpu-intel-xeon-skylake", "onnxruntime", False),
    ],
)
def test_int8_pays_only_where_there_are_int8_kernels(device, engine, pays):
    before, after = loads(FLOAT), loads(QDQ)
    difference = compare(before, after, situation(before, engine, target.load(device), batch=8192))
    assert (difference.after_j < difference.before_j) is pays


def test_absorbed_dequantisation_hands_integers_on():
    model = loads(QDQ)
    priced = price(model, situation(model, batch=8192))
    assert model.producer("d").uid in priced.free
    assert priced.group_of(model.producer("y").uid) == "" or priced.group_of(model.producer("y").uid) == "qdq"


def test_an_unknown_among_the_changed_leaves_the_decision_open():
    before = loads(FLOAT)
    after = loads(FLOAT.replace("MatMul(x, w)", "com.acme.Magic(x, w)"))
    assert compare(before, after, situation(before)).undecided == ("Magic",)
    same = loads(FLOAT.replace("MatMul(x, w)", "com.acme.Magic(x, w)"))
    assert compare(same, same, situation(same)).undecided == ()


def test_pricing_is_computed_once_for_a_model_and_a_situation():
    model = loads(NET)
    chosen = situation(model)
    assert price(model, chosen) is price(model, chosen)


def test_dims_without_an_extent_are_named():
    model = loads(FLOAT.replace("float32[batch, 256]", "float32[batch, seq, 256]"))
    with pytest.raises(UsageError, match="--bind seq=N"):
        bindings_for(model, 1, {})
    with pytest.raises(UsageError, match="no such dim; the model has batch, seq"):
        bindings_for(model, 1, {"sqe": 4})
    assert dict(bindings_for(model, 8, {"seq": 4})) == {"batch": 8, "seq": 4}


def test_a_fixed_batch_cannot_be_changed():
    with pytest.raises(UsageError, match="fixed batch size"):
        bindings_for(loads(FLOAT.replace("batch", "4")), 8, {})


def test_every_executor_prices_every_golden_model():
    for path in GOLDEN.glob("*.eopt"):
        model = loads(path.read_text().partition("---\n")[0])
        for name in executor.names():
            device = target.load("cpu-amd-epyc-9004") if name == "onnxruntime" else H100
            priced = price(model, situation(model, name, device))
            assert priced.known, (path.stem, name)
            assert all(cost.energy_j.mid > 0 for cost in priced.known.values()), text.dumps(model)


def test_an_integer_product_takes_its_epilogue():
    tail = "p: float32[batch, 256] = MatMul(d, f)\nr: float32[batch, 256] = Relu(p)\ny: float32[batch, 256] = Gelu(r)"
    model = loads(QDQ.replace("y: float32[batch, 256] = MatMul(d, f)", tail))
    priced = price(model, situation(model))
    assert {priced.group_of(model.producer(name).uid) for name in ("p", "r", "y")} == {"qdq"}
