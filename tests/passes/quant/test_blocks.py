"""Integer grids of weights, group by group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eopt.ir.errors import UsageError
from eopt.passes.quant import packed
from eopt.passes.quant.blocks import GROUPS, Blocks, BlockWeight, fit, round_to_nearest

SPECS = st.builds(
    Blocks, st.sampled_from([4, 8]), st.sampled_from([None, 16, 32]), st.booleans(), st.booleans(), st.booleans()
)
WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 70), st.integers(1, 4)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-1, 1, width=32),
)


def error(weight: np.ndarray, result: BlockWeight) -> float:
    return float(np.square(weight - result.dequantised(), dtype=float).sum())


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, SPECS)
def test_every_weight_is_on_the_nearest_point_of_its_group(weight: np.ndarray, spec: Blocks):
    result = round_to_nearest(weight, spec)
    low, high = spec.limits
    assert low <= result.integers.min() and result.integers.max() <= high
    assert np.isfinite(result.scales).all() and (result.scales != 0).all()
    for number, rows in enumerate(spec.rows(len(weight))):
        scale, zero = result.scales[number].astype(float), result.zero_points[number].astype(float)
        points = (np.arange(low, high + 1)[:, None] - zero) * scale  # [integers, n]
        nearest = np.abs(weight[rows, None] - points).min(axis=1)
        chosen = np.abs(weight[rows] - (result.integers[rows].astype(float) - zero) * scale)
        # the quotient is rounded to float32 before it is rounded to an integer: at ties the neighbour is as good
        np.testing.assert_allclose(chosen, nearest, atol=np.abs(scale).max() * 1e-4)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, SPECS)
def test_without_search_the_grid_covers_all_weights(weight: np.ndarray, spec: Blocks):
    result = round_to_nearest(weight, replace(spec, clip=False))
    for number, rows in enumerate(spec.rows(len(weight))):
        # half a step from rounding; an asymmetric zero point is rounded too, which may push an end out by as much
        allowed = np.abs(result.scales[number]) * (0.5 if spec.symmetric else 1.0) * 1.001
        assert (np.abs(weight[rows] - result.dequantised()[rows]) <= allowed).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 32])
def test_the_search_lowers_the_error(group: int | None, symmetric: bool):
    weight = np.random.default_rng(0).standard_t(4, (256, 64)).astype(np.float32)
    spec = Blocks(4, group, symmetric)
    plain, searched = (error(weight, round_to_nearest(weight, replace(spec, clip=clip))) for clip in (False, True))
    assert searched < 0.98 * plain


def test_a_negative_scale_uses_the_sixteenth_integer():
    group = np.array([[8.0], [-3.0], [1.0]], np.float32)
    grid = fit(group, Blocks(4, 16, signed_scales=True, clip=False))
    assert grid.scale == -1.0
    np.testing.assert_array_equal(grid.real(grid.integers(group)), group)


def test_importance_decides_whose_error_counts():
    group = np.array([[1.0], [0.06], [0.06], [0.06]], np.float32)  # one step of 1/7 cannot serve both
    for importance in ([1, 0, 0, 0], [0, 1, 1, 1]):
        wanted = np.array(importance, np.float32)
        grid = fit(group, Blocks(4, 16), wanted)
        missed = np.square(group - grid.real(grid.integers(group)))[:, 0]
        other = fit(group, Blocks(4, 16), 1 - wanted)
        assert wanted @ missed < wanted @ np.square(group - other.real(other.integers(group)))[:, 0]


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, SPECS.filter(lambda spec: spec.group is not None))
def test_packing_keeps_every_integer_and_pads_with_zeros(weight: np.ndarray, spec: Blocks):
    result = round_to_nearest(weight, spec)
    stored, scales, zeros = packed.nbits(result)
    k, n = weight.shape
    groups = -(-k // spec.group)
    assert stored.shape == (n, groups, spec.group * spec.bits // 8)
    per_byte = 8 // spec.bits
    spread = lambda array: np.stack([array >> spec.bits * i & (1 << spec.bits) - 1 for i in range(per_byte)], -1)
    offset = (1 << spec.bits - 1) if spec.symmetric else 0
    np.testing.assert_array_equal(spread(stored).reshape(n, -1)[:, :k].T.astype(int) - offset, result.integers)
    np.testing.assert_array_equal(scales.T, result.scales)
    assert (zeros is None) == spec.symmetric
    if zeros is not None:
        np.testing.assert_array_equal(spread(zeros).reshape(n, -1)[:, :groups].T, result.zero_points)


def test_a_group_must_be_one_that_formats_know():
    for group in (0, 24, 512):
        with pytest.raises(UsageError, match=f"groups of {group} .* {GROUPS[0]}"):
            Blocks(group=group)
    with pytest.raises(UsageError, match="weights of 3 bits"):
        Blocks(bits=3)
