"""Figures for people: three significant digits and an SI prefix."""

from __future__ import annotations

from math import floor, log10

_PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T"}


def si(value: float | None, unit: str) -> str:
    """`1.23 mJ`; an unknown figure is `unknown`, never 0."""
    if value is None:
        return "unknown"
    if value == 0:
        return f"0 {unit}"
    value = float(f"{value:.3g}")  # first, or 999.9 m would round to 1e+03 m
    power = max(-4, min(4, floor(log10(abs(value)) / 3)))
    return f"{value / 1000.0**power:.3g} {_PREFIXES[power]}{unit}"


def figure(value: float | None) -> str:
    """A figure that has no SI unit, `13.2`."""
    return "unknown" if value is None else f"{value:.3g}"


def percent(share: float | None) -> str:
    """`12.3 %`."""
    return "unknown" if share is None else f"{100 * share:.1f} %"


def change(before: float | None, after: float | None) -> str:
    """Relative change, `-31.2 %`."""
    if before is None or after is None or before == 0:
        return "unknown"
    return f"{100 * (after / before - 1):+.1f} %"
