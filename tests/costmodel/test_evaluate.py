"""Folds on made-up devices: baselines on the same rows, splits, and nothing is computed twice."""

from __future__ import annotations

import pytest

pytest.importorskip("pandas")
pytest.importorskip("torch")
pytest.importorskip("sklearn")

from eopt.costmodel import ablation, evaluate
from eopt.costmodel.evaluate import Split
from eopt.costmodel.release import Recipe
from eopt.costmodel.score_cache import ScoreCache
from eopt.costmodel.train import Settings
from eopt.ir.errors import UsageError

pytestmark = pytest.mark.slow

QUICK = Recipe(Settings(members=1, steps=60, batch=512, hidden=16), fold_steps=20)
HOPPER = Split(generations=("hopper",))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(evaluate, "INNER_STEPS", 20)


def latency(scores):
    return {(score.device, score.method): score for score in scores if score.quantity == "latency"}


def test_scores_stand_beside_baselines_on_the_same_rows(found):
    scores = latency(evaluate.evaluate(found.frame, QUICK, HOPPER))
    methods = {method for _, method in scores}
    assert {"eopt", "roofline", "nearest device", "ridge", "trees", "eopt, 20 shots"} <= methods
    assert {device for device, _ in scores} == {"nvidia-h100-sxm"}
    mine, trees, roofline = (scores["nvidia-h100-sxm", name] for name in ("eopt", "trees", "roofline"))
    assert mine.rows == trees.rows == 250
    assert 0 <= mine.coverage <= 1 < mine.width
    assert mine.interval_score > 0, "small and large kernels have widths of their own, so it is not the median's"
    assert roofline.coverage is None and roofline.interval_score is None
    assert mine.mean_ape < roofline.mean_ape, "half of the peak is learnt from the other devices"


def test_a_year_splits_by_release(found):
    later = evaluate.evaluate(found.frame, QUICK, Split(year=2020))
    assert {score.device for score in later} == {"nvidia-h100-sxm"}, "released in 2022"
    assert {score.fold for score in later} == {"as of 2020"}


@pytest.mark.parametrize("year", [1999, 2030])
def test_a_year_that_leaves_one_side_empty_is_refused(found, year):
    with pytest.raises(UsageError, match=f"--as-of {year}: the devices measured are of 20"):
        evaluate.evaluate(found.frame, QUICK, Split(year=year))


def test_what_was_not_measured_is_refused_with_what_was(found):
    with pytest.raises(UsageError, match="no measurements of 'vega'; there are ampere"):
        evaluate.evaluate(found.frame, QUICK, Split(generations=("vega",)))


def test_devices_in_turn(found):
    labels = [label for label, _ in Split(by="device").folds(found)]
    assert labels == [f"without {name}" for name in found.devices]
    for (_, gone), place in zip(Split(by="device").folds(found), range(len(found.devices)), strict=True):
        assert set(found.device[gone]) == {place}


def test_a_fold_is_computed_once(found, tmp_path, monkeypatch):
    kept: list[str] = []
    cache = ScoreCache(tmp_path, kept.append)
    first = evaluate.evaluate(found.frame, QUICK, HOPPER, cache=cache)
    assert kept == []
    monkeypatch.setattr(evaluate, "train", None)  # would fail if it was asked
    again = evaluate.evaluate(found.frame, QUICK, HOPPER, cache=cache)
    assert kept == ["without hopper"]
    assert [score.to_dict() for score in again] == [score.to_dict() for score in first]


def test_the_ablation_has_every_variant_on_every_device(found):
    split = Split(generations=("hopper", "turing"))
    scores = ablation.ablation(found.frame, QUICK, split)
    assert {score.method for score in scores} == set(ablation.VARIANTS)
    rows = {row["variant"]: row for row in ablation.summary(scores)}
    assert all(row["devices"] == 2 and row["gemm_devices"] == 2 for row in rows.values())
    assert rows[ablation.PLAIN]["beats_plain"] == 0
    assert rows[ablation.SHIPPED]["gemm_mean"] == rows[ablation.SHIPPED]["mean"], "there are only products"
    assert rows[ablation.SHIPPED]["mean"] < rows["physics prior alone"]["mean"]
