"""Operators against the whole model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.backends.base import Unknown
from eopt.backends.meters.base import EnergyReading
from eopt.backends.meters.closure import Closure, closure


def reading(energy_j: float, half: float = 0.0, scope: str = "board") -> EnergyReading:
    bounds = energy_j * (1 - half), energy_j * (1 + half)
    return EnergyReading(energy_j, *bounds, energy_j / 2, 100.0, 50.0, scope, 5, 100, 5.0, False, ())


def test_operators_are_weighted_with_how_often_they_run():
    found = closure([(reading(2), 3), (reading(4), 1)], reading(10))
    assert found == Closure(1.0, 1.0, 1.0, 10, 10)
    assert found.closes


def test_what_is_missing_between_operators_shows():
    found = closure([(reading(8, 0.01), 1)], reading(10, 0.01))
    assert found.share == pytest.approx(0.8)
    assert not found.closes


def test_independent_errors_add_in_quadrature_and_those_of_a_repeated_operator_add_up():
    apart = closure([(reading(1, 0.1), 1)] * 4, reading(4))
    repeated = closure([(reading(1, 0.1), 4)], reading(4))
    assert apart.share_hi - 1 == pytest.approx(0.05)
    assert repeated.share_hi - 1 == pytest.approx(0.1)


@given(st.lists(st.tuples(st.floats(1e-9, 1e3), st.floats(0, 0.3), st.integers(1, 100)), min_size=1, max_size=20))
def test_the_share_lies_in_its_interval_and_uncertainty_of_the_whole_widens_it(parts):
    operators = [(reading(energy, half), count) for energy, half, count in parts]
    sure, unsure = closure(operators, reading(5)), closure(operators, reading(5, 0.2))
    assert unsure.share_lo <= sure.share_lo <= sure.share <= sure.share_hi <= unsure.share_hi
    assert sure.sum_j == pytest.approx(sum(energy * count for energy, _, count in parts))


def test_energies_of_different_scope_do_not_add_up():
    found = closure([(reading(1), 1)], reading(1, scope="package"))
    assert found == Unknown(("energies of different scope do not add up: board, package",))


def test_no_operators_make_no_share():
    assert isinstance(closure([], reading(1)), Unknown)
