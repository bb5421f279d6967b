"""Contracts against hand-computed figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.passes import metrics
from eopt.passes.contract import Exact, Sqnr, loosest, sqnr_db

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 16)).astype("f")


@given(st.floats(1e-4, 0.5))
def test_sqnr_of_a_scaled_signal(share):
    measured = sqnr_db([{"y": X}], [{"y": X.astype("d") * (1 + share)}], "y")
    assert measured == pytest.approx(-20 * math.log10(share), abs=1e-6)


def test_sqnr_pools_batches():
    split = sqnr_db([{"y": X[:1]}, {"y": X[1:]}], [{"y": X[:1] * 1.1}, {"y": X[1:]}], "y")
    whole = sqnr_db([{"y": X}], [{"y": np.concatenate([X[:1] * 1.1, X[1:]])}], "y")
    assert split == pytest.approx(whole)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_nan_and_infinity_never_pass(spoilt):
    bad = X.copy()
    bad[0, 0] = spoilt
    assert not Sqnr(-1000.0).check([{"y": X}], [{"y": bad}]).holds


def test_other_shape_never_passes():
    assert not Exact().check([{"y": X}], [{"y": X[:, :8]}]).holds


def test_exact_allows_rounding_and_no_more():
    rounding = X * (1 + 1e-6 * RNG.standard_normal(X.shape).astype("f"))
    assert Exact().check([{"y": X}], [{"y": rounding}]).holds
    assert not Exact().check([{"y": X}], [{"y": X * 1.001}]).holds


def test_exact_compares_integers_exactly():
    ids = np.arange(8)
    assert Exact().check([{"y": ids}], [{"y": ids}]).holds
    assert not Exact().check([{"y": ids}], [{"y": ids + (ids == 3)}]).holds


def test_the_worst_output_decides():
    verdict = Sqnr(30.0).check([{"a": X, "b": X}], [{"a": X, "b": X * 1.1}])
    assert (verdict.holds, verdict.output) == (False, "b")


def test_loosest():
    assert loosest([Exact(), Sqnr(40.0), Sqnr(15.0)]) == Sqnr(15.0)
    assert loosest([Exact()]) == Exact()


def test_top1_loss_counts_wrong_labels():
    logits = np.eye(4, dtype="f")
    labels = np.array([0, 1, 2, 3])
    rolled = logits[[0, 1, 3, 2]]
    contract = metrics.MaxLoss("top1", metrics.top1, 0.4, labels)
    verdict = contract.check([{"y": logits}], [{"y": rolled}])
    assert verdict.measured == pytest.approx(0.5)
    assert not verdict.holds


def test_cosine_loss_of_a_rotation():
    a, b = np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])
    assert metrics.cosine(b, a, None) == pytest.approx(1 / math.sqrt(2))


def test_perplexity_of_uniform_logits_is_the_vocabulary():
    logits, labels = np.zeros((2, 3, 11)), np.array([[1, 2, -100], [3, 4, 5]])
    assert -metrics.neg_perplexity(logits, logits, labels) == pytest.approx(11.0)
