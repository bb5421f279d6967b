"""Training on made-up devices: reproducible, better than no training, and what was left out is not looked at."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("torch")

from eopt.backends import target as targets
from eopt.costmodel import folds, wholes
from eopt.costmodel.release import Recipe, release
from eopt.costmodel.samples import thinned
from eopt.costmodel.train import Settings, train

pytestmark = pytest.mark.slow

QUICK = Settings(members=1, steps=60, batch=512, hidden=16)


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
