"""What a network may say is bounded by physics, whatever its weights are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eopt.backends import target as targets
from eopt.backends.throttle import at
from eopt.costmodel import physics
from eopt.costmodel.embedding import device
from eopt.costmodel.learned import Learned
from eopt.costmodel.records import kernels_of
from eopt.costmodel.table import FAMILIES, features, quantities, table

H100 = targets.load("nvidia-h100-sxm")
OUTPUTS = st.lists(st.floats(-50, 50), min_size=5, max_size=5)
EXTENT = st.integers(1, 4096)
SIZES = ((16, 4096, 4096, "bfloat16"), (4096, 4096, 4096, "bfloat16"), (512, 512, 512, "float32"))


def seconds(outputs, m, n, k, chip=H100, dtype="bfloat16"):
    (kernel,) = kernels_of("MatMul", ((m, k), (k, n)), dtype)
    amounts = quantities(table([kernel]), device(chip))
    kernel_s = physics.busy_s(np, np.array([outputs]), amounts, True)
    found = physics.latency(np, kernel_s + physics.start_s(np, np.zeros(1), np.zeros(1), amounts), np.full(1, 2e-6))
    return float(found[0]), amounts[0]


@settings(deadline=None)
@given(OUTPUTS, EXTENT, EXTENT, EXTENT)
def test_no_network_is_faster_than_the_machine(outputs, m, n, k):
    latency_s, amounts = seconds(outputs, m, n, k)
    compute_s, cached_s = amounts[0], amounts[2] / amounts[4]
    # the sheet's rate is a ceiling; of the bandwidth sheets round, so a tenth above it is allowed
    assert latency_s >= compute_s * 0.999
    assert latency_s >= cached_s * np.exp(-physics.LOG_MEMORY[1]) * 0.999
    assert np.isfinite(latency_s)


@settings(deadline=None)
@given(OUTPUTS, EXTENT, EXTENT, EXTENT, st.floats(1.01, 8.0))
def test_a_faster_machine_is_never_slower(outputs, m, n, k, factor):
    before, _ = seconds(outputs, m, n, k)
    wide = replace(H100, bandwidth_bytes_per_s=H100.bandwidth_bytes_per_s * factor)
    quick = replace(
        H100,
        matrix={name: rate * factor for name, rate in H100.matrix.items()},
        vector={name: rate * factor for name, rate in H100.vector.items()},
    )
    for chip in (wide, quick):
        assert seconds(outputs, m, n, k, chip)[0] <= before * (1 + 1e-9)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=2), st.floats(0.1, 1.0))
def test_power_lies_between_idle_and_the_limit(outputs, held):
    watts = float(physics.power(np, np.array([outputs]), 700.0, held)[0])
    assert physics.IDLE_SHARE[0] * 700 <= watts <= physics.MOST_POWER * 700 * 1.0001


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=2))
def test_power_falls_with_the_clock_but_not_below_idle(outputs):
    watts = [float(physics.power(np, np.array([outputs]), 700.0, held)[0]) for held in (1.0, 0.7, 0.3)]
    assert watts == sorted(watts, reverse=True)
    assert watts[-1] >= 0.3 * watts[0]


def test_a_lower_clock_takes_longer_and_draws_less():
    slow = at(H100, clock_hz=990e6)
    assert device(slow).held == pytest.approx(0.5)
    assert seconds([0.0] * 5, 4096, 4096, 4096, slow)[0] > seconds([0.0] * 5, 4096, 4096, 4096)[0]
    assert np.array_equal(device(slow).features, device(H100).features), "the embedding is that of the device"


@given(st.floats(1e-7, 1e-2), st.floats(1e-8, 1e-3))
def test_a_kernel_waits_for_the_host_or_hides_it(kernel_s, gap_s):
    latency_s = float(physics.latency(np, np.array([kernel_s]), np.array([gap_s]))[0])
    longer = max(kernel_s, gap_s)
    # the knee of two equal parts is the eighth root of 2, 9 %
    assert longer <= latency_s <= longer * 1.0906


def test_a_kernel_timed_alone_waits_for_nobody(learned):
    rows = table(kernels_of("Relu", ((16,),), "float16"))
    alone_s, launched_s = (learned.predict(rows, H100, executor).latency_s[0] for executor in ("other", "torch"))
    assert alone_s < launched_s


def test_features_hold_no_rate_and_no_bandwidth():
    (kernel,) = kernels_of("MatMul", ((512, 512), (512, 512)), "bfloat16")
    other = replace(
        H100,
        bandwidth_bytes_per_s=9e12,
        matrix={name: 3 * rate for name, rate in H100.matrix.items()},
        vector={name: 3 * rate for name, rate in H100.vector.items()},
    )
    rows = table([kernel])
    assert np.array_equal(features(rows, device(H100), "vllm"), features(rows, device(other), "vllm"))
    assert np.array_equal(device(H100).features, device(other).features)


def test_families():
    cases = {
        "gemm": ("MatMul", ((8, 64), (64, 32))), "conv": ("Conv", ((1, 8, 9, 9), (4, 8, 3, 3))),
        "attention": ("Attention", ((1, 8, 16, 32),) * 3), "norm": ("LayerNormalization", ((8, 64), (64,))),
        "decode": ("Attention", ((1, 8, 1, 32), (1, 2, 16, 32), (1, 2, 16, 32))), "softmax": ("Softmax", ((8, 64),)),
        "pointwise": ("Gelu", ((8, 64),)), "move": ("Transpose", ((8, 64),)),
        "moe": ("com.microsoft.MoE", ((8, 64), (8, 4), (4, 64, 64), None, (4, 64, 32))),
    }  # fmt: skip
    for family, (op, inputs) in cases.items():
        (kernel,) = kernels_of(op, inputs, "float16")
        assert kernel.family == family
        assert FAMILIES[table([kernel]).family[0]] == family


def test_elementwise_work_does_not_depend_on_its_arrangement():
    flat, square = (table(kernels_of("Relu", (shape,), "float16")) for shape in ((1 << 20,), (1 << 10, 1 << 10)))
    assert np.array_equal(features(flat, device(H100), "torch"), features(square, device(H100), "torch"))


KERNELS = [
    *(kernels_of("MatMul", ((m, k), (k, n)), dtype)[0] for m, n, k, dtype in SIZES),
    *kernels_of("Softmax", ((4096, 1024),), "float16"),
    *kernels_of("Add", ((1 << 20,), (1 << 20,)), "float16"),
    *kernels_of("Attention", ((4, 16, 1, 64), (4, 4, 999, 64), (4, 4, 999, 64)), "bfloat16"),
]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_shipped_sheet_gets_slower_from_more(random_model, seed):
    """Sheets that state cores, lanes, clock and TDP: what is worked out from a rate moves with it, as B100's cores."""
    model, rows = Learned(random_model(seed, 1.0)), table(KERNELS)
    for sheet in map(targets.load, targets.shipped()):
        if sheet.kind != "gpu" or not sheet.cores:
            continue
        before = model.predict(rows, sheet, "vllm").latency_s
        wide = replace(sheet, bandwidth_bytes_per_s=1.5 * sheet.bandwidth_bytes_per_s)
        rates = {
            unit: {name: 1.5 * rate for name, rate in getattr(sheet, unit).items()} for unit in ("matrix", "vector")
        }
        for more in (wide, replace(sheet, **rates)):
            assert (model.predict(rows, more, "vllm").latency_s <= before * (1 + 1e-6)).all(), sheet.name
