"""A served load: the queue against closed forms, and how joules, latency and devices move with the load."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.costmodel.query import Interval
from eopt.costmodel.serving import Server, plan

BATCHES = (1, 2, 4, 8, 16, 32, 64)
SAMPLING = 0.05  # 20,000 requests; the mean latency near saturation is the noisiest figure, and within this


def server(each_s: float = 1e-3, start_s: float = 4e-3, idle_w: float = 30.0, busy_w: float = 100.0) -> Server:
    seconds = tuple(start_s + each_s * batch for batch in BATCHES)
    return Server(BATCHES, seconds, tuple(Interval(busy_w * s, 50 * s, 200 * s) for s in seconds), idle_w)


@pytest.mark.parametrize("load", [0.1, 0.5, 0.8, 0.9])
def test_without_batches_it_is_the_queue_with_constant_service(load):
    """Pollaczek and Khinchine: s + load s / (2 (1 - load))."""
    device = server()
    seconds = float(device.service_s[1])
    served = device.at(load / seconds, 1)
    assert served.latency_mean_s == pytest.approx(seconds + load * seconds / (2 * (1 - load)), rel=SAMPLING)
    assert served.utilisation == pytest.approx(load, rel=SAMPLING)
    assert served.mean_batch == 1


@pytest.mark.parametrize("qps", [5, 50, 200, 400, 600])
def test_the_mean_latency_holds_the_closed_bound(qps):
    """Inoue 2021, for batch times a b + c without a limit on b. He finds the bound close: here within a tenth."""
    a, c = 1e-3, 4e-3
    one = (a + c) / (2 * (1 - qps * a)) * (1 + 2 * qps * c + (1 - qps * c) / (1 + qps * a))
    other = 1.5 * c / (1 - qps * a) + a / 2 * (qps * a + 2) / (1 - (qps * a) ** 2)
    mean_s = server(a, c).at(qps, BATCHES[-1]).latency_mean_s
    assert 0.9 * min(one, other) <= mean_s <= min(one, other) * (1 + SAMPLING)


@settings(max_examples=15)
@given(st.sampled_from(BATCHES), st.floats(0.01, 0.9), st.floats(1.05, 1.1 / 0.9))
def test_joules_of_a_request_fall_with_the_load_until_saturation(batch, share, factor):
    """Idle time is shared by more requests and batches are fuller; half a percent for sampling."""
    device = server()
    qps = share * device.capacity(batch)
    calm, busy = device.at(qps, batch), device.at(min(share * factor, 0.99) * device.capacity(batch), batch)
    assert busy.request_j.mid <= calm.request_j.mid * 1.005
    assert busy.utilisation >= calm.utilisation * 0.995
    assert calm.request_j.lo <= calm.request_j.mid <= calm.request_j.hi


def test_joules_are_those_of_batches_and_of_idle_time():
    served = server(idle_w=30, busy_w=100).at(10, 1)
    busy = served.utilisation
    assert served.power_w.mid == pytest.approx(100 * busy + 30 * (1 - busy))
    assert served.request_j.mid == pytest.approx(served.power_w.mid / 10, rel=SAMPLING)


def test_more_than_full_batches_serve_is_not_served():
    device = server()
    assert device.capacity(64) == pytest.approx(64 / 0.068)
    assert device.at(device.capacity(64), 64) is None
    assert device.at(0.99 * device.capacity(64), 64).utilisation > 0.98


def test_a_batch_is_padded_where_a_larger_one_takes_less():
    odd = Server((1, 2, 4), (3e-3, 5e-3, 4e-3), (Interval(3, 3, 3), Interval(5, 5, 5), Interval(4, 4, 4)), 10.0)
    assert list(odd.service_s[1:]) == sorted(odd.service_s[1:])
    assert odd.service_s[2] == 4e-3


# -- the plan


@pytest.mark.parametrize(("qps", "slo_s"), [(20, 0.02), (300, 0.03), (600, 0.06), (20, None), (900, None)])
def test_a_load_that_one_device_serves(qps, slo_s):
    found = plan(server(), qps, slo_s)
    assert (found.devices, found.each.qps) == (1, qps)
    assert found.sustained_qps > qps
    assert slo_s is None or found.each.latency_p99_s <= slo_s
    assert found.each.latency_mean_s < found.each.latency_p99_s


def test_of_the_batches_that_hold_the_objective_the_one_with_the_fewest_joules():
    device = server()
    found = plan(device, 600, 0.06)
    held = [served for batch in BATCHES if (served := device.at(600, batch)) and served.latency_p99_s <= 0.06]
    assert found.each.request_j.mid == min(served.request_j.mid for served in held)


@pytest.mark.parametrize(("qps", "slo_s"), [(5000, 0.05), (5000, None), (2000, 0.012)])
def test_a_larger_load_is_shared_by_as_few_devices_as_hold_it(qps, slo_s):
    found = plan(server(), qps, slo_s)
    assert found.devices > 1
    assert found.each.qps == pytest.approx(qps / found.devices)
    assert qps / (found.devices - 1) >= 0.98 * found.sustained_qps  # the percentile is sampled, so not quite monotone
    assert slo_s is None or found.each.latency_p99_s <= slo_s


def test_an_objective_shorter_than_a_request_is_never_held():
    found = plan(server(), 10, 0.004)
    assert (found.devices, found.sustained_qps, found.each) == (None, 0.0, None)


def test_a_stricter_objective_sustains_less():
    sustained = [plan(server(), 1, slo_s).sustained_qps for slo_s in (0.008, 0.012, 0.02, 0.1, None)]
    assert sustained == sorted(sustained)
