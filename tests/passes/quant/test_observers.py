"""Streaming observers against numpy, scipy and onnxruntime on the whole data at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy as kullback_leibler

from eopt.passes.quant.observers import Entropy, MinMax, Mse, ObserverKind, Observing, Percentile
from eopt.passes.quant.observers.entropy import divergence
from eopt.passes.quant.observers.histogram import BINS, Histogram
from eopt.passes.quant.observers.mse import Mass

floats = st.floats(-1e6, 1e6, width=32)
batches = st.lists(arrays(np.float32, st.integers(1, 50), elements=floats), min_size=1)
kinds = pytest.mark.parametrize("make", [Observing(kind, 99.0, sym) for kind in ObserverKind for sym in (False, True)])


def watched(observer, *parts):
    for part in parts:
        observer.update(part)
    return observer


def drawn(name: str, count: int = 50_000) -> np.ndarray:
    """Shapes activations have: around zero, heavy-tailed, behind a ReLU, skewed, below zero."""
    rng = np.random.default_rng(0)
    shapes = {
        "normal": lambda: rng.standard_normal(count),
        "laplace": lambda: rng.laplace(size=count),
        "student": lambda: rng.standard_t(3, count),
        "relu": lambda: np.maximum(rng.standard_normal(count), 0),
        "gumbel": lambda: rng.gumbel(size=count),
        "negative": lambda: -rng.exponential(size=count) - 0.5,
    }
    return shapes[name]().astype(np.float32)


def squared_error(values: np.ndarray, low: float, high: float, symmetric: bool) -> float:
    """Mean squared error of the 8-bit grid over a range, by QuantizeLinear's arithmetic."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (max(-low, high) / 127 if symmetric else (high - low) / 255) or 1.0
    least, most, zero_point = (-127, 127, 0) if symmetric else (0, 255, round(-low / scale))
    integers = np.clip(np.rint(values / scale) + zero_point, least, most)
    return float(np.mean(np.square(values - (integers - zero_point) * scale)))


# -- all observers


@given(parts=batches, seed=st.integers(0, 2**16))
def test_neither_order_nor_batches_matter_to_the_histogram(parts, seed):
    """Tolerance: none. Bins are powers of two wide, so a float falls into its bin without rounding."""
    shuffled = np.random.default_rng(seed).permutation(np.concatenate(parts))
    first, second = watched(Histogram(), *parts), watched(Histogram(), *np.array_split(shuffled, 2))
    assert (first.reach, first.zeros, first.range()) == (second.reach, second.zeros, second.range())
    assert np.array_equal(first.counts, second.counts)


@kinds
def test_neither_order_nor_batches_matter_to_the_range(make):
    values = drawn("gumbel")
    parts = [values[start::7] for start in range(7)]
    assert watched(make(), values).range() == watched(make(), *reversed(parts)).range()


@kinds
def test_no_value_is_no_range(make):
    assert make().range() is None
    assert watched(make(), np.zeros((0, 3), np.float32)).range() is None


@kinds
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_shows_however_early(make, bad):
    found = watched(make(), np.array([1.0]), np.array([1.0, bad]), np.array([2.0])).range()
    assert not all(map(math.isfinite, found))


@kinds
@pytest.mark.parametrize("value", [0.0, 2.5, -3.0, 1e-35, 3e38])
def test_one_value_is_on_the_grid(make, value):
    """Constant activations are represented but for rounding."""
    constant = np.full(10, value, np.float32)
    error = squared_error(constant.astype(np.float64), *watched(make(), constant).range(), make.symmetric)
    assert math.sqrt(error) <= abs(value) * 1e-7


@kinds
def test_zeros_alone_then_values(make):
    watching = watched(make(), np.zeros(10, np.float32))
    assert watching.range() == (0.0, 0.0)
    low, high = watched(watching, np.full(1000, 4.0, np.float32)).range()
    # a bin of the histogram is 8 / 4096 wide; a symmetric range ends at -4 too
    assert high == pytest.approx(4.0, abs=2e-3)
    assert low == pytest.approx(0, abs=1e-9) or low == pytest.approx(-4, abs=2e-3)


def test_memory_is_constant():
    watching = Histogram()
    for magnitude in (1e-6, 1.0, 1e9):
        watching.update(np.linspace(-magnitude, magnitude, 10_000))
    assert watching.counts.size == BINS and watching.counts.sum() == 30_000
    assert 1e9 < watching.reach <= 2e9


# -- minmax and percentile


@given(batches)
def test_minmax_equals_numpy(parts):
    whole = np.concatenate(parts)
    assert watched(MinMax(), *parts).range() == (whole.min(), whole.max())


@given(batches, st.floats(60, 100))
@settings(max_examples=200)
def test_percentile_equals_numpy_within_a_bin(parts, share):
    watching = watched(Percentile(share), *parts)
    whole = np.concatenate(parts).astype(np.float64)
    low, high = watching.range()
    tail = 50 - share / 2
    bin_width = 2 * watching.seen.reach / BINS * (1 + 1e-6)
    # numpy's inverted_cdf returns a sample, as a histogram does; at a tie of counts the neighbouring sample is as right
    below = [np.percentile(whole, tail, method=method) for method in ("inverted_cdf", "higher")]
    above = [np.percentile(whole, 100 - tail, method=method) for method in ("inverted_cdf", "lower", "higher")]
    assert min(below) - bin_width <= low <= max(below) + bin_width
    assert min(above) - bin_width <= high <= max(above) + bin_width


def test_percentile_leaves_rare_outliers_out():
    watching = watched(Percentile(99.9), *(drawn("normal", 10_000) for _ in range(10)), np.array([1e4]))
    low, high = watching.range()
    # the reach grew to 16384 with the outlier, so a bin is 8 wide
    assert -11.4 <= low < 0 < high <= 11.4


def test_all_of_the_values_is_minmax():
    assert watched(Percentile(100), np.array([-1.5, 0.25, 8.0])).range() == (-1.5, 8.0)


# -- mse


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", ["normal", "laplace", "student", "relu", "gumbel", "negative"])
def test_mse_is_as_good_as_a_brute_force_search(name, symmetric):
    values = drawn(name)
    found = squared_error(values, *watched(Mse(symmetric), values).range(), symmetric)
    ends = float(values.min()), float(values.max())
    shares = np.linspace(0.3, 1, 36)
    pairs = [(low, high) for low in shares for high in shares] if not symmetric else [(s, s) for s in shares]
    best = min(squared_error(values, low * ends[0], high * ends[1], symmetric) for low, high in pairs)
    # 2 %: what bins of a quarter of a step and steps 1 % apart leave open
    assert found <= best * 1.02
    assert found <= squared_error(values, *ends, symmetric) * 1.02


@settings(max_examples=30)
@given(parts=batches, symmetric=st.booleans())
def test_mse_is_never_worse_than_minmax_on_the_histogram(parts, symmetric):
    watching = watched(Mse(symmetric), *parts)
    if not watching.seen.usable:
        return
    mass = Mass(watching.seen)
    found, widest = (priced(mass, ends, symmetric) for ends in (watching.range(), watching.seen.range()))
    # float64 sums of squares: what saturates is the difference of two of them
    slack = 1e-9 * float(np.sum(mass.weights * mass.points**2))
    assert found <= widest + slack


def priced(mass: Mass, ends: tuple[float, float], symmetric: bool) -> float:
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    step = max(-low, high) / 127 if symmetric else (high - low) / 255
    lowest = -127 if symmetric else round(low / step)
    return float(mass.errors(step, np.array([lowest]), np.array([lowest + (254 if symmetric else 255)]))[0])


# -- entropy


@settings(max_examples=50)
@given(counts=arrays(np.int64, 40, elements=st.integers(0, 9)), start=st.integers(0, 12), stop=st.integers(28, 40))
def test_divergence_is_that_of_the_talk(counts, start, stop):
    """Step by step as on the slides of GTC 2017, the divergence itself by scipy."""
    levels = 7
    reference = counts[start:stop].astype(float)
    reference[0] += counts[:start].sum()
    reference[-1] += counts[stop:].sum()
    candidate = np.zeros_like(reference)
    for level in np.array_split(np.arange(reference.size), [k * reference.size // levels for k in range(1, levels)]):
        held = level[reference[level] > 0]
        candidate[held] = counts[start:stop][level].sum() / max(held.size, 1)
    if not candidate.any():
        return
    expected = kullback_leibler(reference, candidate)
    assert divergence(counts, start, stop, levels) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("name", "bins"), [("uniform", 2), ("normal", 16)])
def test_entropy_agrees_with_onnxruntime_within_a_few_bins(name, bins):
    """Their threshold jumps with the number of bins (from 1.0 to 3.9 on `uniform`, 3.8 to 4.6 on `normal`), as all that
    do not divide by the levels go into the last level; 2047 bins and 255 levels are nearest to ours. The divergence has
    a sharp minimum on `uniform`; on `normal` it is flat, and 16 bins are 2 % of the threshold."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, 200_000).astype(np.float32)
    values[:20] = np.linspace(-8, 8, 20)
    if name == "normal":
        values = rng.standard_normal(200_000).astype(np.float32)
    largest = float(np.abs(values).max())
    counts, edges = np.histogram(values, 2047, (-largest, largest))
    collector = calibrate.HistogramCollector("entropy", False, 2047, 255, None, None)
    theirs = collector.get_entropy_threshold((counts, edges.astype(np.float32), values.min(), values.max()), 255)
    ours = watched(Entropy(symmetric=True), values).range()
    assert ours == pytest.approx([float(end) for end in theirs], abs=bins * 2 * largest / 2047)


def test_entropy_is_not_decided_by_the_zeros_of_a_relu():
    values = drawn("relu")
    with_zeros, without = (watched(Entropy(), part).range()[1] for part in (values, values[values > 0]))
    assert with_zeros == without > 3
