"""Traces of polls: wrap-arounds, updates, mean power."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.backends.base import Unknown
from eopt.backends.meters.trace import Level, Trace, counted, period_s, sampled, unwrapped, updates

STEPS = st.lists(st.floats(0, 99), min_size=1, max_size=50)


def trace(at_s, energy_j=None, power_w=None) -> Trace:
    nothing = np.full(len(at_s), np.nan)
    kept = [nothing if values is None else np.array(values, float) for values in (energy_j, power_w)]
    return Trace(np.array(at_s, float), *kept, ("the driver timed out",))


@given(STEPS, st.floats(0, 4999), st.sets(st.integers(0, 49)))
def test_a_wrapping_counter_rises_by_what_was_drawn(steps, start, lost):
    """Reads may fail in between, as long as less than the range is drawn meanwhile."""
    true_j = start + np.concatenate([[0], np.cumsum(steps)])
    seen_j = true_j % 5000
    seen_j[[row for row in lost if row < len(seen_j)]] = np.nan
    risen = unwrapped(seen_j, 5000.0)
    known = np.isfinite(seen_j)
    assert np.array_equal(np.isfinite(risen), known)
    if known.any():
        assert np.diff(risen[known]) == pytest.approx(np.diff(true_j[known]), abs=1e-6)


def test_a_library_that_adds_the_range_late_does_no_harm():
    assert unwrapped(np.array([90.0, 2.0, 5.0, 108.0]), 100.0) == pytest.approx([90, 102, 105, 108])


def test_without_a_range_nothing_is_added():
    assert unwrapped(np.array([90.0, 2.0]), None) == pytest.approx([90, 2])


def test_an_update_lies_between_two_polls_and_not_across_a_failed_one():
    moments, values, slack_s = updates(np.arange(6.0), np.array([1, 1, 2, np.nan, 3, 4]))
    assert moments == pytest.approx([1.5, 4.5])
    assert values == pytest.approx([2, 4])
    assert slack_s == pytest.approx([0.5, 0.5])


def test_the_period_is_that_of_most_updates():
    readings = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 5])
    assert period_s(np.arange(13) / 10, readings) == pytest.approx(0.2)
    assert period_s(np.arange(3.0), np.array([0, 1, 1])) is None


def test_power_of_a_counter_is_from_update_to_update():
    level = counted(trace(np.arange(8) / 2, [0, 0, 10, 10, 20, 20, 30, 30]))
    assert level == Level(10.0, pytest.approx(0.25), 2.0)


def test_power_of_samples_is_their_integral():
    level = sampled(trace([0, 1, 2, 3, 4, 5, 6], power_w=[1, 1, 2, 3, 3, np.nan, 3]))
    assert isinstance(level, Level)
    assert (level.power_w, level.window_s) == (pytest.approx(14 / 6), 6)


@pytest.mark.parametrize("mean", [counted, sampled])
@pytest.mark.parametrize("polls", [0, 1, 10])
def test_no_reads_give_no_power(mean, polls):
    assert isinstance(mean(trace(np.arange(polls))), Unknown)


def test_a_fifth_of_failed_reads_is_the_limit():
    at_s = np.arange(100.0)
    some, many = np.where(at_s % 5 == 1, np.nan, at_s), np.where(at_s % 4 == 1, np.nan, at_s)
    assert isinstance(counted(trace(at_s, some)), Level)
    lost = counted(trace(at_s, many))
    assert isinstance(lost, Unknown)
    assert lost.reasons == ("25% of the counter's reads failed", "the driver timed out")
