"""Fleets on loopback: servers die, freeze and lie, and every workload still gets an answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import pytest
from tvm_models import product

from eopt.backends.base import Unknown
from eopt.backends.harness.base import Setup, Workload
from eopt.ir.errors import InputError, UsageError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SETUP = Setup("tvm", threads=1, schedule="untuned")
OPERATORS = 8


@pytest.fixture(scope="module")
def fleet() -> Iterator[object]:
    pytest.importorskip("tvm")
    from eopt.backends.tvm.serve import local_fleet

    with local_fleet(3) as found:
        yield found


@pytest.fixture
def module():
    pytest.importorskip("tvm")
    from eopt.backends.tvm import fleet

    return fleet


def operators(number: int = OPERATORS) -> list[Workload]:
    return [product(8 + rows, 64, 64)[0] for rows in range(number)]


def feed(workload: Workload) -> dict[str, np.ndarray]:
    import onnx

    shape = onnx.load_from_string(workload.onnx).graph.input[0].type.tensor_type.shape
    return {"a": np.ones([dim.dim_value for dim in shape.dim], np.float32)}


def run(module, fleet, workloads, setup=SETUP, **more):
    return module.measure(workloads, setup, fleet.tracker, fleet.key, feed, **more)


def alive(fleet):
    from eopt.backends.tvm.tracker import Tracker

    with Tracker(fleet.tracker) as tracker:
        return tracker.servers(fleet.key)


def test_every_operator_is_placed_on_a_server_of_the_fleet(fleet, module):
    wanted = operators()
    results = dict(run(module, fleet, wanted))
    assert results.keys() == set(wanted)
    assert all(result.timing.latency_s > 0 for result in results.values())
    used = {result.server for result in results.values()}
    assert len(used) > 1
    assert used <= {("127.0.0.1", port) for port in fleet.servers.values()}


def test_one_operator_that_does_not_compile_is_unknown_and_the_others_go_on(fleet, module):
    broken = Workload("broken", operators(1)[0].onnx.replace(b"Relu", b"Rolu"))
    results = dict(run(module, fleet, [broken, *operators(2)]))
    assert "broken" in results.pop(broken).reasons[0]
    assert not [result for result in results.values() if isinstance(result, Unknown)]


def test_a_server_that_says_it_is_another_processor_is_left_out(fleet, module, monkeypatch):
    said, asked = module.peer.claims, count()

    def claims(session, target):
        return said(session, target) if next(asked) else {"mcpu": "pentium4"}

    monkeypatch.setattr(module.peer, "claims", claims)
    results = dict(run(module, fleet, operators()))
    assert not [result for result in results.values() if isinstance(result, Unknown)]
    assert len({result.server for result in results.values()}) <= 2


def test_where_all_lie_they_are_named(fleet, module, monkeypatch):
    monkeypatch.setattr(module.peer, "miscounts", lambda place, target: "a probe kernel gave wrong numbers")
    results = list(run(module, fleet, operators(2)))
    assert len(results) == 2
    for _, result in results:
        assert "no server with key 'local' is left" in result.reasons[-1]
        assert result.reasons[-1].count("left out: a probe kernel gave wrong numbers") == 3


def test_a_target_that_is_not_this_processor_makes_all_of_them_liars(fleet, module):
    setup = Setup("tvm", threads=1, schedule="untuned", tvm={"kind": "llvm", "mcpu": "nehalem"})
    ((_, result),) = run(module, fleet, operators(1), setup)
    assert "not nehalem" in result.reasons[-1]


def test_an_unknown_key_lists_the_known(fleet, module):
    with pytest.raises(InputError, match="no server has key 'board'; there are local"):
        next(module.measure(operators(1), SETUP, fleet.tracker, "board", feed))


def test_a_bad_target_is_refused_at_once(fleet, module):
    with pytest.raises(UsageError, match="nosuchkind"):
        next(run(module, fleet, operators(1), Setup("tvm", tvm={"kind": "nosuchkind"})))


def test_where_none_is_free_the_run_ends(fleet, module):
    from eopt.backends.tvm.tracker import Tracker

    with Tracker(fleet.tracker) as tracker:
        taken: set[tuple[str, int]] = set()
        while len(taken) < 3:  # those another test left come back in seconds
            lease = tracker.lease(fleet.key)
            taken |= {lease.server} if lease else set()
        with pytest.raises(InputError, match="was free in 1 s"):
            next(run(module, fleet, operators(1), wait_s=1))


def test_a_network_must_be_trusted(module):
    with pytest.raises(InputError, match="SSH tunnel"):
        next(module.measure(operators(1), SETUP, ("192.0.2.1", 9190), "board", feed))


def test_a_server_killed_in_the_middle_loses_nothing(fleet, module):
    wanted = operators(12)
    results = run(module, fleet, wanted)
    first = list(islice(results, 2))
    fleet.kill(next(iter(fleet.servers)))
    found = dict([*first, *results])
    assert found.keys() == set(wanted)
    assert not [result for result in found.values() if isinstance(result, Unknown)]
    assert len(alive(fleet)) == 2


def test_a_server_that_freezes_is_given_up(fleet, module, monkeypatch):
    monkeypatch.setattr(module, "_GRACE_S", 1.0)
    group = list(fleet.servers)[1]
    os.killpg(group, signal.SIGSTOP)
    try:
        results = dict(run(module, fleet, operators(4), job_s=6))
    finally:
        os.killpg(group, signal.SIGCONT)
    assert len(results) == 4
    assert sum(not isinstance(result, Unknown) for result in results.values()) >= 3


def test_when_all_die_the_rest_is_unknown(fleet, module):
    wanted = operators(12)
    results = run(module, fleet, wanted)
    first = next(results)
    for group in fleet.servers:
        fleet.kill(group)
    found = dict([first, *results])
    assert found.keys() == set(wanted)
    unknown = [result for result in found.values() if isinstance(result, Unknown)]
    assert unknown
    assert all("no server with key 'local' is left" in result.reasons[-1] for result in unknown)
