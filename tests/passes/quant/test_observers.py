"""Streaming observers against numpy on the whole data at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eopt.passes.quant.observers import BINS, MinMax, ObserverKind, Percentile, observer

batches = st.lists(arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e6, 1e6, width=32)), min_size=1)


@given(batches)
def test_minmax_equals_numpy(parts):
    watching = MinMax()
    for part in parts:
        watching.update(part)
    whole = np.concatenate(parts)
    assert watching.range() == (whole.min(), whole.max())


@given(batches, st.floats(60, 100))
@settings(max_examples=200)
def test_percentile_equals_numpy_within_a_bin(parts, share):
    watching = Percentile(share)
    for part in parts:
        watching.update(part)
    whole = np.concatenate(parts).astype(np.float64)
    low, high = watching.range()
    tail = 50 - share / 2
    bin_width = 2 * watching.reach / BINS * (1 + 1e-6)
    # numpy's inverted_cdf returns a sample, as a histogram does; at a tie of counts the neighbouring sample is as right
    below = [np.percentile(whole, tail, method=method) for method in ("inverted_cdf", "higher")]
    above = [np.percentile(whole, 100 - tail, method=method) for method in ("inverted_cdf", "lower", "higher")]
    assert min(below) - bin_width <= low <= max(below) + bin_width
    assert min(above) - bin_width <= high <= max(above) + bin_width
    assert watching.reach <= 2 * max(np.abs(whole).max(), 1e-30 / 2)


def test_percentile_leaves_rare_outliers_out():
    rng = np.random.default_rng(0)
    watching = Percentile(99.9)
    for _ in range(10):
        watching.update(rng.standard_normal(10_000))
    watching.update(np.array([1e4]))
    low, high = watching.range()
    # the reach grew to at most 2e4 with the outlier, so a bin is at most 2 * 2e4 / 4096 = 9.8 wide
    assert -13.1 <= low < 0 < high <= 13.1


def test_all_of_the_values_is_minmax():
    watching = Percentile(100)
    watching.update(np.array([-1.5, 0.25, 8.0]))
    assert watching.range() == (-1.5, 8.0)


@pytest.mark.parametrize("kind", list(ObserverKind))
def test_no_value_is_no_range(kind):
    watching = observer(kind, 99.0)
    assert watching.range() is None
    watching.update(np.zeros((0, 3)))
    assert watching.range() is None


@pytest.mark.parametrize("kind", list(ObserverKind))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_shows(kind, bad):
    watching = observer(kind, 99.0)
    watching.update(np.array([1.0, bad]))
    watching.update(np.array([2.0]))
    assert not all(map(math.isfinite, watching.range()))


@pytest.mark.parametrize("kind", list(ObserverKind))
def test_zeros_then_values(kind):
    watching = observer(kind, 100.0)
    watching.update(np.zeros(10))
    assert watching.range() == (0.0, 0.0)
    watching.update(np.array([4.0]))
    assert watching.range() == (0.0, 4.0)


def test_memory_is_constant():
    watching = Percentile(99.0)
    for magnitude in (1e-6, 1.0, 1e9):
        watching.update(np.linspace(-magnitude, magnitude, 10_000))
    assert watching.counts.size == BINS and watching.counts.sum() == 30_000
