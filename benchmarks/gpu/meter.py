"""Energy of a repeated GPU call from NVML's counter, with the latency from CUDA events."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WINDOW_S = 2.0  # the counter advances about every 100 ms (Zeus, power.py); a window holds at least 20 of its steps
TRIALS = 5
WARM_UP = 10


@dataclass(frozen=True)
class Reading:
    """One measured call. `energy_j` is None where the board has no energy counter; it is never 0."""

    latency_s: float
    energy_j: float | None
    energy_spread: float | None
    power_w: float | None
    calls: int


def measure(torch: Any, nvml: Any, handle: Any, call: Callable[[], Any]) -> Reading:
    """Gross board energy and latency of one call: the median of `TRIALS` windows, with their relative spread."""
    for _ in range(WARM_UP):
        call()
    torch.cuda.synchronize()
    calls = max(10, int(WINDOW_S / max(_seconds(torch, call, 10), 1e-6)))
    latencies: list[float] = []
    energies: list[float | None] = []
    for _ in range(TRIALS):
        before = _counter_j(nvml, handle)
        latencies.append(_seconds(torch, call, calls))
        after = _counter_j(nvml, handle)
        energies.append(None if before is None or after is None or after <= before else (after - before) / calls)
    known = [energy for energy in energies if energy is not None]
    latency_s = statistics.median(latencies)
    if len(known) < TRIALS:
        return Reading(latency_s, None, None, None, calls)
    energy_j = statistics.median(known)
    spread = (max(known) - min(known)) / energy_j
    return Reading(latency_s, energy_j, spread, energy_j / latency_s, calls)


def _seconds(torch: Any, call: Callable[[], Any], calls: int) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / calls


def _counter_j(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except nvml.NVMLError:
        return None


def state(nvml: Any, handle: Any) -> dict[str, Any]:
    """What the board reports of itself: nothing here is ever set."""
    read: dict[str, Callable[[], Any]] = {
        "name": lambda: nvml.nvmlDeviceGetName(handle),
        "driver": nvml.nvmlSystemGetDriverVersion,
        "power_limit_w": lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3,
        "sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
        "max_sm_clock_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
    }
    found: dict[str, Any] = {}
    for key, ask in read.items():
        try:
            found[key] = ask()
        except nvml.NVMLError as error:
            found[key] = f"unknown: {error}"
    return found
