"""Intervals hold where they were made for, and lean on the wider kind where little was measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eopt.costmodel import intervals
from eopt.costmodel.table import SCALES, TYPES

GENERATIONS = ("pascal", "volta", "turing", "ampere", "hopper")


def residuals(seed: int, spread: float, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return spread * rng.standard_normal(count), rng.integers(0, len(GENERATIONS), count)


@given(st.integers(0, 50), st.floats(0.05, 1.0))
def test_nine_of_ten_residuals_lie_within(seed, spread):
    error, device = residuals(seed, spread)
    kind = np.full(len(error), "gemm|bfloat16||large")
    half = intervals.widths(intervals.fit(kind, error, device, GENERATIONS), kind)
    # 2,000 draws: three standard deviations of the share are 2 %
    assert np.mean(np.abs(error) <= half) == pytest.approx(0.9, abs=0.02)


def test_a_kind_has_the_width_of_its_own_residuals():
    narrow, wide = residuals(0, 0.1), residuals(1, 0.8)
    kind = np.repeat(["gemm|bfloat16||large", "gemm|float8|block|large"], 2000)
    found = intervals.fit(kind, np.append(narrow[0], wide[0]), np.append(narrow[1], wide[1]), GENERATIONS)
    assert found["gemm|bfloat16||large"] < found["gemm"] < found["gemm|float8|block|large"]


def test_one_generation_leans_on_the_family():
    error, device = residuals(0, 0.4)
    kind = np.where(device == 0, "gemm|float8|block|large", "gemm|bfloat16||large")
    error = np.where(device == 0, error / 10, error)
    found = intervals.fit(kind, error, device, GENERATIONS)
    alone = np.quantile(np.abs(error[device == 0]), 0.9)
    assert alone < found["gemm|float8|block"] < found["gemm"]


def test_what_is_not_known_falls_back_to_what_is():
    found = {"gemm": 0.5, "gemm|bfloat16": 0.3}
    kind = np.array(["gemm|bfloat16||small", "gemm|float8|block|small", "moe|float8||small"])
    assert intervals.widths(found, kind, 1.0).tolist() == [0.3, 0.5, 1.0]


def test_kinds_say_what_a_kernel_is():
    dtype = np.array([TYPES.index("bfloat16"), TYPES.index("float8"), TYPES.index("bfloat16")])
    scale = np.array([SCALES.index(""), SCALES.index("block"), SCALES.index("")])
    names, place = intervals.kinds("gemm", dtype, scale, np.array([1e-6, 1e-3, 2e-6]))
    assert names[place].tolist() == ["gemm|bfloat16||small", "gemm|float8|block|large", "gemm|bfloat16||small"]
