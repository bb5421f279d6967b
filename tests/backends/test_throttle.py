"""Targets at a clock and under a power cap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eopt.backends import target
from eopt.backends.impute import completed
from eopt.backends.throttle import at
from eopt.ir.errors import UsageError

A100 = target.load("nvidia-a100-80gb-sxm")
XEON = target.load("cpu-intel-xeon-ice-lake")


def test_peaks_follow_the_clock_and_memory_does_not():
    half = at(A100, clock_hz=705e6)
    assert half.matrix["float16"] == pytest.approx(156e12)
    assert half.vector["float32"] == pytest.approx(9.75e12)
    assert half.l2_bandwidth_bytes_per_s == pytest.approx(A100.l2_bandwidth_bytes_per_s / 2)
    assert half.bandwidth_bytes_per_s == A100.bandwidth_bytes_per_s
    assert (half.name, half.clock_hz, half.clock_boost_hz) == (A100.name, 705e6, 1410e6)
    assert half.imputed == {"rates at 705 MHz"}


def test_what_follows_from_the_clock_stays_true():
    half = completed(at(A100, clock_hz=705e6))
    assert half.lanes_per_core == pytest.approx(completed(A100).lanes_per_core)
    assert (half.clock_hz, half.clock_boost_hz) == (705e6, 1410e6)


def test_the_peaks_of_cpus_are_at_their_base_clock():
    assert at(XEON, clock_hz=2.3e9).vector == pytest.approx(XEON.vector)
    assert at(XEON, clock_hz=3.4e9).vector["float32"] == pytest.approx(XEON.vector["float32"] * 3.4 / 2.3)


def test_a_second_clock_replaces_the_first():
    again = at(at(A100, clock_hz=705e6), clock_hz=1410e6)
    assert again.matrix == pytest.approx(A100.matrix)


def test_a_cap_replaces_the_tdp_and_leaves_idle_power():
    capped = at(A100, power_cap_w=250)
    assert (capped.tdp_w, capped.power_cap_w, capped.matrix) == (250, 250, A100.matrix)
    assert capped.idle_w == pytest.approx(completed(A100).idle_w), "a share of 400 W, not of 250 W"
    assert completed(capped).imputed["idle_w"] == completed(A100).imputed["idle_w"]
    assert "rates under a cap of 250 W" in capped.imputed
    assert at(A100, power_cap_w=500).tdp_w == 400


def test_both_at_once_and_neither():
    both = at(A100, 1005e6, 250)
    assert both == at(at(A100, power_cap_w=250), clock_hz=1005e6)
    assert at(A100) is A100


def test_a_device_at_another_clock_is_another_key():
    """Hashes are by name, equality is by every field: caches keep the two apart."""
    slow = at(A100, clock_hz=705e6)
    assert hash(slow) == hash(A100)
    assert {A100: "free", slow: "held"}[at(A100, clock_hz=705e6)] == "held"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clock_hz": 1500e6}, "--clock 1500: nvidia-a100-80gb-sxm runs at 128 to 1480 MHz"),
        ({"clock_hz": 100e6}, "--clock 100: nvidia-a100-80gb-sxm runs at 128 to 1480 MHz"),
        ({"clock_hz": float("nan")}, "--clock nan"),
        ({"power_cap_w": 51}, "--power-cap 51: nvidia-a100-80gb-sxm needs 52 W with nothing to do"),
        ({"power_cap_w": float("nan")}, "--power-cap nan"),
    ],
)
def test_what_the_device_cannot_do(arguments, message):
    with pytest.raises(UsageError, match=message):
        at(A100, **arguments)


def test_a_sheet_without_clocks():
    bare = replace(A100, clock_base_hz=None, clock_boost_hz=None, idle_w=30.0)
    assert at(bare, clock_hz=705e6).matrix["float16"] == pytest.approx(156e12, rel=0.2)
    assert at(bare, power_cap_w=40).idle_w == 30.0
