"""Training on made-up devices: reproducible, better than no training, and what was left out is not looked at."""

from __future__ import annotations

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("torch")

from eopt.backends import target as targets
from eopt.costmodel import folds, wholes
from eopt.costmodel.evaluate import evaluate
from eopt.costmodel.release import Recipe, release
from eopt.costmodel.samples import Samples, samples, thinned
from eopt.costmodel.train import Settings, train
from eopt.ir.errors import UsageError

pytestmark = pytest.mark.slow

DEVICES = ("nvidia-t4", "nvidia-v100-32gb-pcie", "nvidia-a100-40gb-pcie", "nvidia-a40", "nvidia-h100-sxm")
QUICK = Settings(members=1, steps=60, batch=512, hidden=16)


@pytest.fixture(scope="module")
def found() -> Samples:
    """Products whose time is that of the roofline at half of the peak, plus a launch; 1.3 times as long on the T4."""
    rng = np.random.default_rng(0)
    rows = []
    for name in DEVICES:
        for _ in range(250):
            m, n, k = (int(2 ** rng.uniform(5, 13)) for _ in range(3))
            rows.append((name, "MatMul", [[m, k], [k, n]], "float16"))
    made = pd.DataFrame(rows, columns=["device", "op", "inputs", "dtype"])
    for column in ("weight_dtype", "math", "scale", "attrs", "library"):
        made[column] = None
    made = made.assign(phase="forward", executor="torch", source="test", latency_s=1.0, level="operator", noisy=False)
    made = made.assign(power_w=200.0, energy_scope="board")
    plain = samples(made)
    roofline = np.maximum(plain.amounts[:, 0] * 2, plain.amounts[:, 2] / plain.amounts[:, 3] * 1.2) + 4e-6
    slow = np.where(np.array(plain.devices)[plain.device] == "nvidia-t4", 1.3, 1.0)
    made["latency_s"] = roofline * slow
    return samples(made)


def median(error: np.ndarray) -> float:
    return float(np.median(np.abs(error[np.isfinite(error)])))


def test_a_device_left_out_is_predicted_and_the_same_bits_come_out(found):
    gone = folds.left_out(found, ["nvidia-a40"])
    one, two = (train(found.take(~gone), QUICK) for _ in range(2))
    assert all(np.array_equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert "nvidia-a40" not in one.devices
    assert median(folds.residuals(one, found.take(gone)).latency) < 0.2
    untrained = train(found.take(~gone), Settings(members=1, steps=1, batch=512, hidden=16))
    assert median(folds.residuals(one, found.take(gone)).latency) < median(
        folds.residuals(untrained, found.take(gone)).latency
    )


def test_a_latent_learns_what_the_sheet_does_not_say(found):
    network = train(found, Settings(members=1, steps=150, batch=512, hidden=16))
    t4 = found.take(np.array(found.devices)[found.device] == "nvidia-t4")
    with_latent, without = (median(folds.residuals(network, t4, latent=on).latency) for on in (True, False))
    assert with_latent <= without * 1.05


def test_generations_take_all_their_devices(found):
    gone = folds.left_out(found, generations=["ampere"])
    assert set(np.array(found.devices)[found.device[gone]]) == {"nvidia-a100-40gb-pcie", "nvidia-a40"}


def test_a_release_says_how_it_was_made(found):
    recipe = Recipe(QUICK, exclude_devices=("nvidia-a40",), fold_steps=20)
    made = release(found.frame, recipe, "eopt data train")
    assert "nvidia-a40" not in made.network.devices
    assert made.about["excluded"] == ["nvidia-a40"] and made.about["samples"] == 1000
    assert made.spread["latency"]["gemm"]["unseen"] > 0
    assert made.about["scores"]["latency"]["gemm"]["devices"] == 4


def test_thinning_keeps_some_of_each_kind(found):
    few = thinned(found.frame, 10, seed=0)
    assert set(few.groupby("device").size()) == {10}
    assert few.index.equals(thinned(found.frame, 10, seed=0).index)


def test_scores_stand_beside_baselines_on_the_same_rows(found):
    recipe = Recipe(QUICK, fold_steps=20)
    scores = evaluate(found.frame, recipe, generations=["hopper"])
    latency = {score.method: score for score in scores if score.quantity == "latency"}
    assert {"eopt", "roofline", "nearest device", "ridge", "trees", "eopt, 20 shots"} <= set(latency)
    assert {score.device for score in scores} == {"nvidia-h100-sxm"}
    assert latency["eopt"].rows == latency["trees"].rows == 250
    assert 0 <= latency["eopt"].coverage <= 1 and latency["eopt"].width > 1
    assert latency["roofline"].coverage is None
    later = evaluate(found.frame, recipe, year=2020)
    assert {score.device for score in later} == {"nvidia-h100-sxm"}, "released in 2022"
    with pytest.raises(UsageError, match="no measurements of 'vega'"):
        evaluate(found.frame, recipe, generations=["vega"])


def test_a_model_is_the_sum_of_its_operators(found):
    network = train(found, QUICK)
    rows = found.frame.iloc[:3].assign(workload="w", position=range(3), count=[1, 2, 3], source="test", attrs="")
    work = wholes.workload(rows)
    whole = wholes.predict(network, work, targets.load("nvidia-h100-sxm"), "torch")
    each = [
        wholes.predict(
            network, wholes.workload(rows.iloc[i : i + 1].assign(count=1)), targets.load("nvidia-h100-sxm"), "torch"
        )
        for i in range(3)
    ]
    expected = sum(count * one.latency_s for count, one in zip((1, 2, 3), each, strict=True))
    assert whole.latency_s == pytest.approx(expected, rel=1e-9)
    assert work.unknown == 0
    both = wholes.workload(rows.assign(phase="backward"), ("backward",))
    assert both.counts.sum() == 2 * work.counts.sum(), "the gradients of a product are two products"
