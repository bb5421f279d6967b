"""A target at a clock or a power limit that somebody set, as with `nvidia-smi` or `cpupower`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eopt.backends.impute import completed
from eopt.backends.target import Target
from eopt.ir.errors import UsageError

ABOVE_BOOST = 1.05  # boards differ a little from the sheet
BELOW_BASE = 0.1  # no driver offers less


def at(target: Target, clock_hz: float | None = None, power_cap_w: float | None = None) -> Target:
    """The same device, by the same name, with its clock held or its power capped, or both.

    Peaks follow the clock, and so does the bandwidth of the last-level cache; memory has a clock of its own. A cap
    takes the place of the TDP where it is lower, and leaves the peaks: how far clocks fall depends on the work.

    Args:
        clock_hz: of the cores, in Hz.
        power_cap_w: of the board, or the package of a CPU, in W.

    Raises:
        UsageError: a clock the device does not reach, or less power than it needs idle.
        InputError: a sheet without memory bandwidth or float32 rate.
    """
    held = target if clock_hz is None else _held(target, clock_hz)
    return held if power_cap_w is None else _capped(held, power_cap_w)


def _held(target: Target, clock_hz: float) -> Target:
    known = completed(target)
    highest, lowest = ABOVE_BOOST * known.clock_boost_hz, BELOW_BASE * (target.clock_base_hz or known.clock_boost_hz)
    if not lowest <= clock_hz <= highest:
        span = f"{lowest / 1e6:.0f} to {highest / 1e6:.0f} MHz"
        raise UsageError(f"--clock {clock_hz / 1e6:g}: {target.name} runs at {span}")
    factor = clock_hz / known.clock_hz
    cache = target.l2_bandwidth_bytes_per_s
    return replace(
        target,
        clock_hz=clock_hz,
        vector=_scaled(target.vector, factor),
        matrix=_scaled(target.matrix, factor),
        sparse=_scaled(target.sparse, factor),
        l2_bandwidth_bytes_per_s=None if cache is None else cache * factor,
        imputed=target.imputed | {f"rates at {clock_hz / 1e6:g} MHz"},
    )


def _capped(target: Target, power_cap_w: float) -> Target:
    known = completed(target)
    if not power_cap_w > known.idle_w:
        raise UsageError(f"--power-cap {power_cap_w:g}: {target.name} needs {known.idle_w:.3g} W with nothing to do")
    notes = {f"rates under a cap of {power_cap_w:g} W"} | ({"idle_w"} if target.idle_w is None else set())
    return replace(
        target,
        tdp_w=min(power_cap_w, known.tdp_w),
        power_cap_w=power_cap_w,
        idle_w=known.idle_w,  # a share of the TDP where the sheet has none: of what it was before
        imputed=target.imputed | notes,
    )


def _scaled(rates: Mapping[str, float], factor: float) -> dict[str, float]:
    return {dtype: rate * factor for dtype, rate in rates.items()}
