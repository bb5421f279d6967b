"""Whole models: sums of kernels, the head between them and what is measured, and matching to measurements."""

import json

import numpy as np
import pandas as pd
import pytest

from eopt.backends import target as targets
from eopt.costmodel import whole_head, whole_tables
from eopt.costmodel.artifact import shipped
from eopt.costmodel.whole_head import NAMES, PRIOR, Head, Measured
from eopt.costmodel.whole_sum import CAUSES, PARTS, QUANTISERS, Sums, stacked, summed
from eopt.costmodel.wholes import matched, workload
from eopt.ir.errors import InputError


def _operators(count: int = 3) -> pd.DataFrame:
    kinds = [("MatMul", [[512, 1024], [1024, 1024]], count), ("Relu", [[512, 1024]], 2 * count)]
    return pd.DataFrame(
        [
            {"source": "zeus", "workload": "net", "op": op, "inputs": inputs, "dtype": "float16", "weight_dtype": None,
             "math": None, "scale": None, "attrs": "", "phase": "forward", "count": times}
            for op, inputs, times in kinds
        ]
    )  # fmt: skip


def _sums(rows: int, seed: int = 0) -> Sums:
    rng = np.random.default_rng(seed)
    tdp_w = rng.uniform(70, 700, rows)
    parts = np.exp(rng.normal(-8, 1.5, (rows, len(PARTS)))) * (rng.random((rows, len(PARTS))) < 0.5)
    parts[:, 0] += 1e-4
    causes = 0.05 * tdp_w[:, None] * parts.sum(1)[:, None] * rng.random((rows, len(CAUSES)))
    launches, quantised = rng.integers(50, 3000, rows).astype(float), np.zeros((rows, len(QUANTISERS)))
    return Sums(
        parts, launches, quantised, causes, 0.1 * tdp_w, tdp_w, np.ones(rows), np.zeros(rows), np.ones(rows)
    )  # fmt: skip


def test_sums_add_up() -> None:
    network, target = shipped().network, targets.load("nvidia-a100-40gb-sxm")
    once, thrice = (
        summed(network, work.kernels, work.counts, target)
        for work in (workload(_operators(1)), workload(_operators(3)))
    )
    assert thrice.launches[0] == 9
    for name in ("parts", "causes"):
        np.testing.assert_allclose(getattr(thrice, name), 3 * getattr(once, name), rtol=1e-12)
    assert once.parts[0, PARTS.index("narrow product")] > 0
    assert once.parts[0, PARTS.index("wide product")] == 0
    assert len(stacked([once, thrice])) == 2


def test_energy_is_power_times_latency_and_given_its_own_time_power_is_the_same() -> None:
    sums = _sums(40)
    found = whole_head.apply(PRIOR, sums)
    np.testing.assert_allclose(found["energy_j"], found["power_w"] * found["latency_s"])
    np.testing.assert_allclose(whole_head.power(PRIOR, sums, found["latency_s"]), found["power_w"])


def test_power_stays_below_the_limit_and_above_idle() -> None:
    sums = _sums(200)
    watts = whole_head.power(Head(np.full(len(NAMES), 2.0)), sums, np.full(200, 1e-4))
    assert (watts <= sums.tdp_w).all()
    assert (watts > 0.9 * sums.idle_w).all()


def test_quicker_kernels_never_make_a_model_slower() -> None:
    rng = np.random.default_rng(1)
    sums = _sums(50)
    for _ in range(20):
        head = Head(rng.normal(0, 2, len(NAMES)))
        quicker = Sums(
            sums.parts * rng.random(sums.parts.shape),
            *(getattr(sums, n) for n in Sums.__dataclass_fields__ if n != "parts"),
        )
        assert (whole_head.latency(head, quicker) <= whole_head.latency(head, sums) * (1 + 1e-12)).all()


def test_fit_recovers_what_was_planted() -> None:
    planted = Head(np.zeros(len(NAMES)))
    for name, value in (("overall", 0.4), ("launch", 1.0), ("energy", 0.8)):
        planted.values[NAMES.index(name)] = value
    sums = _sums(3000)
    truth = whole_head.apply(planted, sums)
    measured = Measured(truth["latency_s"], truth["energy_j"], np.arange(3000))
    found = whole_head.fit(sums, measured)
    # 3000 devices outweigh the penalties, which are those of the dozen there are
    for name in ("overall", "launch", "energy"):
        assert found[name] == pytest.approx(planted[name], abs=0.1)
    np.testing.assert_allclose(whole_head.latency(found, sums), truth["latency_s"], rtol=0.05)


def test_fit_without_rows_is_the_prior_and_unread_values_pull_nowhere() -> None:
    sums = _sums(5)
    nothing = np.full(5, np.nan)
    assert whole_head.fit(sums.take(np.zeros(5, bool)), Measured(nothing[:0], nothing[:0], np.zeros(0, int))) == PRIOR
    found = whole_head.fit(sums, Measured(nothing, nothing, np.zeros(5, int)))
    np.testing.assert_allclose(found.values, 0.0, atol=1e-9)


def test_json_round_trip_and_what_is_no_head() -> None:
    head = Head(np.linspace(-1, 1, len(NAMES)))
    assert Head.of(json.loads(json.dumps(head.to_dict()))) == head
    with pytest.raises(InputError, match="head of whole models"):
        Head.of({"overall": 1})


def _rows(**changes: object) -> pd.DataFrame:
    row = {
        "source": "zeus", "level": "model", "device": "nvidia-a40", "workload": "net", "phase": "forward",
        "dtype": None, "weight_dtype": None, "library": None, "batch": 8, "attrs": "", "executor": "torch",
        "latency_s": 0.1, "energy_j": 20.0, "clock_hz": np.nan, "power_cap_w": 200.0, "noisy": False,
    }  # fmt: skip
    return pd.DataFrame([{**row, **changes}])


def test_matching_reports_rows_without_operators_and_joules_of_one_step() -> None:
    tokens = _rows(attrs='{"gpus":2,"unit":"token"}')
    wholes, missing = matched(pd.concat([_rows(), tokens, _rows(workload="other")]), _operators())
    assert wholes.frame["key"].tolist() == ["net", "net"]
    assert wholes.frame["energy_j"].tolist() == pytest.approx([20.0, 80.0])  # 8 tokens a step, half of it on each board
    assert missing.to_dict("records") == [{"source": "zeus", "rows": 1}]


def test_format_ratio_of_a_method_that_is_right_has_no_error() -> None:
    rows = [
        {"source": "joulepoint", "generation": generation, "device": f"d{generation}", "workload": "w", "batch": 8,
         "dtype": dtype, "energy_j": joules, "energy": 0.5}
        for generation, pair in (("a", (4.0, 1.0)), ("b", (6.0, 3.0)))
        for dtype, joules in zip(("float32", "float16"), pair, strict=True)
    ]  # fmt: skip
    table = whole_tables.format_ratios(pd.DataFrame(rows), "energy")
    assert table["eopt"].tolist() == pytest.approx([0.0, 0.0], abs=1e-9)
    assert table["other GPUs' mean"].tolist() == pytest.approx([100.0, 50.0])
