"""Energy of operators on a measured machine, and of what they make up."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends import target
from eopt.costmodel import composites, operator_energy
from eopt.costmodel.composites import Part
from eopt.costmodel.datasets import irene
from eopt.costmodel.operator_energy import Machine
from eopt.costmodel.records import kernels_of

HERE, THERE = target.load("nvidia-gtx-1070"), target.load("nvidia-gtx-1080-ti")
DATA = os.environ.get("EOPT_DATA")


def products(rows: list[int]) -> tuple[np.ndarray, operator_energy.Work]:
    kernels = [kernels_of("Gemm", ((m, 768), (768, 768), (768,)), "float32")[0] for m in rows]
    return np.full(len(rows), "Gemm"), operator_energy.work(kernels, HERE)


def measured() -> tuple[Machine, np.ndarray, operator_energy.Work, np.ndarray]:
    """A machine whose truth has the form of the model: 30 us of launch, 100 W below, 0.7 of the peaks."""
    names, work = products([8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192])
    latency_s = ((work.seconds.sum(1) / 0.7) ** 4 + 30e-6**4) ** 0.25
    energy_j = 100 * latency_s + work.amounts @ [2e-11, 1e-10]
    return operator_energy.fit(names, work, latency_s, energy_j, HERE), names, work, energy_j


MACHINE, NAMES, WORK, ENERGY = measured()


def test_a_machine_of_its_form_is_recovered():
    assert MACHINE.energy_j(NAMES, WORK) == pytest.approx(ENERGY, rel=0.05)
    assert MACHINE.kinds["Gemm"].launch_s == pytest.approx(30e-6, rel=0.2)
    # between the rows that were measured
    names, work = products([700])
    truth = 100 * ((work.seconds.sum(1) / 0.7) ** 4 + 30e-6**4) ** 0.25 + work.amounts @ [2e-11, 1e-10]
    assert MACHINE.energy_j(names, work) == pytest.approx(truth, rel=0.1)


@given(st.integers(1, 10**5), st.integers(1, 10**5))
@settings(max_examples=50, deadline=None)
def test_more_work_never_takes_less(few, more):
    """Of the formula; amounts grow on all columns together, as whole tiles would let shapes jump."""
    kind, one = MACHINE.kinds["Gemm"], WORK.take(np.array([0]))
    grown = [
        operator_energy.Work(one.seconds * factor, one.amounts * factor, one.shape)
        for factor in (min(few, more), max(few, more))
    ]
    less, larger = (float(kind.formula_j(work, MACHINE.low_w)[0]) for work in grown)
    assert 0 < less <= larger


def test_an_operator_that_was_not_measured_is_unknown():
    assert np.isnan(MACHINE.energy_j(np.array(["Softmax"]), WORK.take(np.array([0])))).all()


def test_no_measurement_leaves_what_the_sheet_says():
    none = np.zeros(0, int)
    assert MACHINE.adapt(NAMES[none], WORK.take(none), ENERGY[none]).energy_j(NAMES, WORK) == pytest.approx(
        MACHINE.energy_j(NAMES, WORK), rel=1e-9
    )


@given(st.permutations(range(5)))
@settings(max_examples=5, deadline=None)
def test_the_order_of_measurements_does_not_count(order):
    rows, shuffled = np.arange(5), np.array(order)
    found = [MACHINE.adapt(NAMES[own], WORK.take(own), 1.3 * ENERGY[own]) for own in (rows, shuffled)]
    once, again = (machine.energy_j(NAMES, WORK) for machine in found)
    assert again == pytest.approx(once, rel=1e-3)  # the search stops a little before its optimum


def test_measurements_move_a_machine_towards_them():
    shots = np.array([0, 5, 10])
    moved = MACHINE.adapt(NAMES[shots], WORK.take(shots), 1.3 * ENERGY[shots])
    before, after = (np.abs(np.log(machine.energy_j(NAMES, WORK) / (1.3 * ENERGY))) for machine in (MACHINE, moved))
    assert after.mean() < before.mean() / 2


def test_another_gpu_draws_more_while_it_waits():
    moved = MACHINE.moved(THERE)
    assert moved.low_w == pytest.approx(MACHINE.low_w + operator_energy.BUSY_SHARE * (THERE.tdp_w - HERE.tdp_w))
    assert moved.sheet == THERE


def test_a_cpu_has_no_tiles_and_no_blocks_of_threads():
    kernels = [kernels_of("LayerNormalization", ((64, 16), (16,), (16,)), "float32")[0]]
    narrow, plain = (
        operator_energy.work(kernels, target.load(name)).amounts[0, 1]
        for name in ("nvidia-gtx-1070", "cpu-intel-xeon-skylake")
    )
    assert narrow == 16 * plain  # a block of 256 threads for each row of 16


def test_a_reading_of_nothing_is_refused():
    with pytest.raises(ValueError, match="not positive"):
        operator_energy.fit(NAMES, WORK, ENERGY, 0 * ENERGY, HERE)
    with pytest.raises(ValueError, match="not positive"):
        composites.fit([[Part("a", 1.0, 1.0)]], np.zeros(1))


@given(st.lists(st.tuples(st.floats(1e-6, 1.0), st.integers(1, 10**6)), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_more_operators_never_take_less(sizes):
    parts = [Part("Gemm", energy_j, elements) for energy_j, elements in sizes]
    glue = composites.fit([parts[:1] * number for number in (1, 2, 5)], np.array([1.5, 2.9, 7.2]) * sizes[0][0])
    found = [float(glue.energy_j([parts[:count]])[0]) for count in range(len(parts) + 1)]
    assert (np.diff(found) >= 0).all()


def test_what_lies_between_operators_is_learnt():
    wholes = [[Part("Gemm", 1.0, 10.0)] * gemms + [Part("Tanh", 0.5, 1.0)] * tanhs for gemms, tanhs in
              ((1, 0), (2, 1), (4, 1), (3, 6), (0, 2))]  # fmt: skip
    energy_j = np.array([1.2 * sum(part.energy_j for part in whole) + 0.1 for whole in wholes])
    # the prior draws a little towards a plain sum, which is off by 20 % and more
    assert composites.fit(wholes, energy_j).energy_j(wholes) == pytest.approx(energy_j, rel=0.05)


def test_a_kind_nobody_has_seen_counts_with_its_joules():
    glue = composites.fit([[Part("Gemm", 1.0, 10.0)]], np.array([1.0]))
    with_it, without = glue.energy_j([[Part("Gemm", 1.0, 10.0), Part("Conv1D", 3.0, 5.0)], [Part("Gemm", 1.0, 10.0)]])
    assert with_it - without == pytest.approx(3.0, abs=0.3)  # and the number of operators


@pytest.mark.skipif(not DATA, reason="EOPT_DATA is not set: the IrEne files are not here")
def test_composites_of_irene_hold_the_operators_below_them():
    wholes = irene.composites(Path(str(DATA)) / irene.SOURCE.folder)
    rows = irene.SOURCE.load(Path(str(DATA)) / irene.SOURCE.folder).rows
    assert len(wholes) == (rows["level"] != "operator").sum()
    layers = wholes[wholes["op"] == "BertLayer"]["operators"]
    assert {tuple(sorted(kind for kind, _, _ in parts)) for parts in layers} == {
        ("LayerNorm",) * 2 + ("Linear",) * 6 + ("MatMul",) * 2 + ("Softmax",)
    }
    bert = wholes[(wholes["op"] == "Model") & (wholes["workload"] == "bert-base-uncased")]["operators"]
    assert {sum(kind == "Softmax" for kind, _, _ in parts) for parts in bert} == {12}
