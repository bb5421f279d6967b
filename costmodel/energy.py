"""Energy of operations and bytes, in joules, from published figures scaled to the process of the chip."""

from __future__ import annotations

from itertools import pairwise

from eopt.backends.impute import IDLE_SHARE
from eopt.backends.target import Target
from eopt.costmodel.roofline import Latency
from eopt.ir.ops import Unit

PICO = 1e-12

# pJ per operation at 7 nm, with what it takes to feed the unit (registers, shared memory, control): board power of
# dense GEMM and FMA kernels on A100-class parts less static and memory power, divided by the rate. Ratios between
# types follow multiplier area (Horowitz, "Computing's energy problem", ISSCC 2014).
MATRIX_PJ = {
    "float64": 6.0, "float32": 4.0, "tf32": 1.5, "float16": 0.75, "bfloat16": 0.75, "float8": 0.4, "float4": 0.25,
    "int8": 0.35, "int4": 0.2,
}  # fmt: skip
VECTOR_PJ = {"float64": 12.0, "float32": 6.0, "float16": 3.5, "bfloat16": 3.5}
CPU_OVERHEAD = 3.0  # out-of-order control and wider operand delivery per operation (Hameed et al., ISCA 2010)

# Energy per operation relative to 7 nm, from foundry power-at-iso-speed claims between nodes.
PROCESS = ((3, 0.6), (4, 0.72), (5, 0.76), (7, 1.0), (8, 1.25), (10, 1.3), (12, 1.75), (14, 1.9), (16, 2.0), (28, 4.0))

# pJ per byte over interface, device and controller: O'Connor et al., "Fine-grained DRAM", MICRO 2017 (HBM2 3.9 pJ/bit,
# GDDR5 14), vendors' figures for later generations.
MEMORY_PJ = {
    "hbm2": 45.0, "hbm2e": 42.0, "hbm3": 36.0, "hbm3e": 34.0, "gddr5": 110.0, "gddr5x": 100.0, "gddr6": 75.0,
    "gddr6x": 80.0, "gddr7": 60.0, "ddr3": 200.0, "ddr4": 160.0, "ddr5": 130.0, "lpddr4": 60.0, "lpddr4x": 50.0,
    "lpddr5": 45.0, "lpddr5x": 40.0,
}  # fmt: skip
DEFAULT_MEMORY_PJ = 90.0
LLC_PJ = 12.0  # last-level cache and the way there, 7 nm

ACTIVE_SHARE = 0.1  # clocks, fabric and leakage at temperature once anything runs, over TDP


def static_power_w(target: Target) -> tuple[float, tuple[str, ...]]:
    """Power of a busy chip that does nothing, in W, and what had to be assumed for it."""
    if target.tdp_w is None:
        return target.idle_w or 0.0, ("no TDP in the sheet: static power is the idle power alone",)
    active = ACTIVE_SHARE * target.tdp_w
    if target.idle_w is not None:
        return target.idle_w + active, ()
    share = IDLE_SHARE[target.kind]
    return share * target.tdp_w + active, (f"idle power assumed {share:.0%} of TDP",)


def work_energy_j(target: Target, time: Latency) -> dict[str, float]:
    """Joules of operations and transfers by cause."""
    scale = process_scale(target.process_nm)
    overhead = CPU_OVERHEAD if target.kind == "cpu" else 1.0
    flops_j = sum(_operation_pj(unit, dtype) * flops for unit, dtype, flops in time.operations)
    per_byte = MEMORY_PJ.get((target.memory_type or "").lower(), DEFAULT_MEMORY_PJ)
    return {
        "flops": flops_j * scale * overhead * PICO,
        "dram": per_byte * time.dram_bytes * PICO,
        "llc": LLC_PJ * scale * (time.llc_bytes + time.dram_bytes) * PICO,
    }


def _operation_pj(unit: Unit, dtype: str) -> float:
    table = MATRIX_PJ if unit is Unit.MATRIX else VECTOR_PJ
    return table.get(dtype, VECTOR_PJ["float32"])


def process_scale(process_nm: float | None) -> float:
    """Energy per operation relative to 7 nm, linear between known nodes."""
    if process_nm is None:
        return 1.0
    for (small, low), (large, high) in pairwise(PROCESS):
        if process_nm <= large:
            share = max(0.0, (process_nm - small) / (large - small))
            return low + share * (high - low)
    return PROCESS[-1][1]
