"""Bulk answers equal single ones, keep their order, and say what is not known; totals add up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.costmodel.explain import changed
from eopt.costmodel.learned import Learned, settled
from eopt.costmodel.prior import Prior
from eopt.costmodel.records import record
from eopt.costmodel.service import FIGURES, answer, total
from eopt.costmodel.table import table
from eopt.ir.errors import InputError, UsageError

H100, CPU = targets.load("nvidia-h100-sxm"), targets.load("cpu-amd-epyc-9004")
PRODUCT = {"op": "MatMul", "inputs": [[8, 512, 1024], [1024, 4096]], "dtype": "bfloat16"}
COLLECTIVE = {"op": "AllReduce", "inputs": [[1024]], "dtype": "bfloat16", "attrs": {"ranks": 8}}
CONV = {"op": "Conv", "inputs": [[8, 64, 56, 56], [64, 64, 3, 3]], "dtype": "float32", "attrs": {"pads": [1, 1, 1, 1]}}
MIXED = [
    {**PRODUCT, "name": "mine"},
    COLLECTIVE,
    CONV,
    {"op": "Softmax", "inputs": [[8, 16, 512, 512]], "dtype": "float32"},
    {"op": "Attention", "inputs": [[4, 16, 1, 64], [4, 16, 900, 64], [4, 16, 900, 64]], "dtype": "float16"},
    {"op": "Transpose", "inputs": [[512, 512]], "dtype": "float16", "attrs": {"perm": [1, 0]}},
    {"op": "LayerNormalization", "inputs": [[512, 512], [512], [512]], "dtype": "fp32", "count": 3},
    {"op": "MatMul", "inputs": [[64, 64], [64, 64]], "dtype": "complex64"},
]


def single(row: dict, executor: str, model: Learned) -> list[float]:
    """The network asked about one kernel after the other."""
    figures = np.zeros(len(FIGURES))
    for kernel in record(row):
        found = model.predict(table([settled(kernel, executors.load(executor))]), H100, executor)
        for place, value, spread in (
            (0, found.latency_s[0], found.latency_spread[0]),
            (3, found.energy_j[0], found.energy_spread[0]),
        ):
            figures[place : place + 3] += (value, value * np.exp(-spread), value * np.exp(spread))
    return figures.tolist()


@pytest.mark.parametrize("executor", ["torch", "vllm", "tensorrt"])
def test_answers_equal_those_of_single_kernels(learned, executor):
    rows = [row for row in MIXED if row["op"] != "AllReduce" and row["dtype"] != "complex64"]
    rows += [{**PRODUCT, "phase": "training"}]
    for row, found in zip(rows, answer(rows, H100, executor, learned), strict=True):
        # the same arithmetic in other batch sizes: float32 sums of a few dozen terms in another order
        assert [found[name] for name in FIGURES] == pytest.approx(single(row, executor, learned), rel=1e-4), row
        assert found["power_w"] == pytest.approx(found["energy_j"] / found["latency_s"])


def test_types_are_run_by_what_they_were_measured_with(learned):
    for row in (CONV, MIXED[6], PRODUCT):
        (found,) = answer([row], H100, None, learned)
        name = "vllm" if row is PRODUCT else "torch"
        assert found["latency_s"] == pytest.approx(single(row, name, learned)[0], rel=1e-4)


def test_order_and_everything_given_are_kept(learned):
    found = answer(MIXED, H100, None, learned)
    assert [{name: row[name] for name in given} for row, given in zip(found, MIXED, strict=True)] == MIXED
    assert [row["basis"] for row in found] == ["predicted", "unknown", *["predicted"] * 5, "unknown"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_is_unknown_is_null_with_reasons(learned):
    for row in (COLLECTIVE, MIXED[-1]):
        (found,) = answer([row], H100, None, learned)
        assert {found[name] for name in (*FIGURES, "power_w")} == {None}
        assert found["reasons"]


def test_an_executor_that_does_not_run_there_leaves_everything_unknown(learned):
    (found,) = answer([PRODUCT], CPU, "vllm", learned)
    assert (found["latency_s"], found["basis"]) == (None, "unknown")


def test_the_prior_answers_for_what_nobody_measured(learned):
    for model in (learned, Prior()):
        (found,) = answer([PRODUCT], CPU, None, model)
        cost = Prior().query(record(PRODUCT)[0], CPU, executors.default_for(CPU))
        assert (found["basis"], found["energy_scope"]) == ("estimated", "package")
        assert [found["latency_s"], found["energy_j_hi"]] == [cost.latency_s.mid, cost.energy_j.hi]
    (alone,) = answer([PRODUCT], H100, None, Prior())
    assert (alone["basis"], alone["energy_scope"]) == ("estimated", "board")


def test_training_is_forward_and_backward(learned):
    phases = [answer([{**PRODUCT, "phase": name}], H100, None, learned)[0] for name in ("forward", "backward")]
    (whole,) = answer([{**PRODUCT, "phase": "training"}], H100, None, learned)
    for name in FIGURES:
        assert whole[name] == pytest.approx(sum(part[name] for part in phases), rel=1e-4)


def test_a_total_runs_the_list_back_to_back(learned):
    rows = [{**PRODUCT, "count": 2}, {**COLLECTIVE, "count": 5}, MIXED[6]]
    found = answer(rows, H100, None, learned)
    whole = total(rows, found)
    for name in FIGURES:
        assert whole[name] == pytest.approx(2 * found[0][name] + 3 * found[2][name])
    assert (whole["op"], whole["unknown_count"]) == ("Total", 5)
    assert whole["power_w"] == pytest.approx(whole["energy_j"] / whole["latency_s"])
    assert whole["reasons"]


def test_a_total_of_nothing_known_is_unknown(learned):
    whole = total([COLLECTIVE], answer([COLLECTIVE], H100, None, learned))
    assert (whole["energy_j"], whole["basis"], whole["unknown_count"]) == (None, "unknown", 1)


def test_the_weakest_basis_is_that_of_the_total():
    rows = [PRODUCT, PRODUCT]
    found = [{**answer([PRODUCT], H100, None, Prior())[0], "basis": basis} for basis in ("estimated", "predicted")]
    assert total(rows, found)["basis"] == "estimated"


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", 1 << 50])
def test_counts_are_positive_integers(learned, count):
    with pytest.raises(InputError, match="line 2: count"):
        answer([PRODUCT, {**PRODUCT, "count": count}], H100, None, learned)


def test_a_malformed_query_is_named_by_its_line(learned):
    with pytest.raises(InputError, match="line 12: MatMul"):
        answer([PRODUCT, {**PRODUCT, "inputs": [[8, 8], [9, 8]]}], H100, None, learned, first_line=11)


def test_no_such_executor(learned):
    with pytest.raises(UsageError, match="no executor"):
        answer([PRODUCT], H100, "torhc", learned)


def test_no_queries(learned):
    assert answer([], H100, None, learned) == []


EXTENT = st.integers(1, 1 << 14)
PRODUCTS = st.tuples(st.integers(1, 64), EXTENT, EXTENT, EXTENT).map(
    lambda d: {"op": "MatMul", "inputs": [[d[0], d[1], d[2]], [d[2], d[3]]]}
)
ROWS = st.tuples(st.sampled_from(["Gelu", "Softmax", "RMSNormalization"]), st.integers(1, 256), EXTENT).map(
    lambda d: {"op": d[0], "inputs": [[d[1], d[2]]]}
)
HEADS = st.tuples(st.integers(1, 16), st.sampled_from([1, 128]), st.integers(1, 4096)).map(
    lambda d: {"op": "Attention", "inputs": [[d[0], 8, d[1], 64], [d[0], 8, d[2], 64], [d[0], 8, d[2], 64]]}
)


@given(
    PRODUCTS | ROWS | HEADS,
    st.sampled_from(["float32", "bfloat16", "float8_e4m3"]),
    st.sampled_from(["nvidia-h100-sxm", "nvidia-l40s", "nvidia-a100-40gb-pcie", "amd-mi210", "nvidia-v100-16gb-pcie"]),
    st.integers(0, 3),
    st.floats(0.1, 3.0),
)
def test_more_bandwidth_or_rate_is_never_slower(random_model, query, dtype, name, seed, scale):
    """For any weights: no feature holds a rate or a bandwidth, and the physics falls with both."""
    model = Learned(random_model(seed, scale))
    rows = table(record({**query, "dtype": dtype}))
    target = targets.load(name)
    faster = changed(target)
    # gaps of the sheet are filled first: estimates of them may move with the figures that are raised
    base = replace(faster["bandwidth_bytes_per_s"], bandwidth_bytes_per_s=target.bandwidth_bytes_per_s)
    seconds = model.predict(rows, base, "torch").latency_s
    for figure in ("bandwidth_bytes_per_s", "peaks"):
        assert model.predict(rows, faster[figure], "torch").latency_s <= seconds * (1 + 1e-9), figure
