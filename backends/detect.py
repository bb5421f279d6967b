"""Which target this machine is: an NVIDIA GPU if its driver answers, else the CPU."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from eopt.backends import target as targets
from eopt.backends.target import Target

# Fused multiply-adds per cycle and core over the float32 lanes, by vector extension: two units of 16, 8 and 4 lanes.
_FLOPS_PER_CYCLE = (("avx512f", 64), ("avx2", 32), ("asimd", 16), ("neon", 16))
_FEATURES = {
    "avx2": "avx2", "avx512f": "avx512", "avx512_vnni": "vnni", "avx_vnni": "vnni", "amx_int8": "amx", "sve": "sve",
    "asimddp": "dotprod", "i8mm": "i8mm", "asimd": "neon", "asimdhp": "neon_fp16",
}  # fmt: skip
_INT8_OVER_FLOAT32 = (("amx", 32.0), ("i8mm", 8.0), ("vnni", 4.0), ("dotprod", 4.0))
_DEFAULT_CLOCK_HZ = 2.5e9


def detect() -> Target:
    """The target of this machine; what was not read but assumed is listed in `imputed`."""
    return _nvidia() or _cpu(_cpuinfo(), _visible_cores())


def _nvidia() -> Target | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(handle)
        memory_bytes = pynvml.nvmlDeviceGetMemoryInfo(handle).total
        limit_w = pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / 1e3
    except pynvml.NVMLError:
        return None
    return match_gpu(name if isinstance(name, str) else name.decode(), memory_bytes, limit_w)


def match_gpu(name: str, memory_bytes: float, limit_w: float) -> Target | None:
    """The sheet of a GPU by the words of its name; memory and power limit tell form factors apart."""
    words = set(re.findall(r"[a-z]+\d*|\d+[a-z]*", name.lower().replace("geforce", "").replace("tesla", "")))
    words -= {"nvidia", "gb", "hbm2", "hbm3", "hbm2e", "hbm3e"}
    best: tuple[float, Target] | None = None
    for sheet in map(targets.load, targets.names()):
        known = set(re.findall(r"[a-z]+\d*|\d+[a-z]*", sheet.name))
        main = {word for word in words if re.search(r"\d", word) and not word.endswith("gb")}
        if sheet.vendor != "nvidia" or not main or not main & known:
            continue
        unlike = len(words ^ (known - {"nvidia"})) + _distance(sheet.memory_bytes, memory_bytes)
        unlike += _distance(sheet.tdp_w, limit_w)
        if best is None or unlike < best[0]:
            best = (unlike, sheet)
    return best[1] if best else None


def _distance(stated: float | None, found: float) -> float:
    return 1.0 if not stated else 4 * abs(stated - found) / stated


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"model name : {platform.processor() or platform.machine()}"


def _visible_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def cpu_features() -> frozenset[str]:
    """Vector extensions of this machine's CPU, as target sheets name them."""
    return _features(_flags(_fields(_cpuinfo())))


def saturates(features: Set[str]) -> bool:
    """True for x86 CPUs that add pairs of uint8 * int8 products in saturating 16 bits: AVX2 or AVX512 before VNNI."""
    return bool(features & {"avx2", "avx512"}) and not features & {"vnni", "amx"}


def _features(flags: set[str]) -> frozenset[str]:
    return frozenset(name for flag, name in _FEATURES.items() if flag in flags)


def _cpu(cpuinfo: str, cores: int) -> Target:
    """A share of the nearest sheet: as many cores as are visible, its memory and power in proportion."""
    fields = _fields(cpuinfo)
    flags = _flags(fields)
    features = _features(flags)
    nearest = _nearest(fields, features)
    share = cores / (nearest.cores or cores)
    mhz = fields.get("cpu mhz")
    clock_hz = float(mhz) * 1e6 if mhz else nearest.clock_base_hz or _DEFAULT_CLOCK_HZ
    per_cycle = next((count for flag, count in _FLOPS_PER_CYCLE if flag in flags), 8)
    float32 = cores * per_cycle * clock_hz
    int8 = next((factor for feature, factor in _INT8_OVER_FLOAT32 if feature in features), 0.0)
    return replace(
        nearest,
        name=f"cpu-{nearest.arch}-{cores}core",
        model=fields.get("model name", nearest.model),
        cores=cores,
        clock_base_hz=clock_hz,
        clock_boost_hz=None,
        tdp_w=_scaled(nearest.tdp_w, share),
        idle_w=_scaled(nearest.idle_w, share),
        memory_bytes=None,
        bandwidth_bytes_per_s=_scaled(nearest.bandwidth_bytes_per_s, max(share, _least_bandwidth(nearest))),
        l2_bytes=_scaled(nearest.l2_bytes, share),
        vector={"float64": float32 / 2, "float32": float32},
        matrix={"int8": float32 * int8} if int8 else {},
        features=features,
        aliases=(),
        imputed=frozenset({"bandwidth_bytes_per_s", "l2_bytes", "tdp_w", "vector", "matrix"}),
    )


def _fields(cpuinfo: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _flags(fields: Mapping[str, str]) -> set[str]:
    return set((fields.get("flags") or fields.get("features") or "").split())


# Newest first: the first family whose distinguishing features this machine has.
_FAMILIES = (
    ("cpu-intel-xeon-sapphire-rapids", "intel", {"amx"}),
    ("cpu-intel-xeon-ice-lake", "intel", {"vnni"}),
    ("cpu-intel-xeon-skylake", "intel", {"avx512"}),
    ("cpu-amd-epyc-9004", "amd", {"vnni"}),
    ("cpu-amd-epyc-7003", "amd", set[str]()),
    ("cpu-aws-graviton3", "arm", {"sve"}),
    ("cpu-ampere-altra-q80-30", "arm", {"dotprod"}),
    ("raspberry-pi-4", "arm", set[str]()),
    ("cpu-intel-xeon-cascade-lake", "intel", set[str]()),
)


def _nearest(fields: Mapping[str, Any], features: frozenset[str]) -> Target:
    text = " ".join(str(value) for value in fields.values()).lower()
    vendor = "arm" if "neon" in features else "amd" if "amd" in text else "intel"
    for name, maker, needed in _FAMILIES:
        if maker == vendor and needed <= features:
            return targets.load(name)
    return targets.load("cpu-amd-epyc-7003")


def _least_bandwidth(sheet: Target) -> float:
    """One core draws more than its share: about a tenth of a server socket's bandwidth."""
    return 0.1 if (sheet.cores or 1) > 10 else 0.0


def _scaled(value: float | None, share: float) -> float | None:
    return None if value is None else value * min(1.0, share)
