"""What to know about RAPL before its files are added up: zones that overlap, mirrored counters, no permission."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eopt.backends.base import Unknown

ROOT = Path("/sys/class/powercap/intel-rapl")
CPUINFO = Path("/proc/cpuinfo")
MIRRORED_J = 5.0  # counters of up to 2.6e5 J that agree so closely, a few ms apart, are one counter read twice


@dataclass(frozen=True)
class Packages:
    """The processor packages of this machine.

    Attributes:
        count: how many counters are added up.
        energy_mj: their sum; may raise what the library raises.
        wraps_j: where each starts again from 0; None where they differ.
        notes: what was left out.
    """

    count: int
    energy_mj: Callable[[], float]
    wraps_j: float | None
    notes: tuple[str, ...]


def absence(error: Exception) -> str:
    """Why the library finds no RAPL, and what helps."""
    counter = ROOT / "intel-rapl:0/energy_uj"
    if "permission" in f"{type(error).__name__} {error}".lower():
        return f"no CPU meter: {counter} may be read by root only; run as root, or let zeusd relay it"
    if ROOT.exists():
        return f"no CPU meter: {ROOT}: {(str(error) or type(error).__name__).splitlines()[0]}"
    if _virtual():
        return f"no CPU meter: a virtual machine has no RAPL ({ROOT} is missing); measure on the host"
    return f"no CPU meter: {ROOT} is missing; load the kernel module intel_rapl_msr, or this CPU has no RAPL"


def _virtual() -> bool:
    try:
        return "hypervisor" in CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def packages(cpus: Any) -> Packages | Unknown:
    """The zones of zeus' CPUs that are packages, each counted once.

    zeus lists every zone at the top: `psys`, the whole platform, holds the packages and is left out. On Threadripper
    and first EPYC each die has a zone, and all of a package show the same counter (codecarbon issues 788 and 1274).
    """
    folder = Path(getattr(cpus, "rapl_dir", ROOT))
    named = [(cpu, folder / f"intel-rapl:{cpu.cpu_index}") for cpu in cpus.cpus]
    named = [(cpu, zone) for cpu, zone in named if _text(zone / "name").startswith("package")]
    if not named:
        return Unknown((f"no CPU meter: no zone below {folder} is a package",))
    try:
        for cpu, _ in named:  # the first read of each starts a process that watches for wraps: too slow to compare
            cpu.get_total_energy_consumption()
        read = [(cpu, zone, cpu.get_total_energy_consumption().cpu_mj) for cpu, zone in named]
    except Exception as error:  # whatever reading a file or asking a daemon may raise
        return Unknown((absence(error),))
    kept: list[tuple[Any, Path, float]] = []
    for cpu, zone, energy_mj in read:
        if not any(_mirrors(zone, energy_mj, other, other_mj) for _, other, other_mj in kept):
            kept.append((cpu, zone, energy_mj))
    ranges = {_text(zone / "max_energy_range_uj") for _, zone, _ in kept}
    limit = ranges.pop() if len(ranges) == 1 else ""
    notes = ["DRAM is left out"]
    if len(kept) < len(named):
        notes.append(f"{len(named) - len(kept)} of {len(named)} zones mirror another's counter and are left out")
    return Packages(
        len(kept),
        lambda: float(sum(cpu.get_total_energy_consumption().cpu_mj for cpu, _, _ in kept)),
        float(limit) / 1e6 if limit.isdecimal() else None,
        tuple(notes),
    )


def _mirrors(zone: Path, energy_mj: float, other: Path, other_mj: float) -> bool:
    """True for two dies of one package whose counters are the same."""
    package, die, _ = _text(zone / "name").partition("-die-")
    same = bool(die) and _text(other / "name").startswith(f"{package}-die-")
    return same and abs(energy_mj - other_mj) <= MIRRORED_J * 1e3


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
