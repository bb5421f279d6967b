"""The physics prior: hand-computed figures, and monotone where physics is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends import executor, target
from eopt.costmodel import energy, roofline
from eopt.costmodel.prior import Prior
from eopt.costmodel.query import Basis, Cost, Kernel, Unknown
from eopt.ir.ops import Unit
from eopt.ir.types import DType

H100, TENSORRT = target.load("nvidia-h100-sxm"), executor.load("tensorrt")
ADD = Kernel("Add", ((Unit.VECTOR, DType.FLOAT32, 1e9),), 12e9, 0.0, None, 10**9)

gemms = st.builds(
    lambda m, n, k, dtype: Kernel(
        "MatMul",
        ((Unit.MATRIX, dtype, 2.0 * m * n * k),),
        dtype.bits / 8 * (m * k + m * n),
        dtype.bits / 8 * n * k,
        (1, m, n, k),
        m * n,
    ),
    st.integers(1, 8192),
    st.integers(1, 8192),
    st.integers(1, 8192),
    st.sampled_from([DType.FLOAT32, DType.FLOAT16, DType.BFLOAT16, DType.INT8]),
)
sheets = st.sampled_from(["nvidia-h100-sxm", "nvidia-t4", "nvidia-p100-sxm2", "amd-mi250", "cpu-amd-epyc-9004"]).map(
    target.load
)


def cost(kernel: Kernel, device=H100, engine=None) -> Cost:
    answer = Prior().query(kernel, device, engine or executor.default_for(device))
    assert isinstance(answer, Cost), answer
    return answer


def test_a_streaming_kernel_takes_bytes_over_bandwidth():
    # 12 GB at 85 % of 3.35 TB/s, far beyond the cache, plus one launch
    expected = 12e9 / (0.85 * 3.35e12) + TENSORRT.launch_s
    assert cost(ADD).latency_s.mid == pytest.approx(expected, rel=1e-9)


def test_a_large_product_takes_flops_over_the_matrix_peak():
    m = 16384
    flops = 2.0 * m**3
    kernel = Kernel("MatMul", ((Unit.MATRIX, DType.FLOAT16, flops),), 4.0 * m * m, 2.0 * m * m, (1, m, m, m), m * m)
    waves = 128 * 64 / 132  # tiles of 256 x 128 over 132 multiprocessors
    expected = flops / (989.4e12 * 0.75) * (-(-128 * 64 // 132) / waves) + TENSORRT.launch_s
    assert roofline.latency(kernel, H100, TENSORRT).total_s == pytest.approx(expected, rel=1e-6)


@given(gemms, sheets, st.floats(1.0, 4.0))
@settings(max_examples=80)
def test_more_bandwidth_or_peak_is_never_slower(kernel, device, factor):
    before = cost(kernel, device).latency_s.mid
    wider = replace(device, name="wider", bandwidth_bytes_per_s=device.bandwidth_bytes_per_s * factor)
    faster = replace(
        device,
        name="faster",
        matrix={k: v * factor for k, v in device.matrix.items()},
        vector={k: v * factor for k, v in device.vector.items()},
    )
    for better in (wider, faster):
        engine = executor.default_for(device)
        roof = roofline.latency(kernel, better, engine)
        assert roof.total_s <= roofline.latency(kernel, device, engine).total_s * (1 + 1e-9)
    assert before > 0


@given(gemms, sheets, st.floats(1.0, 4.0))
@settings(max_examples=80)
def test_more_work_is_never_cheaper(kernel, device, factor):
    more = replace(
        kernel,
        flops=tuple((unit, dtype, flops * factor) for unit, dtype, flops in kernel.flops),
        activation_bytes=kernel.activation_bytes * factor,
    )
    assert cost(more, device).latency_s.mid >= cost(kernel, device).latency_s.mid * (1 - 1e-9)
    assert cost(more, device).energy_j.mid >= cost(kernel, device).energy_j.mid * (1 - 1e-9)


@given(gemms, sheets)
@settings(max_examples=80)
def test_power_stays_under_the_cap_and_intervals_hold_the_estimate(kernel, device):
    answer = cost(kernel, device)
    assert answer.power_w <= device.tdp_w * (1 + 1e-6)
    assert sum(answer.terms.values()) == pytest.approx(answer.energy_j.mid)
    assert answer.energy_j.lo < answer.energy_j.mid < answer.energy_j.hi
    assert answer.basis is Basis.ESTIMATED
    assert 0 < answer.launch_s <= answer.latency_s.mid


def test_a_hot_kernel_is_stretched_until_it_fits_the_cap():
    cool = replace(H100, name="capped", tdp_w=250.0)
    kernel = Kernel("MatMul", ((Unit.MATRIX, DType.FLOAT16, 1e15),), 1e9, 1e9, (1, 8192, 8192, 7_450_581), 8192**2)
    assert cost(kernel, cool).latency_s.mid > cost(kernel).latency_s.mid
    assert cost(kernel, cool).power_w == pytest.approx(250.0)


def product(dtype: DType, name: str = "MatMul") -> Kernel:
    m = 4096
    size = dtype.bits / 8 * m * m
    return Kernel(name, ((Unit.MATRIX, dtype, 2.0 * m**3),), 2 * size, size, (1, m, m, m), m * m)


def test_narrow_types_pay_where_the_chip_has_them():
    joules = [cost(product(dtype)).energy_j.mid for dtype in (DType.FLOAT32, DType.FLOAT16, DType.INT8)]
    assert joules == sorted(joules, reverse=True)


def test_float16_without_kernels_runs_as_float32_and_says_so():
    skylake = target.load("cpu-intel-xeon-skylake")
    answer = cost(product(DType.FLOAT16), skylake)
    assert any("float16 runs as float32" in reason for reason in answer.reasons)
    assert (
        answer.latency_s.mid
        >= 0.9
        * roofline.latency(
            replace(product(DType.FLOAT16), flops=((Unit.MATRIX, DType.FLOAT32, 2.0 * 4096**3),)),
            skylake,
            executor.default_for(skylake),
        ).total_s
    )


def test_convolutions_use_tf32_as_torch_does_and_products_do_not():
    conv, matmul = cost(product(DType.FLOAT32, "Conv")), cost(product(DType.FLOAT32))
    assert conv.latency_s.mid < matmul.latency_s.mid / 3


def test_a_pair_that_does_not_exist_is_unknown():
    answer = Prior().query(ADD, target.load("amd-mi250"), TENSORRT)
    assert isinstance(answer, Unknown)
    assert "tensorrt does not run on amd-mi250" in answer.reasons[0]


def test_a_sheet_without_bandwidth_is_unknown():
    answer = Prior().query(ADD, replace(H100, name="bare", bandwidth_bytes_per_s=None), TENSORRT)
    assert isinstance(answer, Unknown)


def test_assumed_idle_power_is_said():
    assert any("idle power assumed" in reason for reason in cost(ADD).reasons)


@pytest.mark.parametrize(("nm", "scale"), [(7, 1.0), (16, 2.0), (2, 0.6), (40, 4.0), (None, 1.0)])
def test_process_scale(nm, scale):
    assert energy.process_scale(nm) == pytest.approx(scale)


def test_process_scale_is_monotone():
    scales = [energy.process_scale(nm) for nm in range(3, 40)]
    assert scales == sorted(scales)
