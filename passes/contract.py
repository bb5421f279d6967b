"""Numeric contracts: how far a rewritten model may be from the original, and whether it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eopt.backends.base import Array
from eopt.ir.types import DType

# Rounding noise of re-associated sums: relative error near eps * sqrt(layers), so SQNR near -20 log10(eps) less a
# few dB. The bound leaves 60 dB of that scale for depth and ill-conditioned layers and still rejects any wrong algebra.
_EXACT_DB = {DType.FLOAT64: 120.0, DType.FLOAT32: 80.0, DType.FLOAT16: 40.0, DType.BFLOAT16: 28.0}


@dataclass(frozen=True)
class Verdict:
    """Whether a contract holds: the measured figure beside the required one, in the contract's unit."""

    holds: bool
    measured: float
    required: float
    unit: str
    output: str = ""

    def __str__(self) -> str:
        relation = "meets" if self.holds else "misses"
        where = f" on {self.output!r}" if self.output else ""
        return f"{_number(self.measured)} {self.unit}{where} {relation} {_number(self.required)} {self.unit}"


class Contract(Protocol):
    """Compares outputs of the original with those of the rewritten model."""

    def check(self, reference: Sequence[dict[str, Array]], rewritten: Sequence[dict[str, Array]]) -> Verdict:
        """The verdict over all batches, for the worst output."""
        ...


@dataclass(frozen=True)
class Sqnr:
    """Signal to quantisation noise of every float output is at least `db`, in dB."""

    db: float

    def check(self, reference: Sequence[dict[str, Array]], rewritten: Sequence[dict[str, Array]]) -> Verdict:
        measured = {name: sqnr_db(reference, rewritten, name) for name in _compared(reference)}
        if not measured:
            return Verdict(True, math.inf, self.db, "dB")
        worst = min(measured, key=lambda name: measured[name])
        return Verdict(measured[worst] >= self.db, measured[worst], self.db, "dB", worst)


@dataclass(frozen=True)
class Exact:
    """The same algebra: float outputs differ by rounding only, all others not at all."""

    def check(self, reference: Sequence[dict[str, Array]], rewritten: Sequence[dict[str, Array]]) -> Verdict:
        for name in reference[0] if reference else ():
            if not _is_float(reference[0][name]) and not _all_equal(reference, rewritten, name):
                return Verdict(False, 0.0, _EXACT_DB[DType.FLOAT32], "dB", name)
        narrowest = [_exact_db(reference[0][name]) for name in _compared(reference)]
        return Sqnr(min(narrowest, default=0.0)).check(reference, rewritten)


def loosest(contracts: Sequence[Contract]) -> Contract:
    """The contract that still holds after several passes: the one that allows most."""
    bounds = [contract for contract in contracts if not isinstance(contract, Exact)]
    limits = [contract for contract in bounds if not isinstance(contract, Sqnr)]
    if limits:
        return limits[-1]
    return min((bound for bound in bounds if isinstance(bound, Sqnr)), key=lambda bound: bound.db, default=Exact())


def sqnr_db(reference: Sequence[dict[str, Array]], rewritten: Sequence[dict[str, Array]], name: str) -> float:
    """10 log10(signal power / error power) of one value over all batches, in dB; NaN or infinity counts as -inf."""
    signal = noise = 0.0
    for expected, actual in zip(reference, rewritten, strict=True):
        wide, other = expected[name].astype(np.float64), actual[name].astype(np.float64)
        if wide.shape != other.shape:
            return -math.inf
        same = (wide == other) | (np.isnan(wide) & np.isnan(other))
        error = np.where(same, 0.0, wide - other)
        signal += float(np.sum(np.square(wide[np.isfinite(wide)])))
        noise += float(np.sum(np.square(error)))
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0.0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _compared(reference: Sequence[dict[str, Array]]) -> list[str]:
    return [name for name, array in reference[0].items() if _is_float(array)] if reference else []


def _is_float(array: Array) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "fV"


def _exact_db(array: Array) -> float:
    name = str(array.dtype)
    return _EXACT_DB.get(DType(name), 0.0) if name in DType._value2member_map_ else 0.0


def _all_equal(reference: Sequence[dict[str, Array]], rewritten: Sequence[dict[str, Array]], name: str) -> bool:
    return all(np.array_equal(a[name], b[name]) for a, b in zip(reference, rewritten, strict=True))


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else str(value)
