"""`eopt explain`: joules add up, what is explained is what is answered, and only one figure changes at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp
from pathlib import Path

import numpy as np
import pytest

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.costmodel.embedding import device
from eopt.costmodel.explain import STEP, changed, explain_query, nearest
from eopt.costmodel.learned import Learned, current
from eopt.costmodel.prior import Prior
from eopt.costmodel.records import record
from eopt.tools.cli import main
from eopt.tools.predict import predict_model

VIT = Path(__file__).parents[2] / "examples/vit/model.onnx"
SINGLE = ("--op", "MatMul", "--inputs", "8x512x1024,1024x4096", "--dtype", "bfloat16")
H100 = "nvidia-h100-sxm"
USAGE = 2


pytestmark = pytest.mark.usefixtures("small_model_in_use")


def told(capsys, *arguments: object) -> list[dict]:
    assert main(["explain", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_joules_add_up_and_are_those_of_the_query(capsys):
    (found,) = told(capsys, "--target", H100, *SINGLE)
    assert set(found["joules"]) == {"static", "flops", "dram", "llc", "launch", "correction"}
    assert sum(found["joules"].values()) == pytest.approx(found["energy_j"])
    assert main(["query", "--target", H100, *SINGLE, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for name in ("latency_s", "latency_s_lo", "energy_j", "energy_j_hi", "basis", "reasons"):
        assert found[name] == answer[name], name


def test_the_correction_is_the_network_over_the_prior(capsys):
    (found,) = told(capsys, "--target", H100, *SINGLE)
    assert found["energy_j"] == pytest.approx(found["prior"]["energy_j"] * exp(found["correction_log"]["energy"]))
    assert found["latency_s"] == pytest.approx(found["prior"]["latency_s"] * exp(found["correction_log"]["latency"]))
    assert found["joules"]["correction"] == pytest.approx(found["energy_j"] - found["prior"]["energy_j"])


def test_the_prior_needs_no_correction_and_no_neighbours(capsys):
    (found,) = told(capsys, "--target", "cpu-amd-epyc-9004", *SINGLE)
    assert (found["basis"], found["energy_scope"], found["nearest"]) == ("estimated", "package", [])
    assert found["joules"]["correction"] == 0
    assert found["correction_log"] == {"latency": 0, "energy": 0}


def test_the_nearest_devices():
    model = current()
    assert isinstance(model, Learned)
    listed = nearest(model, targets.load("nvidia-h200-sxm"))
    assert [away for _, away in listed] == sorted(away for _, away in listed)
    # the list is by the sheet alone, and so is the distance of a device that was not measured
    assert listed[0] == tuple(reversed(model.distance(device(targets.load("nvidia-h200-sxm")))))
    assert nearest(model, targets.load(H100))[0] == (H100, pytest.approx(0, abs=1e-3))


def test_what_the_sheet_leaves_out_is_named(capsys):
    (found,) = told(capsys, "--target", H100, *SINGLE)
    assert all(factor > 1 for factor in found["imputed"].values())
    assert {name for name in found["imputed"] if "." not in name} <= {reason.split()[0] for reason in found["reasons"]}


@pytest.mark.parametrize("name", [H100, "amd-mi300x", "nvidia-l4"])
def test_one_figure_changes_at_a_time(name):
    """The network reads the sheet it would read otherwise, but for the figure itself."""
    target = targets.load(name)
    plain, others = device(target), {figure: device(sheet) for figure, sheet in changed(target).items()}
    for figure in ("bandwidth_bytes_per_s", "peaks"):
        assert np.allclose(others[figure].features, plain.features)
    for figure in ("cores", "llc_bytes", "tdp_w", "clock_hz"):
        assert (~np.isclose(others[figure].features, plain.features)).sum() == 1, figure
    assert others["bandwidth_bytes_per_s"].bandwidth == STEP * plain.bandwidth
    assert others["peaks"].rates["float16"][0] == STEP * plain.rates["float16"][0]
    assert others["tdp_w"].idle_w == plain.idle_w
    assert {other.name for other in others.values()} == {name}


def test_more_bandwidth_or_rate_is_never_slower(capsys):
    (found,) = told(capsys, "--target", H100, *SINGLE)
    assert found["elasticities"]["bandwidth_bytes_per_s"]["latency"] <= 0
    assert found["elasticities"]["peaks"]["latency"] <= 0


def test_what_bounds_a_kernel_of_the_prior():
    """The roofline by hand: a product that is bound by arithmetic, elementwise work that is bound by memory."""
    target, engine = targets.load(H100), executors.load("torch")
    product = record({"op": "MatMul", "inputs": [[8192, 8192], [8192, 8192]], "dtype": "float16"})
    addition = record({"op": "Add", "inputs": [[1 << 16, 1 << 12]] * 2, "dtype": "float16"})
    first, second = explain_query([*product, *addition], ["torch"] * 2, target, engine, Prior())
    # launch is under a percent of either, and the power limit stretches the product
    assert second.elasticities["bandwidth_bytes_per_s"]["latency"] == pytest.approx(1 / STEP - 1, abs=0.01)
    assert first.elasticities["bandwidth_bytes_per_s"]["latency"] == 0
    assert first.elasticities["peaks"]["latency"] < 0 == second.elasticities["peaks"]["latency"]
    assert first.prior["compute_s"] > first.prior["memory_s"]


def test_training_is_explained_kernel_by_kernel(capsys):
    assert len(told(capsys, "--target", H100, *SINGLE, "--phase", "training")) == 3


def test_a_node_is_the_kernel_it_is_fused_into(capsys):
    by_name = told(capsys, VIT, "node_linear", "--target", H100, "--batch", 8)
    by_value = told(capsys, VIT, "linear", "--target", H100, "--batch", 8)
    assert by_name == by_value
    assert "node_MatMul_7 +1 fused (epilogue)" in by_name[0]["kernel"]
    assert by_name[0]["op"] == "MatMul"


@pytest.mark.parametrize("executor", ["tensorrt", "torch"])
def test_a_node_costs_what_predict_says(capsys, executor):
    on = ("--target", H100, "--executor", executor, "--batch", 8)
    (found,) = told(capsys, VIT, "node_conv2d", *on)
    (priced, _) = predict_model(VIT, H100, executor=executor, batch=8)
    cost = next(priced.costs[op.uid] for op in priced.model.leaves() if op.name == "node_conv2d")
    assert (found["latency_s"], found["energy_j_hi"]) == (cost.latency_s.mid, cost.energy_j.hi)
    assert sum(found["joules"].values()) == pytest.approx(found["energy_j"])


def test_a_module_is_all_kernels_below_it(capsys):
    found = told(capsys, VIT, "blocks/0/mlp", "--target", H100)
    assert len(found) == 2
    assert all("blocks/0/mlp" in kernel["kernel"] for kernel in found)


def test_kernels_that_are_alike_are_explained_once(capsys):
    found = told(capsys, VIT, "blocks", "--target", H100)
    assert any("alike" in kernel["kernel"] for kernel in found)


def test_for_people(capsys):
    assert main(["explain", "--target", H100, *SINGLE]) == 0
    text = capsys.readouterr().out
    for part in ("learned correction", "static power", "network over prior", "nearest devices", "memory bandwidth"):
        assert part in text, part
    assert main(["explain", "--target", "cpu-amd-epyc-9004", *SINGLE]) == 0
    assert "network" not in capsys.readouterr().out


def test_unknown_is_said(capsys):
    sheet = replace(targets.load(H100), matrix={}, vector={"float32": 1e12})
    (kernel,) = record({"op": "MatMul", "inputs": [[8, 8], [8, 8]], "dtype": "complex64"})
    (found,) = explain_query([kernel], ["torch"], sheet, executors.load("torch"), current())
    assert (found.figures["energy_j"], found.basis, found.elasticities) == (None, "unknown", {})
    assert found.reasons
    assert main(["explain", "--target", H100, *SINGLE[:4], "--dtype", "complex64"]) == 0
    assert "unknown: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (SINGLE, "needs a target"),
        (("--target", H100), "MODEL NODE, or --op"),
        ((VIT, "--target", H100), "MODEL NODE, or --op"),
        ((VIT, "linear", "--target", H100, *SINGLE), "MODEL NODE, or --op"),
        ((VIT, "--target", H100, *SINGLE), "go with a NODE"),
        ((VIT, "nowhere", "--target", H100), "no node or module 'nowhere'"),
        ((VIT, "val_0", "--target", H100), "executes nothing"),
        (("--target", H100, "--op", "AllReduce", "--inputs", "8", "--dtype", "float16"), "collectives"),
    ],
)
def test_wrong_command_lines(capsys, arguments, said):
    assert main(["explain", *map(str, arguments)]) == USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
