"""A device that no sheet describes, as the parts of its architecture or its vendor make one expect it.

Memory bandwidth and the float32 rate are the median of the shipped sheets with the same TVM architecture, or, where
there are none, on the trend of the vendor's parts over release years: a line through their logarithms. The factor
beside each covers nine in ten shipped sheets when they are estimated in that way from the others; away from the years
of the sheets asked it grows as the standard error of a prediction does. Rates of other types are the usual multiples
of the float32 rate. What else a sheet has is left to `backends/impute.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, hypot, log, sqrt
from statistics import fmean, linear_regression, median, pvariance

from eopt.backends import target as targets
from eopt.backends.impute import FEW, NEAREST, _spread
from eopt.backends.target import Target


@dataclass(frozen=True)
class Sought:
    """What is known of a device.

    Attributes:
        kind, vendor: as in a sheet.
        tvm: architecture as TVM names it (`sm_86`, `gfx942`; the kind of target where it has none).
        arch, release_year: of the generation, where its architecture tells.
    """

    kind: str
    vendor: str
    tvm: str
    arch: str = ""
    release_year: int | None = None


def typical(name: str, model: str, sought: Sought) -> Target | None:
    """A target by that name; None where there is too little to estimate it from."""
    asked = [sheet for sheet in _parts(sought.kind, sought.vendor) if architecture(sheet) == sought.tvm]
    if asked:
        figures = {field: _middle(field, asked) for field in _FIELDS}
        arch, year = asked[0].arch, None
    elif sought.release_year and len(_parts(sought.kind, sought.vendor)) >= FEW:
        arch, year = sought.arch, sought.release_year
        figures = {field: _trend(field, sought, year) for field in _FIELDS}
        asked = [sheet for sheet in _parts(sought.kind, sought.vendor) if (sheet.release_year or 0) <= year][-NEAREST:]
    else:
        return None
    bare = Target(name, sought.vendor, model, sought.kind, arch, release_year=year)
    return _with_rates(bare, asked, figures)


def architecture(sheet: Target) -> str:
    """Of a sheet, as TVM names it."""
    tvm = sheet.tvm if isinstance(sheet.tvm, dict) else {}
    return generation(str(tvm.get("arch") or tvm.get("mcpu") or tvm.get("kind")))


def generation(name: str) -> str:
    """An architecture without the suffix that lets a compiler use what later ones lack: `sm_90` for sm_90a."""
    return re.sub(r"^(sm_\d+)[af]$", r"\1", name)


_IMPUTED = frozenset({"bandwidth_bytes_per_s", "vector", "matrix"})
_FIELDS = ("bandwidth_bytes_per_s", "float32")
Estimate = tuple[float, float]
"""A figure, and the 90 % factor around it."""


def _with_rates(bare: Target, asked: Sequence[Target], figures: dict[str, Estimate]) -> Target:
    float32, off = figures["float32"]
    rates: dict[str, dict[str, float]] = {"vector": {"float32": float32}, "matrix": {}}
    factors = {"bandwidth_bytes_per_s": figures["bandwidth_bytes_per_s"][1], "vector.float32": off}
    for unit, dtype in ((unit, dtype) for unit in rates for dtype in targets.DTYPES if dtype not in rates[unit]):
        having = [sheet for sheet in asked if dtype in getattr(sheet, unit)]
        known = [getattr(sheet, unit)[dtype] / sheet.vector["float32"] for sheet in having]
        if 2 * len(known) > len(asked):
            usual = median(known)
            rates[unit][dtype] = usual * float32
            factors[f"{unit}.{dtype}"] = exp(hypot(log(off), max(abs(log(ratio / usual)) for ratio in known)))
    return replace(
        bare,
        vector=rates["vector"],
        matrix=rates["matrix"],
        bandwidth_bytes_per_s=figures["bandwidth_bytes_per_s"][0],
        features=frozenset.intersection(*(sheet.features for sheet in asked)) if asked else frozenset(),
        imputed=_IMPUTED | ({"release_year"} if bare.release_year else set()),
        factors=factors,
    )


@cache
def _parts(kind: str, vendor: str) -> tuple[Target, ...]:
    """Shipped sheets of a vendor, by release year."""
    found = [sheet for sheet in map(targets.load, targets.shipped()) if (sheet.kind, sheet.vendor) == (kind, vendor)]
    return tuple(sorted(found, key=lambda sheet: (sheet.release_year or 0, sheet.name)))


def _figures(asked: Sequence[Target], field: str) -> list[float]:
    return [float(sheet.vector[field] if field in sheet.vector else getattr(sheet, field)) for sheet in asked]


def _families() -> list[tuple[Target, ...]]:
    sheets = [sheet for sheet in map(targets.load, targets.shipped()) if sheet.kind != "cpu"]
    return [_parts(*family) for family in sorted({(sheet.kind, sheet.vendor) for sheet in sheets})]


def _middle(field: str, asked: Sequence[Target]) -> Estimate:
    """The median; architectures that spread more than most have a wider factor."""
    known = _figures(asked, field)
    value = median(known)
    own = _spread([abs(log(figure / value)) for figure in known]) if len(known) >= FEW else 1.0
    return value, max(own, _sibling_factor(field))


@cache
def _sibling_factor(field: str) -> float:
    """Of the median of the architecture, from each sheet beside the others of its own."""
    errors = []
    for parts in _families():
        for sheet in parts:
            others = [other for other in parts if other is not sheet and architecture(other) == architecture(sheet)]
            if others:
                errors.append(abs(log(_figures([sheet], field)[0] / median(_figures(others, field)))))
    return _spread(errors)


def _trend(field: str, sought: Sought, year: int) -> Estimate:
    value, leverage = _line(field, _parts(sought.kind, sought.vendor), year)
    return value, exp(log(_trend_factor(field)) * leverage)


@cache
def _trend_factor(field: str) -> float:
    """From each sheet beside the trend of its vendor's other architectures."""
    errors = []
    for parts in _families():
        for sheet in parts:
            others = [other for other in parts if architecture(other) != architecture(sheet)]
            if len({other.release_year for other in others}) >= FEW:
                found, leverage = _line(field, others, sheet.release_year or 0)
                errors.append(abs(log(found / _figures([sheet], field)[0])) / leverage)
    return _spread(errors)


def _line(field: str, parts: Sequence[Target], year: int) -> tuple[float, float]:
    """The trend at a year, and how much wider than at its middle a prediction is there."""
    years = [float(part.release_year or 0) for part in parts]
    slope, intercept = linear_regression(years, [log(figure) for figure in _figures(parts, field)])
    away = (year - fmean(years)) ** 2 / pvariance(years)
    return exp(intercept + slope * year), sqrt(1 + (1 + away) / len(years))
