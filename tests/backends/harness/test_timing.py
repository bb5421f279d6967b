"""Timings of prepared workloads whose seconds are known."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.backends.harness import timing
from eopt.backends.harness.overhead import own_s


class Known:
    """Takes `each_s`, the first call `cold_s` more, and in turn a factor of `busy`."""

    def __init__(self, each_s: float, cold_s: float = 0.0, busy: tuple[float, ...] = (1.0,)) -> None:
        self.each_s, self.cold_s, self.busy, self.calls = each_s, cold_s, cycle(busy), 0

    def run(self, calls: int) -> float:
        cold_s, self.cold_s, self.calls = self.cold_s, 0.0, self.calls + calls
        return cold_s + calls * self.each_s * next(self.busy)

    def outputs(self) -> dict[str, np.ndarray]:
        return {}


@given(st.floats(1e-7, 10.0), st.integers(1, 64))
def test_the_seconds_of_one_copy_are_found_whatever_they_are(each_s, copies):
    found = timing.time(Known(each_s * copies, cold_s=1.0), copies)
    assert found.latency_s == pytest.approx(each_s)
    assert found.cv == pytest.approx(0.0, abs=1e-9)
    assert not found.noisy


def test_a_window_is_filled():
    found = timing.time(Known(1e-6))
    assert found.calls * 1e-6 >= timing.WINDOW_S


def test_what_disturbs_some_windows_leaves_the_figure_and_is_noted():
    found = timing.time(Known(1e-3, busy=(1.0, 1.0, 3.0)))
    assert found.latency_s == pytest.approx(1e-3)
    assert found.noisy


def test_a_call_costs_nothing_of_the_operators():
    assert own_s(10e-3, 100, 20e-6) == pytest.approx(8e-3)
    assert own_s(10e-3, 100, 200e-6) == pytest.approx(1e-3)  # an overhead that cannot be leaves a tenth
