"""Training on made-up devices: reproducible, better than no training, and what was left out is not looked at."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("torch")

from eopt.backends import target as targets
from eopt.costmodel import folds, wholes
from eopt.costmodel.embedding import device
from eopt.costmodel.network import DENSE
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
    """Without an encoder the latent has to tell that the T4 takes 1.3 times as long as the others."""
    network = train(found, Settings(members=1, steps=600, batch=512, hidden=16, encoder="none", latent_decay=0.002))
    t4 = found.take(np.array(found.devices)[found.device] == "nvidia-t4")
    with_latent, without = (median(folds.residuals(network, t4, latent=on).latency) for on in (True, False))
    assert with_latent < 0.9 * without


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


def test_power_is_no_matter_of_the_device_nor_of_who_launches_but_for_dense_loops(found):
    network = train(found, QUICK)
    chip = device(targets.load("nvidia-a40"))
    seen, amounts = found.seen[:5].copy(), found.amounts[:5]
    plain = network.log_watts(seen, amounts, found.latency_s[:5], chip)
    assert np.all(np.exp(plain) <= 1.03 * chip.tdp_w)
    seen[:, DENSE] = 1
    np.testing.assert_array_equal(network.log_watts(seen, amounts, found.latency_s[:5], chip), plain, "none was seen")


def test_gradients_of_a_product_are_two_products(found):
    rows = found.frame.iloc[:3].assign(workload="w", position=range(3), count=[1, 2, 3], source="test", attrs="")
    work = wholes.workload(rows)
    assert work.unknown == 0 and work.counts.sum() == 6
    both = wholes.workload(rows.assign(phase="backward"), ("backward",))
    assert both.counts.sum() == 2 * work.counts.sum()
