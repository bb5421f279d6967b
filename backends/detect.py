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
    return nvidia() or cpu()


def cpu() -> Target:
    """The CPU of this machine."""
    return _cpu(_cpuinfo(), _visible_cores(), llc_bytes(Path("/sys/devices/system/cpu"), _visible_cpus()))


def nvidia() -> Target | None:
    """The first NVIDIA GPU of this machine; None where no driver answers."""
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


def _visible_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _visible_cores() -> int:
    return len(_visible_cpus())


def llc_bytes(folder: Path, cpus: Set[int]) -> float | None:
    """Bytes of the last-level caches that these CPUs see, from sysfs; None where it does not say."""
    found: dict[tuple[int, str], float] = {}
    for index in (index for cpu in cpus for index in folder.glob(f"cpu{cpu}/cache/index*")):
        try:
            level, size, shared = ((index / name).read_text().strip() for name in ("level", "size", "shared_cpu_list"))
            found[int(level), shared] = float(size.removesuffix("K")) * 2**10
        except (OSError, ValueError):
            continue
    last = max((level for level, _ in found), default=0)
    return sum(size for (level, _), size in found.items() if level == last) or None


@cache
def cpu_features() -> frozenset[str]:
    """Vector extensions of this machine's CPU, as target sheets name them."""
    return _features(_flags(_fields(_cpuinfo())))


def saturates(features: Set[str]) -> bool:
    """True for x86 CPUs that add pairs of uint8 * int8 products in saturating 16 bits: AVX2 or AVX512 before VNNI."""
    return bool(features & {"avx2", "avx512"}) and not features & {"vnni", "amx"}


def _features(flags: set[str]) -> frozenset[str]:
    return frozenset(name for flag, name in _FEATURES.items() if flag in flags)


def _cpu(cpuinfo: str, cores: int, llc: float | None = None) -> Target:
    """A share of the nearest sheet, with what this machine says of its clock, vector units and last-level cache."""
    fields = _fields(cpuinfo)
    flags = _flags(fields)
    features = _features(flags)
    nearest = _nearest(fields, features)
    part = share(nearest, cores)
    mhz = fields.get("cpu mhz")
    clock_hz = float(mhz) * 1e6 if mhz else nearest.clock_base_hz or _DEFAULT_CLOCK_HZ
    per_cycle = next((count for flag, count in _FLOPS_PER_CYCLE if flag in flags), 8)
    float32 = cores * per_cycle * clock_hz
    int8 = next((factor for feature, factor in _INT8_OVER_FLOAT32 if feature in features), 0.0)
    return replace(
        part,
        name=f"cpu-{nearest.arch}-{cores}core",
        model=fields.get("model name", nearest.model),
        clock_base_hz=clock_hz,
        clock_boost_hz=None,
        l2_bytes=llc or part.l2_bytes,
        vector={"float64": float32 / 2, "float32": float32},
        matrix={"int8": float32 * int8} if int8 else {},
        features=features,
        imputed=(part.imputed - ({"l2_bytes"} if llc else set())) | {"vector", "matrix"},
    )


def share(sheet: Target, cores: int) -> Target:
    """So many cores of a CPU, by the sheet's name: memory, cache and power in proportion, where the CPU has as many."""
    part = cores / (sheet.cores or cores)
    return replace(
        sheet,
        cores=cores,
        tdp_w=_scaled(sheet.tdp_w, part),
        idle_w=_scaled(sheet.idle_w, part),
        memory_bytes=None,
        bandwidth_bytes_per_s=_scaled(sheet.bandwidth_bytes_per_s, max(part, _least_bandwidth(sheet))),
        l2_bytes=_scaled(sheet.l2_bytes, part),
        l2_bandwidth_bytes_per_s=_scaled(sheet.l2_bandwidth_bytes_per_s, part),
        vector={dtype: rate * part for dtype, rate in sheet.vector.items()},
        matrix={dtype: rate * part for dtype, rate in sheet.matrix.items()},
        aliases=(),
        imputed=sheet.imputed | {"bandwidth_bytes_per_s", "l2_bytes", "tdp_w"},
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


# The first family that is this machine's, by its vendor, its vector extensions and what it says of itself: `cpu family`
# and `model` as AMD and Intel number them (as in LLVM's Host.cpp), `cpu part` of Arm's MIDR. A virtual machine may hide
# extensions of its CPU; code for the sheet's `mcpu` runs there only if the sheet needs none of the hidden ones.
_FAMILIES: tuple[tuple[str, str, set[str], dict[str, str]], ...] = (
    ("cpu-intel-xeon-granite-rapids", "intel", {"amx"}, {"model": "173 174"}),
    ("cpu-intel-xeon-emerald-rapids", "intel", {"amx"}, {"model": "207"}),
    ("cpu-intel-xeon-sapphire-rapids", "intel", {"amx"}, {}),
    ("cpu-intel-xeon-cascade-lake", "intel", {"vnni", "avx512"}, {"model": "85"}),
    ("cpu-intel-xeon-ice-lake", "intel", {"vnni"}, {}),
    ("cpu-intel-xeon-skylake", "intel", {"avx512"}, {}),
    ("cpu-amd-epyc-9005", "amd", {"vnni"}, {"cpu family": "26"}),
    ("cpu-amd-epyc-9004", "amd", {"vnni"}, {}),
    ("cpu-amd-epyc-7002", "amd", set(), {"cpu family": "23"}),
    ("cpu-amd-epyc-7003", "amd", set(), {}),
    ("cpu-aws-graviton4", "arm", {"sve"}, {"cpu part": "0xd4f"}),
    ("cpu-aws-graviton3", "arm", {"sve"}, {}),
    ("raspberry-pi-5", "arm", {"dotprod"}, {"cpu part": "0xd0b"}),
    ("cpu-ampere-altra-q80-30", "arm", {"dotprod"}, {}),
    ("raspberry-pi-4", "arm", set(), {}),
    ("cpu-intel-xeon-cascade-lake", "intel", set(), {}),
)


def _nearest(fields: Mapping[str, Any], features: frozenset[str]) -> Target:
    text = " ".join(str(value) for value in fields.values()).lower()
    vendor = "arm" if "neon" in features else "amd" if "amd" in text else "intel"
    for name, maker, needed, said in _FAMILIES:
        is_it = all(fields.get(key) in values.split() for key, values in said.items())
        if maker == vendor and needed <= features and is_it:
            return targets.load(name)
    return targets.load("cpu-amd-epyc-7003")


def _least_bandwidth(sheet: Target) -> float:
    """One core draws more than its share: about a tenth of a server socket's bandwidth."""
    return 0.1 if (sheet.cores or 1) > 10 else 0.0


def _scaled(value: float | None, share: float) -> float | None:
    return None if value is None else value * min(1.0, share)
