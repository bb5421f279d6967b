"""A whole model is not the sum of its kernels: the head in a release, in a cost model and in a priced tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from immutables import Map

from eopt.backends import executor, target
from eopt.costmodel.artifact import Artifact
from eopt.costmodel.learned import Learned
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import WholeCostModel
from eopt.costmodel.tree import Situation, price
from eopt.costmodel.whole_fit import UNTRIED, WholeFit
from eopt.costmodel.whole_head import PRIOR
from eopt.costmodel.wholes import Wholes, covers, matched, read
from eopt.ir.text_parse import loads

A100 = target.load("nvidia-a100-40gb-sxm")
NET = """
model {"": 20}
input x: float16[64, 1024]
weight w: float16[1024, 1024] = normal(1)
a: float16[64, 1024] = MatMul(x, w)
y: float16[64, 1024] = Relu(a)
output y: float16[64, 1024]
"""
UNKNOWN = NET.replace("Relu(a)", "Relu(b)").replace(
    "y: float16[64, 1024] =", "b: float16[64, 1024] = mine.Odd(a)\ny: float16[64, 1024] =", 1
)


@pytest.fixture
def model(random_model: Callable[[int, float], Artifact]) -> Learned:
    return Learned(random_model(0, 1.0))


def situation(model: object, engine: str = "torch", **changes: object) -> Situation:
    return Situation(A100, executor.load(engine), Map(), model, **changes)  # type: ignore[arg-type]


def wholes(devices: tuple[str, ...] = ("nvidia-a40", "nvidia-t4", "nvidia-v100-32gb-pcie")) -> Wholes:
    kinds = [("MatMul", [[512, 1024], [1024, 1024]], 3), ("Relu", [[512, 1024]], 6)]
    operators = pd.DataFrame(
        [
            {"source": "zeus", "workload": "net", "op": op, "inputs": inputs, "dtype": "float16", "weight_dtype": None,
             "math": None, "scale": None, "attrs": "", "phase": "forward", "count": times}
            for op, inputs, times in kinds
        ]
    )  # fmt: skip
    row = {
        "source": "zeus", "level": "model", "workload": "net", "phase": "forward", "dtype": None,
        "weight_dtype": None, "library": None, "batch": 8, "attrs": "", "executor": "torch", "latency_s": 1e-3,
        "energy_j": 0.1, "clock_hz": np.nan, "power_cap_w": np.nan, "noisy": False,
    }  # fmt: skip
    return matched(pd.DataFrame([{**row, "device": name} for name in devices]), operators)[0]


def test_what_the_whole_takes_is_the_total_and_the_sum_stays_visible(model):
    priced = price(loads(NET), situation(model))
    assert priced.whole is not None
    assert priced.energy_j == priced.whole.energy_j and priced.latency_s == priced.whole.latency_s
    assert priced.operators_j.mid == pytest.approx(sum(cost.energy_j.mid for cost in priced.known.values()))
    assert priced.energy_j.hi / priced.energy_j.mid == pytest.approx(priced.energy_j.mid / priced.energy_j.lo)


def test_without_a_head_without_a_network_or_with_an_unknown_kernel_there_is_only_the_sum(model):
    net = loads(NET)
    for other in (Prior(), Learned(replace(model.model, head=None))):
        assert price(net, situation(other)).whole is None
    cpu = replace(situation(model, "onnxruntime"), target=target.load("cpu-intel-xeon-ice-lake"))
    assert price(net, cpu).whole is None
    partly = price(loads(UNKNOWN), situation(model))
    assert partly.unknown and partly.whole is None and partly.energy_j == partly.operators_j


def test_a_step_of_training_is_a_whole_with_its_backward_pass_and_update(model):
    forward, step = (price(loads(NET), situation(model, phase=phase)).whole for phase in ("forward", "training"))
    assert forward is not None and step is not None
    assert step.latency_s.mid > 1.5 * forward.latency_s.mid


def test_a_captured_graph_does_not_wait_for_the_host(model):
    assert isinstance(model, WholeCostModel) and not isinstance(Prior(), WholeCostModel)
    hosted, captured = (
        price(loads(NET), replace(situation(model), executor=engine)).whole
        for engine in (executor.load("torch"), executor.load("torch").in_graph())
    )
    assert hosted is not None and captured is not None
    assert captured.latency_s.mid < hosted.latency_s.mid


def test_errors_are_those_of_generations_left_out(random_model):
    network, found = random_model(0, 1.0).network, WholeFit(wholes())
    assert found.spread() == {"latency": UNTRIED, "energy": UNTRIED} and "latency" not in found.about()
    found.leave_out(network, ["hopper"])  # none of these
    assert "latency" not in found.about()
    for name in ("ampere", "turing", "volta"):
        found.leave_out(network, [name])
    assert found.about()["energy"]["devices"] == 3
    assert all(half > 0 for half in found.spread().values())
    assert np.isfinite(found.head(network).values).all()


def test_models_with_kernels_that_were_not_learned_are_left_alone(random_model):
    made = random_model(0, 1.0).network
    blind = replace(made, weights={name: array for name, array in made.weights.items() if "/gemm/" not in name})
    assert covers(made, wholes()).all() and not covers(blind, wholes()).any()
    fit = WholeFit(wholes())
    fit.leave_out(blind, ["turing"])
    assert fit.head(blind) == PRIOR and "latency" not in fit.about()


def test_a_table_without_lists_of_operators_has_no_whole_models(tmp_path):
    assert read(tmp_path) is None
