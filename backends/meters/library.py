"""The meter of a device on this machine, through zeus: NVML, AMD SMI, RAPL, Apple and Jetson sensors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any

from eopt.backends.base import Unknown
from eopt.backends.meters import rapl
from eopt.backends.meters.base import Meter, Reading, Scope
from eopt.backends.target import Target
from eopt.ir.errors import UsageError

Milli = Callable[[], float]
"""A read in mJ or mW, as zeus has them; may raise whatever the driver raises."""


@dataclass(frozen=True)
class LibraryMeter:
    """Reads of zeus as a `Meter`; a read that fails, or says 0, is `Unknown`.

    Attributes:
        energy_mj, power_mw: None where the device has no such sensor.
    """

    name: str
    scope: Scope
    energy_mj: Milli | None
    power_mw: Milli | None = None
    wraps_j: float | None = None
    notes: tuple[str, ...] = ()

    def energy_j(self) -> Reading:
        """The cumulative counter in J."""
        return _read(self.energy_mj, f"{self.name}: energy counter")

    def power_w(self) -> Reading:
        """The power now in W."""
        return _read(self.power_mw, f"{self.name}: power sensor")


def _read(read: Milli | None, what: str) -> Reading:
    if read is None:
        return Unknown((f"{what}: the device has none",))
    try:
        value = float(read())
    except Exception as error:  # drivers fail in their own ways; a read that failed is no reading
        return Unknown((f"{what}: {_line(error)}",))
    # NVML says 0 where it means that it cannot tell, and a device that is on draws something
    return value / 1e3 if isfinite(value) and value > 0 else Unknown((f"{what}: reads {value:g}",))


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def find(target: Target | str, index: int = 0) -> Meter | Unknown:
    """The meter of a device on this machine, or why there is none and what helps.

    Args:
        target: a target, or its kind: `gpu`, `cpu` or `soc`.
        index: of the GPU among those that are visible.

    Raises:
        UsageError: no such kind.
    """
    kind, vendor = (target, "") if isinstance(target, str) else (target.kind, target.vendor)
    if kind not in ("gpu", "cpu", "soc"):
        raise UsageError(f"no meters for {kind!r}; kinds are gpu, cpu, soc")
    try:
        from zeus import device
    except ImportError:
        return Unknown(("no meters: the library zeus is not installed; pip install 'eopt[meters]'",))
    if kind == "gpu":
        return _gpu(device, vendor, index)
    return _cpu(device) if kind == "cpu" else _soc(device)


def _gpu(device: Any, vendor: str, index: int) -> Meter | Unknown:
    if vendor not in ("", "nvidia", "amd"):
        return Unknown((f"no meter: zeus reads GPUs of NVIDIA and AMD, not of {vendor}",))
    try:
        gpus = device.get_gpus().gpus
    except Exception as error:
        why = f"no GPU meter: no NVIDIA or AMD driver answers ({_line(error)})"
        return Unknown((f"{why}; install the driver, or give the container its GPU",))
    if index >= len(gpus):
        return Unknown((f"no GPU meter: GPU {index} is not among the {len(gpus)} that are visible",))
    found = "nvidia" if type(device.get_gpus()).__name__.startswith("NVIDIA") else "amd"
    if vendor not in ("", found):
        return Unknown((f"no GPU meter: this machine's GPUs are of {found}, the target is of {vendor}",))
    return _board(gpus[index], f"GPU {index}")


def _board(gpu: Any, where: str) -> Meter | Unknown:
    try:
        name, counts = str(gpu.get_name()), bool(gpu.supports_get_total_energy_consumption())
    except Exception as error:
        return Unknown((f"no GPU meter: {where}: {_line(error)}",))
    notes = []
    if re.search(r"\bG[BH]\d+", name):  # Grace Hopper and Grace Blackwell
        notes.append("readings are of the whole module: GPU, CPU and their memory")
    if "MI250" in name:
        notes.append("readings are of both dies of the board")
    power = gpu.get_instant_power_usage
    if isinstance(_read(power, name), Unknown) and not isinstance(_read(gpu.get_average_power_usage, name), Unknown):
        power = gpu.get_average_power_usage
        notes.append("power is the driver's average, up to 1 s old")
    meter = LibraryMeter(name, "board", gpu.get_total_energy_consumption if counts else None, power, notes=tuple(notes))
    energy, watts = meter.energy_j(), meter.power_w()
    if isinstance(energy, Unknown) and isinstance(watts, Unknown):
        return Unknown((f"no GPU meter: {where} gives neither energy nor power", *energy.reasons, *watts.reasons))
    return meter


def _cpu(device: Any) -> Meter | Unknown:
    try:
        cpus = device.get_cpus()
    except Exception as error:
        return Unknown((rapl.absence(error),))
    packages = rapl.packages(cpus)
    if isinstance(packages, Unknown):
        return packages
    name = f"RAPL, {packages.count} package{'s' * (packages.count > 1)}"
    return LibraryMeter(name, "package", packages.energy_mj, wraps_j=packages.wraps_j, notes=packages.notes)


_APPLE_PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "ane_mj", "dram_mj")


def _soc(device: Any) -> Meter | Unknown:
    try:
        soc = device.get_soc()
        first = soc.get_total_energy_consumption()
    except Exception as error:
        why = f"no SoC meter: neither Apple silicon nor a Jetson answers ({_line(error)})"
        return Unknown((f"{why}; on a Mac: pip install 'zeus[apple]'",))
    if hasattr(first, "cpu_total_mj"):
        return LibraryMeter("Apple silicon", "package", lambda: _apple_mj(soc.get_total_energy_consumption()))
    rail = soc.power_measurement.get("total_power_mw")
    if rail is None:
        return Unknown(("no SoC meter: this Jetson has sensors of parts, none of the whole board",))
    # zeus sums the Jetson's power in a process of its own ten times a second: no counter of the hardware
    return LibraryMeter("Jetson", "board", None, rail.measure_power, notes=("energy is integrated from power",))


def _apple_mj(measured: Any) -> float:
    return float(sum(getattr(measured, part) or 0 for part in _APPLE_PARTS))
