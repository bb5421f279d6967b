"""What is counted: errors, intervals, answers that are missing, siblings; and what scores are found by on disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("scipy")

from eopt.backends import target as targets
from eopt.costmodel import score_cache
from eopt.costmodel.contender import Contender
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Unknown
from eopt.costmodel.release import Recipe
from eopt.costmodel.score_cache import ScoreCache, address
from eopt.costmodel.scores import Errors, scores
from eopt.costmodel.siblings import die, sibling
from eopt.ir.errors import OutputError, UsageError

RECIPE = Recipe()


@pytest.fixture
def asked(found):
    """All rows of one device."""
    return found.take(found.device == found.devices.index("nvidia-a40"))


def one(asked, error, below=None, above=None, known=()):
    [score] = scores(asked, Errors(error, below, above), "fold", "latency", "mine", known)
    return score


def test_an_interval_score_is_the_width_and_a_penalty_for_what_lies_outside(asked):
    count = len(asked.latency_s)
    error, half = np.zeros(count), np.full(count, 0.3)
    inside = one(asked, error, half, half)
    assert (inside.coverage, inside.width) == (1.0, pytest.approx(np.exp(0.6)))
    assert inside.interval_score == pytest.approx(0.6)
    error[:50] = 0.4  # predicted too high: 0.1 below the lower end
    error[50:100] = -0.5  # too low: 0.2 above the upper end
    outside = one(asked, error, half, half)
    assert outside.coverage == pytest.approx(1 - 100 / count)
    expected = 0.6 + 2 / 0.1 * (50 * 0.1 + 50 * 0.2) / count  # Gneiting and Raftery, alpha 0.1
    assert outside.interval_score == pytest.approx(expected)


def test_intervals_may_be_lopsided(asked):
    count = len(asked.latency_s)
    below, above = np.full(count, 0.1), np.full(count, 0.9)
    assert one(asked, np.full(count, -0.5), below, above).coverage == 1.0
    assert one(asked, np.full(count, 0.5), below, above).coverage == 0.0


def test_no_answer_is_an_error_of_a_hundred_percent_and_covers_nothing(asked):
    count = len(asked.latency_s)
    error, half = np.zeros(count), np.full(count, 0.3)
    error[: count // 2] = -np.inf
    half[: count // 2] = np.nan
    score = one(asked, error, half, half)
    assert score.rows == count
    assert score.mean_ape == pytest.approx(50) and score.coverage == pytest.approx(0.5)
    assert score.bias == 0.0, "of what was answered"
    nothing = one(asked, np.full(count, -np.inf))
    assert nothing.mean_ape == 100 and nothing.to_dict()["bias"] is None


def test_rows_that_were_not_measured_stay_out(asked):
    error = np.zeros(len(asked.latency_s))
    error[:100] = np.nan
    assert one(asked, error).rows == len(error) - 100
    assert not list(scores(asked, Errors(np.full(len(error), np.nan)), "fold", "latency", "mine", ()))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("nvidia-h20", "nvidia-h200-sxm"),
        ("nvidia-a100-40gb-pcie", "nvidia-a100-80gb-sxm"),
        ("nvidia-b300-sxm", "nvidia-b200-sxm"),
        ("nvidia-rtx-a6000", "nvidia-a40"),
        ("nvidia-p4", "nvidia-gtx-1070"),
    ],
)
def test_boards_with_one_die_are_siblings(name, other):
    assert sibling(name, [other, "nvidia-t4"]) == other
    assert sibling(other, [name, "nvidia-t4"]) == name


@pytest.mark.parametrize(
    ("name", "other"),
    [("nvidia-a10", "nvidia-a100-40gb-pcie"), ("nvidia-gtx-1080", "nvidia-gtx-1080-ti"), ("nvidia-p4", "nvidia-p40")],
)
def test_names_alike_are_no_siblings(name, other):
    assert sibling(name, [other]) == ""


def test_a_device_is_no_sibling_of_itself_and_dies_stay_in_one_architecture():
    assert sibling("nvidia-a40", ["nvidia-a40"]) == ""
    archs: dict[str, set[str]] = {}
    for name in targets.shipped():
        archs.setdefault(die(name), set()).add(targets.load(name).arch)
    assert all(len(found) == 1 for found in archs.values())


def test_the_label_is_in_every_score(asked):
    assert one(asked, np.zeros(len(asked.latency_s)), known=["nvidia-rtx-3090"]).sibling == "nvidia-rtx-3090"
    assert one(asked, np.zeros(len(asked.latency_s)), known=["nvidia-t4"]).sibling == ""


def test_scores_are_found_by_all_they_depend_on(found, monkeypatch):
    gone = found.device == 0
    same = address(found, gone, "fold", RECIPE)
    assert same == address(found, gone, "fold", RECIPE)
    louder = replace(RECIPE, settings=replace(RECIPE.settings, steps=7))
    slower = replace(found, latency_s=found.latency_s * 2)
    relabelled = replace(found, frame=found.frame.assign(dtype="bfloat16"))
    monkeypatch.setattr(score_cache, "_code", lambda: "another version")
    others = [
        address(found, gone, "fold", RECIPE), address(found, ~gone, "fold", RECIPE),
        address(found, gone, "other", RECIPE), address(found, gone, "fold", louder),
        address(slower, gone, "fold", RECIPE), address(relabelled, gone, "fold", RECIPE),
    ]  # fmt: skip
    assert len({same, *others}) == len(others) + 1


def test_scores_are_kept_whole_or_not_at_all(found, asked, tmp_path):
    calls = []

    def made():
        calls.append(1)
        return scores(asked, Errors(np.zeros(len(asked.latency_s))), "fold", "latency", "mine", ())

    def stopped():
        yield from made()
        raise KeyboardInterrupt

    gone, noted = found.device == 0, []
    cache = ScoreCache(tmp_path / "deep/folder", noted.append)
    with pytest.raises(KeyboardInterrupt):
        cache.scores(found, gone, "fold", RECIPE, stopped)
    assert not list(tmp_path.rglob("*.json"))
    first = cache.scores(found, gone, "fold", RECIPE, made)
    assert cache.scores(found, gone, "fold", RECIPE, made) == first
    assert len(calls) == 2 and noted == ["fold"]
    [path] = tmp_path.rglob("*.json")
    path.write_text("[{")  # a damaged file is made anew
    assert cache.scores(found, gone, "fold", RECIPE, made) == first
    assert len(calls) == 3
    ScoreCache().scores(found, gone, "fold", RECIPE, made)
    assert len(calls) == 4, "without a folder nothing is remembered"


def test_a_folder_that_cannot_be_made_says_which_option_names_another(found, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.*--cache"):
        ScoreCache(tmp_path / "file/x").scores(found, found.device == 0, "fold", RECIPE, list)


def test_a_third_party_is_asked_by_the_protocol(asked):
    errors = Contender("mine", Prior()).errors(asked)
    assert np.isfinite(errors["latency"].error).all()
    assert set(np.exp(errors["latency"].below).round(6)) <= {2.0, 2.5, 3.0}, "factors that the prior states"

    class Silent:
        def query_many(self, kernels, target, executor):
            return [Unknown(("no idea",)) for _ in kernels]

    errors = Contender("silent", Silent()).errors(asked)
    assert np.isneginf(errors["latency"].error).all() and np.isneginf(errors["energy"].error).all()
    assert one(asked, errors["latency"].error, errors["latency"].below, errors["latency"].above).mean_ape == 100


def test_no_model_is_scored_on_what_it_was_trained_on(in_use):
    mine = Contender.named(str(in_use))
    assert mine.devices == ("nvidia-a100-80gb-sxm", "nvidia-h100-sxm", "nvidia-l4")
    mine.refuse_seen(["nvidia-t4"])
    with pytest.raises(UsageError, match=r"was trained on nvidia-h100-sxm.*--exclude-device nvidia-h100-sxm"):
        mine.refuse_seen(["nvidia-t4", "nvidia-h100-sxm"])


def test_an_artefact_answers_as_a_query_does(in_use, asked, learned):
    errors = Contender.named(str(in_use)).errors(asked)
    from eopt.costmodel import service

    row = asked.frame.iloc[0]
    query = {"op": "MatMul", "inputs": [[int(n) for n in shape] for shape in row["inputs"]], "dtype": "float16"}
    [said] = service.answer([query], targets.load("nvidia-a40"), "torch", learned)
    assert errors["latency"].error[0] == pytest.approx(
        np.log(said["latency_s"] / asked.latency_s[0]),
        abs=1e-6,  # answers have seven digits
    )
    assert errors["latency"].below[0] == pytest.approx(np.log(said["latency_s"] / said["latency_s_lo"]), abs=1e-6)


def test_four_bit_floats_have_a_price_on_every_gpu():
    from eopt.backends import executor as executors
    from eopt.costmodel.query import Cost
    from eopt.costmodel.records import record

    [kernel] = record({"op": "MatMul", "inputs": [[64, 64], [64, 64]], "dtype": "float4_e2m1", "scale": "nvfp4"})
    for name in ("nvidia-b200-sxm", "nvidia-h200-sxm", "nvidia-a40"):
        for engine in ("vllm", "tensorrt"):
            assert isinstance(Prior().query(kernel, targets.load(name), executors.load(engine)), Cost)
