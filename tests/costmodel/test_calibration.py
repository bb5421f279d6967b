"""What measurements say beyond a cost model: the process, what to measure, the corrected model, and its file."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends import executor as executors
from eopt.backends import target as targets
from eopt.costmodel import calibration, design, residual
from eopt.costmodel.calibrated import Calibrated, cold
from eopt.costmodel.calibration import Calibration, Measured
from eopt.costmodel.learned import current
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Basis, Cost
from eopt.costmodel.records import kernels_of
from eopt.costmodel.residual import Residual, points
from eopt.ir.errors import InputError
from eopt.tools.cli import main

CPU, GPU = targets.load("cpu-amd-epyc-7003"), targets.load("nvidia-l4")
ORT, TORCH = executors.load("onnxruntime"), executors.load("torch")


def products(count: int = 12) -> list:
    rng = np.random.default_rng(0)
    sizes = rng.choice([32, 64, 128, 256, 512, 768], (count, 3))
    return [kernels_of("MatMul", ((int(m), int(k)), (int(k), int(n))), "float32")[0] for m, k, n in sizes]


def mixed() -> list:
    found = products(8)
    for rows in (8, 64, 512):
        for width in (64, 512, 1024):
            shape = ((rows, width),)
            found += [kernels_of(op, shape, "float32")[0] for op in ("Relu", "Tanh", "Softmax")]
    return found


def seen(kernels, factor: float = 1.0):
    seconds = np.array([Prior().query(kernel, CPU, ORT).latency_s.mid for kernel in kernels])
    return points(kernels, seconds), np.full(len(kernels), log(factor))


def test_without_measurements_nothing_is_corrected():
    known, logs = seen(mixed())
    none = Residual(known.take(np.arange(0)), logs[:0], logs[:0])
    mean, spread = none.predict(known)
    np.testing.assert_allclose(mean, 0.0)
    assert (spread > 1.0).all()


@settings(max_examples=15)
@given(st.floats(0.05, 20.0))
def test_a_device_that_is_off_by_a_factor_is_off_by_it_everywhere(factor):
    kernels = mixed()
    known, logs = seen(kernels, factor)
    half = np.arange(0, len(kernels), 2)
    mean, _ = Residual(known.take(half), logs[half], 0 * half).predict(known)
    np.testing.assert_allclose(mean, log(factor), atol=0.15 * abs(log(factor)) + 0.02)  # shrunk towards no correction


def test_what_was_measured_is_predicted_within_its_noise_and_more_surely_than_what_was_not():
    kernels = mixed()
    known, _ = seen(kernels)
    logs = np.random.default_rng(1).normal(0, 0.5, len(kernels))
    some = np.arange(0, len(kernels), 3)
    mean, spread = Residual(known.take(some), logs[some], np.full(len(some), 0.01)).predict(known)
    assert np.abs(mean[some] - logs[some]).mean() < 0.2 * np.abs(logs[some]).mean()
    others = np.setdiff1d(np.arange(len(kernels)), some)
    assert spread[some].mean() < spread[others].mean()


def test_the_order_of_measurements_does_not_matter():
    kernels = mixed()
    known, _ = seen(kernels)
    logs = np.random.default_rng(2).normal(0, 0.5, len(kernels))
    order = np.random.default_rng(3).permutation(len(kernels))
    here = Residual(known, logs, 0 * logs).predict(known)
    there = Residual(known.take(order), logs[order], 0 * logs).predict(known)
    np.testing.assert_allclose(here, there, atol=1e-6)


def test_a_noisy_measurement_says_less():
    kernels = products(6)
    known, logs = seen(kernels, 4.0)
    sure = Residual(known, logs, 0 * logs).predict(known)[0]
    noisy = Residual(known, logs, np.full(len(kernels), 2.0)).predict(known)[0]
    assert (np.abs(noisy) < np.abs(sure)).all()


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(0, 5))
def test_each_operator_is_chosen_once_and_each_lowers_what_is_not_known(count, seed):
    kernels = mixed()
    pool = seen(kernels)[0].take(np.random.default_rng(seed).permutation(len(kernels)))
    found = design.joint(pool)
    chosen = design.choose(found, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(kernels))
    left = found.copy()
    traces = [np.trace(left)]
    for one in chosen:
        left = left - np.outer(left[one], left[one]) / (left[one, one] + design.NOISE**2)
        traces.append(np.trace(left))
    assert (np.diff(traces) < 1e-9).all()


def test_the_first_operators_are_of_different_families():
    kernels = mixed()
    chosen = design.choose(design.joint(seen(kernels)[0]), 3)
    assert len({kernels[one].family for one in chosen}) == 3


def test_slopes_along_an_embedding_draw_the_choice():
    pool = seen(products(12))[0]
    slopes = np.zeros((12, 1))
    slopes[7] = 50.0
    assert design.choose(design.joint(pool, slopes, np.ones(1)), 1) == [7]


def made(kernels, factor: float, target=CPU, executor=ORT, **changes) -> Calibration:
    costs = current().query_many(kernels, target, executor)
    rows = tuple(
        Measured(kernel, cost.latency_s.mid * factor, 0.01) for kernel, cost in zip(kernels, costs, strict=True)
    )
    fields = {"schedule": "", "version": "1", "date": "2026-01-02T03:04:05+00:00", "unseen": {}} | changes
    return Calibration(target.name, target.model, executor.name, rows=rows, **fields)


@pytest.mark.parametrize(("target", "executor"), [(CPU, ORT), (GPU, TORCH)], ids=["prior", "network"])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_calibration_brings_predictions_to_what_was_measured(target, executor, factor):
    kernels = mixed()
    model = made(kernels, factor, target, executor).apply(current(), target, executor)
    before, after = (one.query_many(kernels, target, executor) for one in (current(), model))
    ratios = [new.latency_s.mid / old.latency_s.mid for old, new in zip(before, after, strict=True)]
    assert np.median(np.abs(np.array(ratios) / factor - 1)) < 0.1
    for cost in after:
        assert cost.latency_s.lo < cost.latency_s.mid < cost.latency_s.hi
        assert cost.energy_j.lo < cost.energy_j.mid < cost.energy_j.hi
        assert cost.basis is Basis.PREDICTED
        assert "calibrated with 35 operators measured 2026-01-02" in cost.reasons[-1]
        assert sum(cost.terms.values()) == pytest.approx(cost.energy_j.mid)


def test_what_operations_draw_stays_and_static_power_is_drawn_for_longer():
    kernels = mixed()
    model = made(kernels, 3.0).apply(current(), CPU, ORT)
    old, new = (one.query(kernels[0], CPU, ORT) for one in (current(), model))
    assert new.terms["flops"] == pytest.approx(old.terms["flops"])
    grown = new.latency_s.mid / old.latency_s.mid
    assert new.terms["static"] == pytest.approx(old.terms["static"] * grown)


def test_other_targets_and_executors_are_answered_as_before():
    kernels = mixed()
    model = made(kernels, 3.0).apply(current(), CPU, ORT)
    for target, executor in ((GPU, TORCH), (CPU, TORCH)):
        assert model.query_many(kernels, target, executor) == current().query_many(kernels, target, executor)


def test_a_whole_model_is_its_kernels_and_the_weights_that_no_cache_holds():
    kernels = mixed()
    model = made(kernels, 2.0).apply(current(), CPU, ORT)
    assert isinstance(model, Calibrated)
    small = replace(CPU, l2_bytes=1e3)
    counts = [2] * len(kernels)
    cached, streamed = (model.whole(kernels, counts, target, ORT, False) for target in (CPU, small))
    parts = [cost.latency_s.mid for cost in model.query_many(kernels, CPU, ORT) if isinstance(cost, Cost)]
    assert cached.latency_s.mid == pytest.approx(2 * sum(parts))
    weights = 2 * sum(kernel.weight_bytes for kernel in kernels)
    waits_s, waits_j = cold(kernels, counts, small)
    assert waits_s > weights / CPU.bandwidth_bytes_per_s
    assert waits_j > 0
    assert streamed.latency_s.mid > cached.latency_s.mid


def test_a_whole_model_of_the_network_moves_with_its_kernels():
    kernels = products()
    counts = [1] * len(kernels)
    model = made(kernels, 2.0, GPU, TORCH).apply(current(), GPU, TORCH)
    old, new = (one.whole(kernels, counts, GPU, TORCH, False) for one in (current(), model))
    assert new.latency_s.mid == pytest.approx(2 * old.latency_s.mid, rel=0.15)


def test_a_calibration_survives_its_file_and_the_latest_is_found(monkeypatch):
    kernels = mixed()
    first, later = made(kernels, 2.0), made(kernels, 3.0, schedule="tuned:8", date="2027-01-01T00:00:00+00:00")
    assert calibration.find(CPU, ORT) is None
    for one in (later, first):
        assert calibration.read(calibration.keep(one)) == one
    assert calibration.find(CPU, ORT) == later
    assert calibration.find(CPU, TORCH) is None
    assert calibration.find(replace(CPU, model="another part"), ORT) is None


@pytest.mark.parametrize("change", [
    {"format": 0}, {"rows": None}, {"rows": [{}]}, {"target": 3}, {"more": 1}, {"rows": [[]] * 20_000},
])  # fmt: skip
def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path, change):
    path = calibration.keep(made(products(), 2.0))
    document = json.loads(path.read_text()) | change
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=path.name):
        calibration.read(path)


@pytest.mark.parametrize("number", [0, -1.0, "1", None, float("nan"), float("inf"), [1]])
def test_a_figure_that_is_no_measurement_is_refused(number):
    path = calibration.keep(made(products(), 2.0))
    document = json.loads(path.read_text())
    document["rows"][3]["latency_s"] = number
    path.write_text(json.dumps(document))
    if number == "1":
        assert calibration.read(path).rows[3].latency_s == 1.0
        return
    with pytest.raises(InputError, match=path.name):
        calibration.read(path)


@pytest.mark.parametrize("change", [
    {"name": 3}, {"elements": "many"}, {"elements": -1}, {"weight_bytes": None}, {"activation_bytes": float("inf")},
    {"gemm": [1, 2, 3]}, {"gemm": 7}, {"gemm": [1, 2, 3, float("nan")]}, {"flops": [["matrix", "float32"]]},
    {"flops": [["matrix", "float13", 1.0]]}, {"flops": [["matrix", "float32", -1.0]]}, {"row": []}, {"more": 1},
])  # fmt: skip
def test_a_kernel_that_is_none_is_refused(change):
    path = calibration.keep(made(products(), 2.0))
    document = json.loads(path.read_text())
    document["rows"][3]["kernel"] |= change
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=path.name):
        calibration.read(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, "\0", '{"format": 1, "rows": []}'])
def test_what_is_no_document_is_refused_by_every_verb(content, capsys):
    path = calibration.keep(made(products(), 2.0))
    path.write_text(content)
    query = ["query", "--target", CPU.name, "--op", "Relu", "--inputs", "8x8", "--dtype", "float32"]
    assert main(query) == 3
    err = capsys.readouterr().err
    assert str(path) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b", "*", "[x]", "n" * 300, "ü ?"])
def test_a_target_may_be_called_anything(name, tmp_path):
    target = replace(CPU, name=name)
    one = made(products(), 2.0, target)
    assert calibration.keep(one).parent == calibration.own_folder()
    assert calibration.find(target, ORT) == one
    assert calibration.find(CPU, ORT) is None
    assert calibration.find(replace(CPU, name=name + "!"), ORT) is None


def test_the_covariance_is_one():
    pool = seen(mixed())[0]
    for shape in residual.SHAPES:
        found = residual.covariance(pool, pool, shape, 1.0)
        np.testing.assert_allclose(found, found.T)
        np.testing.assert_allclose(np.diag(found), residual.variances(pool, shape))
        assert np.linalg.eigvalsh(found).min() > -1e-8
