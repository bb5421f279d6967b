"""What a device is to the learned model: physical quantities for the prior, and sheet features for its embedding.

Rates and bandwidths enter through the prior alone. The embedding is made of features that neither contains, so more of
either never raises a predicted latency: the network sees the same numbers, and the prior falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import log2
from typing import Any

import numpy as np

from eopt.backends import target as targets
from eopt.backends.impute import Imputed, completed
from eopt.backends.target import Target
from eopt.costmodel.energy import MATRIX_PJ, PICO, VECTOR_PJ, process_scale

Array = np.ndarray[Any, np.dtype[np.float32]]

# What a type falls back to where the sheet has no rate for it, next wider first.
WIDER = {
    "float4": ("float8", "float16", "float32"),
    "float8": ("float16", "bfloat16", "float32"),
    "float16": ("bfloat16", "float32"),
    "bfloat16": ("float16", "float32"),
    "tf32": ("float32",),
    "int8": ("float16", "float32"),
    "int4": ("int8", "float16", "float32"),
    "float64": (),
    "float32": (),
}
SHEET_FEATURES = (
    "year", "process", "cores", "clock", "llc", "power", "hbm", "gddr", "lpddr", "nvidia", "amd", "intel", "cpu", "soc",
    "matrix unit", "fp8", "fp4", "l1", "lanes", "tf32",
)  # fmt: skip
BLOCK_SCALED = ("hopper",)  # DeepGEMM promotes float32 block scales inside wgmma; others have to scale outside of it


@dataclass(frozen=True)
class Device:
    """One target as arrays and numbers.

    Attributes:
        rates: op/s by element type on the unit a product of that type runs on, and the type it really runs in.
        demand: by element type the watts those operations would draw at that rate, over what TDP leaves above idle.
        vector_rate, vector_demand: the same of float32 on the vector units.
        clock_hz: boost clock, or what is held of it.
        held: the clock that was set, as a share of the boost clock; 1 where it is free.
        features: float32[len(SHEET_FEATURES)], about -1 to 1 each.
        log_uncertainty: sum of the logarithms of the factors by which imputed figures may be off.
    """

    name: str
    arch: str
    vendor: str
    rates: dict[str, tuple[float, str]]
    demand: dict[str, float]
    vector_rate: float
    vector_demand: float
    bandwidth: float
    llc_bytes: float
    llc_bandwidth: float
    cores: float
    clock_hz: float
    tdp_w: float
    idle_w: float
    held: float
    features: Array
    log_uncertainty: float
    imputed: tuple[str, ...]
    block_scaled: bool


@lru_cache(maxsize=1024)
def device(target: Target) -> Device:
    """The device of a sheet, gaps filled in.

    Raises:
        InputError: the sheet lacks what cannot be estimated.
    """
    sheet = completed(target)
    rates = {dtype: _rate(dtype, sheet) for dtype in WIDER}
    held = min(1.0, target.clock_hz / sheet.clock_boost_hz) if target.clock_hz else 1.0
    voltage = ((1 + held) / 2) ** 2  # energy per operation falls with the square of the voltage
    above_idle_w = headroom_w(sheet.tdp_w, sheet.idle_w)
    off = sum(abs(np.log(factor)) for name, factor in sheet.imputed.items() if name in _MATTERS)
    return Device(
        target.name,
        target.arch,
        target.vendor,
        rates,
        {dtype: voltage * _joules(used, sheet) * rate / above_idle_w for dtype, (rate, used) in rates.items()},
        sheet.vector["float32"],
        voltage * _vector_joules("float32", sheet) * sheet.vector["float32"] / above_idle_w,
        sheet.bandwidth_bytes_per_s,
        sheet.llc_bytes,
        sheet.llc_bandwidth_bytes_per_s,
        sheet.cores,
        sheet.clock_boost_hz * held,
        sheet.tdp_w,
        sheet.idle_w,
        held,
        _features(target, sheet),
        float(off),
        tuple(sorted(sheet.imputed)),
        target.arch in BLOCK_SCALED,
    )


def headroom_w(tdp_w: float, idle_w: float) -> float:
    """W that TDP leaves above idle, a tenth of it at least."""
    return max(tdp_w - idle_w, 0.1 * tdp_w)


_MATTERS = ("cores", "clock_hz", "llc_bytes", "tdp_w", "bandwidth_bytes_per_s")


def _rate(dtype: str, sheet: Imputed) -> tuple[float, str]:
    for candidate in (dtype, *WIDER[dtype]):
        if candidate in sheet.matrix and candidate != "float32":
            return max(sheet.matrix[candidate], sheet.vector.get(candidate, 0.0)), candidate
        if candidate in ("float32", "float64") and candidate in sheet.vector:
            return sheet.vector[candidate], candidate
        if candidate in sheet.vector and candidate == dtype:
            return sheet.vector[candidate], candidate
    return (sheet.vector["float32"] / 32 if dtype == "float64" else sheet.vector["float32"]), dtype


def _joules(dtype: str, sheet: Imputed) -> float:
    """Of one operation of a product, on the unit it runs on."""
    if dtype in ("float32", "float64") or dtype not in sheet.matrix:
        return _vector_joules(dtype, sheet)
    return PICO * MATRIX_PJ[dtype] * process_scale(sheet.process_nm)


def _vector_joules(dtype: str, sheet: Imputed) -> float:
    return PICO * VECTOR_PJ.get(dtype, VECTOR_PJ["float32"]) * process_scale(sheet.process_nm)


@lru_cache(maxsize=1024)
def _lanes(target: Target) -> float:
    """float32 lanes of a core as sheets state them: worked out from a rate they would bring the rate into a feature."""
    if target.lanes_per_core:
        return target.lanes_per_core
    shipped = [targets.load(name) for name in targets.shipped()]
    alike = [sheet.lanes_per_core for sheet in shipped if sheet.kind == target.kind and sheet.lanes_per_core]
    return float(np.median(alike)) if alike else 64.0


def _features(target: Target, sheet: Imputed) -> Array:
    memory = sheet.memory_type.lower()
    values = (
        (sheet.release_year - 2020) / 4,
        log2(sheet.process_nm / 7),
        log2(sheet.cores / 80) / 2,
        log2(sheet.clock_boost_hz / 1.7e9) * 2,
        log2(sheet.llc_bytes / 3e7) / 2,
        log2(sheet.tdp_w / 300),
        memory.startswith("hbm"),
        memory.startswith("gddr"),
        memory.startswith("lpddr"),
        target.vendor == "nvidia",
        target.vendor == "amd",
        target.vendor == "intel",
        target.kind == "cpu",
        target.kind == "soc",
        any(name in sheet.matrix for name in ("float16", "bfloat16")),
        "float8" in sheet.matrix,
        "float4" in sheet.matrix,
        log2(sheet.l1_bytes_per_core / 1.3e5) / 1.5,
        log2(_lanes(target) / 64),
        "tf32" in sheet.matrix,
    )
    return np.clip(np.array(values, dtype=np.float32), -3, 3)
