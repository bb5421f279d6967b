"""Scale and zero-point arithmetic, as properties over all ranges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from eopt.ir.types import DType
from eopt.passes.quant import params
from eopt.passes.quant.params import Grid

finite = st.floats(-(2.0**100), 2.0**100, width=32)
dtypes = st.sampled_from([DType.UINT8, DType.INT8])


def round_trip(values: np.ndarray, grid: Grid) -> np.ndarray:
    """QuantizeLinear then DequantizeLinear as ONNX defines them, in float64."""
    limits = np.iinfo(grid.dtype.numpy)
    integers = np.clip(np.rint(values / grid.scale) + grid.zero_point, limits.min, limits.max)
    return (integers - grid.zero_point) * grid.scale


@given(finite, finite, dtypes)
def test_zero_is_exact(a, b, dtype):
    grid = params.asymmetric(min(a, b), max(a, b), dtype)
    limits = np.iinfo(dtype.numpy)
    assert limits.min <= grid.zero_point <= limits.max
    assert round_trip(np.zeros(1), grid)[0] == 0.0


@given(finite, finite, dtypes, st.floats(0, 1))
def test_values_in_range_come_back_within_half_a_step(a, b, dtype, share):
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    value = np.array([low + share * (high - low)])
    grid = params.asymmetric(low, high, dtype)
    # the scale is rounded to float32, which moves the ends of the range by 255 * 2^-24 steps
    assert abs(round_trip(value, grid) - value)[0] <= grid.scale * (0.5 + 255 * 2.0**-23)


@given(finite, finite)
def test_symmetric_grids_have_no_offset_and_cover_both_ends(a, b):
    grid = params.symmetric(min(a, b), max(a, b), DType.INT8)
    ends = np.array([a, b], dtype=np.float64)
    assert grid.zero_point == 0 and grid.dtype is DType.INT8
    assert np.all(abs(round_trip(ends, grid) - ends) <= grid.scale * (0.5 + 127 * 2.0**-23))


@pytest.mark.parametrize("dtype", [DType.UINT8, DType.INT8])
def test_a_tensor_of_zeros_gets_a_positive_scale(dtype):
    assert params.asymmetric(0.0, 0.0, dtype).scale > 0
    assert params.symmetric(0.0, 0.0, DType.INT8).scale > 0


def test_a_constant_tensor_is_represented():
    grid = params.asymmetric(3.0, 3.0, DType.UINT8)
    assert round_trip(np.array([3.0]), grid)[0] == pytest.approx(3.0, rel=1e-6)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-1e6, 1e6, width=32)))
def test_weights_use_the_whole_range_of_every_channel(weight):
    scales = params.weight_scales(weight, 1, 127)
    integers = params.quantized(weight, scales, 1, DType.INT8).astype(np.float64)
    others = tuple(axis for axis in range(weight.ndim) if axis != 1)
    assert scales.dtype == np.float32 and np.all(scales > 0)
    shape = [-1 if axis == 1 else 1 for axis in range(weight.ndim)]
    error = np.abs(integers * scales.reshape(shape) - weight)
    # half a step, and the rounding of a float32 quotient of up to 127
    assert np.all(error <= scales.reshape(shape) * (0.5 + 127 * 2.0**-22))
    peaks, extremes = np.abs(weight).max(axis=others), np.abs(integers).max(axis=others)
    assert np.all(extremes[peaks > 1e-30] == 127) and np.all(extremes[peaks == 0] == 0)


def test_reduced_range_stays_within_seven_bits():
    weight = np.array([[1.0, -2.0]], dtype=np.float32)
    integers = params.quantized(weight, params.weight_scales(weight, 1, 63), 1, DType.INT8)
    assert np.abs(integers).max() == 63


def test_a_bias_far_above_its_weights_fits_into_int32():
    weight = np.array([[1e-12, 1.0]], dtype=np.float32)
    bias = np.array([5.0, 5.0], dtype=np.float32)
    scales = params.weight_scales(weight, 1, 127, params.bias_floors(bias, 0.01))
    integers = params.quantized(bias, np.float32(0.01) * scales, None, DType.INT32)
    np.testing.assert_allclose(integers * (0.01 * scales.astype(np.float64)), bias, rtol=1e-4)
    assert scales[1] == np.float32(1 / 127)
