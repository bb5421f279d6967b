"""Architectures as work, and their ranking on devices with few measurements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.costmodel import cells, gaussian, ranking

COUNTS = np.random.default_rng(1).integers(0, 5, (60, 4)).astype(float)
COSTS = np.array([[1.0, 5.0, 0.5], [2.0, 9.0, 1.0], [4.0, 1.0, 3.0], [1.0, 2.0, 6.0]])  # kinds of work, devices
KNOWN = ranking.fit(COUNTS, 3.0 + COUNTS @ COSTS, ["a", "b", "c"])
NEW = 1.0 + COUNTS @ [3.0, 1.0, 1.0, 4.0]


def cell(*ops: str) -> tuple[int, ...]:
    return tuple(cells.CELL_OPS.index(name) for name in ops)


def test_a_cell_is_parsed_in_the_order_of_its_edges():
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
    assert cells.parse_cell(text) == (4, 2, 1, 0, 3, 1)


@pytest.mark.parametrize("text", ["|none~0|", "|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|"])
def test_another_search_space_is_refused(text):
    with pytest.raises(ValueError, match=r"no operator nor_conv_5x5|has 1 operators"):
        cells.parse_cell(text)


def test_edges_off_every_path_are_dead():
    # node 1 leads nowhere, node 2 is reached from nothing
    lost = cell("nor_conv_3x3", "none", "none", "skip_connect", "none", "nor_conv_3x3")
    assert cells.live(lost) == (False, False, False, True, False, False)
    assert cells.cell_counts([lost]).tolist() == [[1, 0, 2, 0]]
    assert cells.cell_counts([lost], dead_too=False).tolist() == [[1, 0, 0, 0]]


def test_borders_count_nodes_once():
    pool = "avg_pool_3x3"
    assert cells.cell_borders([cell(pool, pool, "none", pool, pool, pool)]).tolist() == [[3, 3]]
    assert cells.cell_borders([cell("none", "none", "none", pool, "none", "none")]).tolist() == [[1, 1]]


def test_blocks_with_wider_insides_work_more():
    chains = np.array([[name] * 22 for name in (0, 2, 3)])  # 3x3 kernels, expansions of 1, 3 and 6
    work = cells.block_work(chains).reshape(3, 7, 5)
    assert (np.diff(work[:, :, :3], axis=0) > 0).all()
    assert (work[:, :, 3] == 3 * np.array([1, 4, 4, 4, 4, 4, 1])).all()


def test_grouped_convolutions_halve_the_products():
    whole, grouped = cells.block_work(np.array([[0] * 22, [1] * 22])).reshape(2, 7, 5)
    assert grouped[:, 0] == pytest.approx(whole[:, 0] / 2)
    assert grouped[:, 1] == pytest.approx(whole[:, 1])


def test_skipping_is_free_where_the_shape_stays():
    work = cells.block_work(np.full((1, 22), 8)).reshape(7, 5)
    assert work[:, 3].tolist() == [0, 1, 1, 1, 1, 1, 1]  # the stem leaves 16 channels, as the first stage wants


def test_no_measurement_leaves_the_prior():
    assert KNOWN.adapt(COUNTS[:0], NEW[:0], COUNTS).tolist() == KNOWN.predict(COUNTS).tolist()


@given(st.permutations(range(8)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_measurements_does_not_count(order):
    once = KNOWN.adapt(COUNTS[:8], NEW[:8], COUNTS)
    assert KNOWN.adapt(COUNTS[order], NEW[order], COUNTS) == pytest.approx(once, rel=1e-9)


@given(st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_the_unit_of_measurements_does_not_count(unit):
    assert KNOWN.adapt(COUNTS[:8], unit * NEW[:8], COUNTS) == pytest.approx(
        KNOWN.adapt(COUNTS[:8], NEW[:8], COUNTS), rel=1e-6
    )


def test_measurements_bring_the_ranking_nearer():
    rank = lambda found: np.corrcoef(np.argsort(np.argsort(found)), np.argsort(np.argsort(NEW)))[0, 1]
    shots = KNOWN.design(COUNTS, 10)
    assert len(set(shots)) == 10
    assert rank(KNOWN.adapt(COUNTS[shots], NEW[shots], COUNTS)) > rank(KNOWN.predict(COUNTS)) + 0.02


def test_batches_on_one_chip_count_as_one_device():
    latency = 3.0 + COUNTS @ COSTS
    twice = np.concatenate([latency, latency[:, :1]], axis=1)
    again = ranking.fit(COUNTS, twice, ["a", "b", "c", "a"])
    assert again.mean == pytest.approx(KNOWN.mean)
    assert np.trace(again.covariance) < np.trace(ranking.fit(COUNTS, twice, ["a", "b", "c", "d"]).covariance) * 2


def test_what_cannot_be_learnt_from_is_refused():
    with pytest.raises(ValueError, match="two chips"):
        ranking.fit(COUNTS, NEW[:, None], ["a"])
    with pytest.raises(ValueError, match="not positive"):
        KNOWN.adapt(COUNTS[:2], np.array([1.0, 0.0]), COUNTS)


def test_noise_that_explains_the_rows_is_chosen():
    """With exact readings the small noise wins, and the mean goes through them."""
    points = np.linspace(0, 3, 12)[:, None]
    kernel = gaussian.alike(points, points, 1.0)
    errors = np.sin(points[:, 0])
    found = gaussian.averaged([(kernel, kernel)], (1e-4, 1.0), errors)
    assert found == pytest.approx(errors, abs=1e-3)


def test_without_rows_nothing_is_added():
    assert gaussian.averaged([(np.zeros((0, 0)), np.zeros((3, 0)))], (0.1,), np.zeros(0)).tolist() == [0, 0, 0]
