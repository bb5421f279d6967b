"""The protocol against devices whose energy is known, and meters with the faults of real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends.base import Unknown
from eopt.backends.meters.base import EnergyReading
from eopt.backends.meters.window import measure_energy
from eopt.ir.errors import UsageError

sys.path.append(str(Path(__file__).parent))  # the simulation beside this file

from simulated import Device, SimulatedMeter, VirtualClock

QUIET = {"noise": 0.005}
RIPPLING = {"noise": 0.005, "ripple_w": 60.0}
FAULTS = {
    "noise": ({"noise": 0.01}, {}),
    "lag": (QUIET, {"lag_s": 0.3}),
    "wrap-around": (QUIET, {"wraps_j": 1000.0, "starts_j": 900.0}),
    "counter of a quarter of the time": (RIPPLING, {"duty": 0.25}),
    "dropped reads": (QUIET, {"dropped": 0.1}),
    "coarse steps": (QUIET, {"quantum_j": 1.0}),
    "drifting idle power": ({**QUIET, "idle_drift": 0.2}, {}),
    "warming up": ({**QUIET, "warming": 0.3}, {"lag_s": 0.1}),
    "millisecond counter without power": (QUIET, {"period_s": 0.001, "senses": False}),
    "power only": (QUIET, {"counts": False, "sensor_noise": 0.02}),
    "power only, late": (QUIET, {"counts": False, "lag_s": 0.3}),
    "power only, of a quarter of the time": (RIPPLING, {"counts": False, "duty": 0.25}),
}
ALIASED = ({"latency_s": 0.1, "ripple_w": 60.0, "ripple_hz": 10.0}, {"duty": 0.25})
"""A call takes as long as the sensor's period, so that a window sees one part of it only."""


def measured(device_faults=None, meter_faults=None, seed=0, trials=5) -> tuple[EnergyReading | Unknown, Device]:
    clock = VirtualClock()
    device = Device(clock, seed=seed, **(device_faults or {}))
    meter = SimulatedMeter(device, seed=seed, **(meter_faults or {}))
    return measure_energy(device.run, meter, trials=trials, clock=clock, seed=seed), device


def coverage(faults, seeds: int) -> float:
    """Share of measurements whose interval holds the truth."""
    results = [measured(*faults, seed=seed) for seed in range(seeds)]
    assert not [reading for reading, _ in results if isinstance(reading, Unknown)]
    return sum(reading.energy_j_lo <= device.truth_j <= reading.energy_j_hi for reading, device in results) / seeds


@pytest.mark.parametrize("fault", FAULTS)
def test_the_truth_is_near_whatever_the_meter_does(fault):
    reading, device = measured(*FAULTS[fault], seed=3)
    assert reading.energy_j == pytest.approx(device.truth_j, rel=0.03)
    assert reading.power_w == pytest.approx(device.load_w, rel=0.03)
    assert not reading.noisy
    assert (reading.trials, reading.scope) == (5, "board")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_interval_holds_the_truth_as_often_as_it_says(fault):
    assert coverage(FAULTS[fault], 20) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*FAULTS, "aliased"])
def test_the_interval_holds_the_truth_over_many_seeds(fault):
    assert coverage(FAULTS.get(fault, ALIASED), 150) >= 0.9


def test_a_sensor_in_step_with_the_work_is_noisy_and_still_covers():
    """Random phases make visible what each window alone would hide."""
    assert coverage(ALIASED, 20) >= 0.9
    assert measured(*ALIASED)[0].noisy


@given(
    idle_w=st.floats(5, 100),
    extra_w=st.floats(20, 900),
    latency_s=st.floats(1e-5, 0.5),
    period_s=st.sampled_from([0.001, 0.02, 0.1]),
    lag_s=st.floats(0, 0.3),
)
@settings(max_examples=20)
def test_an_exact_counter_gives_the_energy_at_any_power_latency_and_lag(idle_w, extra_w, latency_s, period_s, lag_s):
    device_facts = {"idle_w": idle_w, "load_w": idle_w + extra_w, "latency_s": latency_s}
    reading, device = measured(device_facts, {"period_s": period_s, "lag_s": lag_s})
    assert reading.energy_j_lo <= device.truth_j <= reading.energy_j_hi
    assert reading.energy_j == pytest.approx(device.truth_j, rel=0.01)
    assert reading.net_j == pytest.approx(extra_w * latency_s, rel=0.01, abs=0.01 * device.truth_j)
    assert reading.idle_w == pytest.approx(idle_w, rel=0.02)


@pytest.mark.parametrize("period_s", [0.001, 0.02, 0.1, 0.4])
def test_windows_are_two_seconds_and_fifty_periods_of_the_counter_or_longer(period_s):
    reading, device = measured(QUIET, {"period_s": period_s})
    assert reading.window_s >= max(2.0, 50 * period_s) * (1 - 1e-6)
    assert reading.calls * device.latency_s >= reading.window_s


def test_a_call_longer_than_the_window_is_made_once():
    reading, device = measured({"latency_s": 20.0})
    assert reading.calls == 1
    assert reading.energy_j == pytest.approx(device.truth_j, rel=0.01)


def test_a_device_that_becomes_faster_still_fills_its_windows():
    clock = VirtualClock()
    device = Device(clock)
    meter = SimulatedMeter(device)

    def run(calls: int) -> float:
        device.latency_s = 4e-4 if calls < 1000 else 2e-4  # slow while warming up
        return device.run(calls)

    reading = measure_energy(run, meter, clock=clock)
    assert reading.window_s >= 5.0 * (1 - 1e-6)
    assert reading.energy_j == pytest.approx(device.truth_j, rel=0.01)


def test_noise_beyond_three_per_cent_is_noisy():
    reading, _ = measured({"noise": 0.1}, seed=1)
    assert reading.noisy
    assert (reading.energy_j_hi - reading.energy_j_lo) / 2 > 0.03 * reading.energy_j


def test_more_trials_narrow_the_interval():
    widths = []
    for trials in (5, 20):
        readings = [measured({"noise": 0.02}, seed=seed, trials=trials)[0] for seed in range(6)]
        widths.append(sum(reading.energy_j_hi - reading.energy_j_lo for reading in readings))
    assert widths[1] < 0.7 * widths[0]


@pytest.mark.parametrize("gain", [{"counter_gain": 0.6}, {"power_gain": 0.6}])
def test_where_counter_and_power_disagree_the_interval_spans_both(gain):
    reading, device = measured(QUIET, gain)
    assert reading.noisy
    assert "sampled power gives" in reading.notes[-1]
    wrong_j = device.truth_j * 0.6
    assert reading.energy_j_lo <= wrong_j * 1.01
    assert reading.energy_j_hi >= device.truth_j * 0.99


def test_a_counter_without_power_readings_says_that_nothing_checked_it():
    reading, _ = measured({}, {"senses": False})
    assert any("not cross-checked" in note for note in reading.notes)
    assert not reading.noisy


def test_a_lag_longer_than_the_lead_in_is_seen():
    reading, _ = measured({}, {"lag_s": 2.5})
    assert reading.noisy
    assert any("from the first half" in note for note in reading.notes)


def test_drifting_idle_power_is_said():
    reading, _ = measured({"idle_drift": 0.5})
    assert any("idle power drifted" in note for note in reading.notes)


def test_dropped_reads_are_counted_and_their_reason_kept():
    reading, _ = measured({}, {"dropped": 0.1})
    assert any("of the reads failed: the driver timed out" in note for note in reading.notes)


def test_notes_of_the_meter_are_kept():
    assert "of the whole module" in measured({}, {"notes": ("of the whole module",)})[0].notes


def why(reading: EnergyReading | Unknown) -> str:
    assert isinstance(reading, Unknown)
    return "; ".join(reading.reasons)


def test_too_many_dropped_reads_end_as_unknown():
    text = why(measured({}, {"dropped": 0.5})[0])
    assert "of the counter's reads failed" in text
    assert "the driver timed out" in text


def test_a_meter_that_reads_nothing_ends_as_unknown_with_its_reasons():
    text = why(measured({}, {"counts": False, "senses": False})[0])
    assert "it has no counter" in text
    assert "it has no power sensor" in text


def test_a_counter_that_never_moves_ends_as_unknown():
    assert "does not move" in why(measured({}, {"stuck": True})[0])


def test_a_power_sensor_that_never_moves_ends_as_unknown():
    assert "whatever is done" in why(measured({}, {"stuck": True, "counts": False})[0])


def test_a_counter_too_slow_to_be_timed_ends_as_unknown():
    assert "less than thrice in 12 s" in why(measured({}, {"period_s": 6.0})[0])


def test_a_counter_that_goes_back_without_naming_a_range_ends_as_unknown():
    clock = VirtualClock()
    device = Device(clock)
    wrapping = SimulatedMeter(device, wraps_j=400.0)

    class Nameless(SimulatedMeter):
        def energy_j(self) -> float | Unknown:
            return wrapping.energy_j()

    assert "went backwards" in why(measure_energy(device.run, Nameless(device), clock=clock))


def test_a_counter_that_dies_during_the_trials_ends_as_unknown():
    clock = VirtualClock()
    device = Device(clock)

    class Dying(SimulatedMeter):
        def energy_j(self) -> float | Unknown:
            return super().energy_j() if clock.at_s < 110 else Unknown(("GPU is lost",))

    text = why(measure_energy(device.run, Dying(device), clock=clock))
    assert "of 5 windows could be measured" in text
    assert "GPU is lost" in text


def test_a_reading_outlives_a_meter_that_dies_before_the_last_idle():
    clock = VirtualClock()
    device = Device(clock)
    meter = SimulatedMeter(device)
    runs = []

    class Dying(SimulatedMeter):
        def energy_j(self) -> float | Unknown:
            return Unknown(("GPU is lost",)) if sum(runs) > 5.5 / device.latency_s * 5 else meter.energy_j()

    def run(calls: int) -> float:
        taken_s = device.run(calls)
        runs.append(calls)
        return taken_s

    reading = measure_energy(run, Dying(device, senses=False), clock=clock)
    assert reading.energy_j == pytest.approx(device.truth_j, rel=0.01)
    assert any("idle power after the trials is unknown" in note for note in reading.notes)


def test_one_trial_has_no_interval():
    with pytest.raises(UsageError, match="two trials or more, not 1"):
        measured(trials=1)


def test_the_same_seed_measures_the_same():
    assert measured(QUIET, {"duty": 0.25}, seed=5)[0] == measured(QUIET, {"duty": 0.25}, seed=5)[0]
