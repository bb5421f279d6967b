"""What a sheet leaves open, estimated from the shipped sheets, with how wrong that is.

A missing figure is the median, over the five sheets nearest in release year and memory bandwidth, of its ratio to
figures that are known, times those. The sheets asked are siblings of the architecture; without any, the vendor's other
parts of that kind, then other vendors', then other kinds. The stated uncertainty is how far the same rule is off for
shipped sheets that do state the figure: each is estimated from the others as if it were missing, without siblings where
siblings were not asked. It covers nine sheets in ten, and grows beyond the range of the sheets asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from math import exp, hypot, log, sqrt
from statistics import median

from eopt.backends import target as targets
from eopt.backends.target import Target
from eopt.ir.errors import InputError

NEAREST = 5
FEW = 3  # fewer sheets than this say nothing about parts that are not their siblings, nor about the error
LEAST_FACTOR = 1.05  # sheets round, and figures mean slightly different things
LEAST_YEAR_FACTOR = 1.0005  # a year
ASSUMED_FACTOR = 2.0  # where too few sheets state a figure to learn from
YEARS = 3.0  # this many years part sheets as much as memory bandwidths that differ e-fold

# Idle power over TDP, where no sheet states both: vendors do not, so this is a convention of the project, not learned.
IDLE_SHARE = {"gpu": 0.13, "cpu": 0.25, "soc": 0.2}

Powers = tuple[tuple[str, float], ...]
Figures = Mapping[str, float]

# What is estimated, in this order, from a product of powers of figures: the first of which all are known.
RULES: dict[str, tuple[Powers, ...]] = {
    "release_year": ((),),
    "process_nm": ((),),
    "lanes_per_core": ((),),
    "clock_hz": ((("float32", 1.0), ("cores", -1.0), ("lanes_per_core", -1.0)), ()),
    "clock_boost_hz": ((("clock_hz", 1.0),),),
    "cores": ((("float32", 1.0), ("clock_hz", -1.0), ("lanes_per_core", -1.0)),),
    "tdp_w": (
        (("idle_w", 1.0),),
        (("float32", 0.25), ("bandwidth_bytes_per_s", 0.25)),
    ),
    "idle_w": ((("tdp_w", 1.0),),),
    "llc_bytes": ((("cores", 1.0),),),
    "llc_bandwidth_bytes_per_s": ((("cores", 1.0), ("clock_hz", 1.0)),),
    "l1_bytes_per_core": ((),),
}
_SHEET_FIELDS = {
    **{name: name for name in ("release_year", "process_nm", "lanes_per_core", "cores", "tdp_w", "idle_w")},
    **{name: name for name in ("l1_bytes_per_core", "bandwidth_bytes_per_s", "clock_boost_hz")},
    "clock_hz": "peak_clock_hz",
    "llc_bytes": "l2_bytes",
    "llc_bandwidth_bytes_per_s": "l2_bandwidth_bytes_per_s",
}
# Who is asked, most alike first.
_Alike = Callable[[Target, Target], bool]
_TIERS: tuple[_Alike, ...] = (
    lambda one, other: _family(one) == _family(other),
    lambda one, other: _family(one)[:2] == _family(other)[:2] and one.arch != other.arch,
    lambda one, other: one.kind == other.kind and one.vendor != other.vendor,
    lambda one, other: one.kind != other.kind,
)


@dataclass(frozen=True)
class Imputed:
    """A sheet without gaps, in SI units.

    Attributes:
        clock_hz: the clock the peak figures refer to.
        clock_boost_hz: the highest clock.
        lanes_per_core: float32 lanes of one core at `clock_hz`, each a multiply-add per cycle.
        vector, matrix: peak op/s as the sheet gives them; `vector` also has float16 and bfloat16.
        imputed: by field that the sheet does not state (`vector.float16` for a rate) the factor around the estimate
            within which the truth lies in nine cases of ten; for `memory_type` one over the share of sheets it is right
            for.
    """

    name: str
    release_year: float
    process_nm: float
    cores: float
    lanes_per_core: float
    clock_hz: float
    clock_boost_hz: float
    tdp_w: float
    idle_w: float
    memory_type: str
    bandwidth_bytes_per_s: float
    llc_bytes: float
    llc_bandwidth_bytes_per_s: float
    l1_bytes_per_core: float
    vector: Mapping[str, float]
    matrix: Mapping[str, float]
    imputed: Mapping[str, float]


@lru_cache(maxsize=1024)
def completed(target: Target) -> Imputed:
    """Every number a cost model needs, for any sheet.

    Raises:
        InputError: the sheet has no memory bandwidth, no float32 rate, or a rate that is not positive.
    """
    _check(target)
    figures = _stated(target)
    factors = _distrusted(target, figures)
    for field, rules in RULES.items():
        if field in figures:
            continue
        powers = next(powers for powers in rules if all(name in figures for name, _ in powers))
        figures[field], own = _estimate(field, powers, target, figures)
        known = {"float32": factors.get("vector.float32", 1.0), **factors}
        factors[field] = exp(hypot(log(own), *(log(known.get(name, 1.0)) * power for name, power in powers)))
    memory_type = target.memory_type
    if memory_type is None:
        memory_type, factors["memory_type"] = _memory_type(target, figures)
    vector = {**_narrow(target), **target.vector}
    off = log(factors.get("vector.float32", 1.0))
    for dtype in vector.keys() - target.vector.keys():
        factors[f"vector.{dtype}"] = exp(hypot(off, log(_narrow_factor(dtype, target.kind))))
    return Imputed(
        name=target.name,
        memory_type=memory_type,
        vector=vector,
        matrix=dict(target.matrix),
        imputed=factors,
        bandwidth_bytes_per_s=figures["bandwidth_bytes_per_s"],
        **{field: figures[field] for field in RULES},
    )


def _check(target: Target) -> None:
    where = f"target {target.name}"
    if target.bandwidth_bytes_per_s is None:
        raise InputError(f"{where}: memory.bandwidth_gb_per_s: missing; nothing can be estimated without it")
    if _float32(target) is None:
        raise InputError(f"{where}: peak.vector.float32: missing; nothing can be estimated without it")
    rates = [("memory.bandwidth_gb_per_s", target.bandwidth_bytes_per_s)]
    rates += [(f"peak.vector.{dtype}", rate) for dtype, rate in target.vector.items()]
    rates += [(f"peak.matrix.{dtype}", rate) for dtype, rate in target.matrix.items()]
    for field, rate in rates:
        if not rate > 0:
            raise InputError(f"{where}: {field}: {rate:g} is no rate; leave out what the device does not have")


def _float32(target: Target) -> float | None:
    return target.vector.get("float32", target.matrix.get("float32"))


def _stated(target: Target) -> dict[str, float]:
    """What the sheet says, by our names, and the lanes that follow from cores, clock and the float32 peak."""
    read = {field: getattr(target, name) for field, name in _SHEET_FIELDS.items()}
    figures = {field: float(value) for field, value in read.items() if value}
    float32 = _float32(target)
    if float32 is not None:
        figures["float32"] = float32
    if target.clock_base_hz:
        figures.setdefault("clock_boost_hz", target.clock_base_hz)
    if "lanes_per_core" not in figures and {"float32", "cores", "clock_hz"} <= figures.keys():
        figures["lanes_per_core"] = figures["float32"] / (2 * figures["cores"] * figures["clock_hz"])
    return figures


def _distrusted(target: Target, figures: Figures) -> dict[str, float]:
    """Factors of the values that the sheet has and itself calls estimates."""
    own = [field for field, name in _SHEET_FIELDS.items() if name in target.imputed and field in figures]
    factors = {field: _factor(field, RULES[field][-1], 0, target.kind) for field in own if field in RULES}
    factors |= {field: ASSUMED_FACTOR for field in own if field not in RULES}
    for unit, rates in (("vector", target.vector), ("matrix", target.matrix)):
        factors |= {f"{unit}.{dtype}": ASSUMED_FACTOR for dtype in rates if unit in target.imputed}
    return factors | dict(target.factors)


@cache
def _catalogue() -> tuple[tuple[Target, Figures], ...]:
    return tuple((sheet, _stated(sheet)) for sheet in map(targets.load, targets.shipped()))


def _family(target: Target) -> tuple[str, str, str]:
    return target.kind, target.vendor, target.arch


def _estimate(field: str, powers: Powers, target: Target, figures: Figures) -> tuple[float, float]:
    """A value and its factor, from the tier most alike that has sheets to ask."""
    base = _product(powers, figures)
    for tier in range(len(_TIERS)):
        asked = _asked(field, powers, tier, target)
        if asked:
            beyond = _beyond(base, [_product(powers, other) for other in asked])
            return _ratio(field, powers, asked, figures) * base, _factor(field, powers, tier, target.kind) * beyond
    share = IDLE_SHARE[target.kind]
    return base * (share if field == "idle_w" else 1 / share), ASSUMED_FACTOR


def _beyond(base: float, known: list[float]) -> float:
    """What a figure outside of the range of the known ones adds to the factor: half the way to there, in logarithms."""
    return sqrt(max(1.0, base / max(known), min(known) / base))


def _asked(field: str, powers: Powers, tier: int, target: Target) -> list[Figures]:
    needed = {field, *(name for name, _ in powers)}
    asked = [other for other in _others(tier, target) if needed <= other.keys()]
    return asked if len(asked) >= (FEW if tier else 1) else []


def _ratio(field: str, powers: Powers, asked: list[Figures], figures: Figures) -> float:
    return median(other[field] / _product(powers, other) for other in _nearest(asked, figures, field))


def _others(tier: int, target: Target) -> Iterable[Figures]:
    alike = _TIERS[tier]
    return (figures for sheet, figures in _catalogue() if sheet.name != target.name and alike(target, sheet))


def _nearest(asked: list[Figures], figures: Figures, but: str) -> list[Figures]:
    def distance(other: Figures) -> float:
        apart = abs(log(other["bandwidth_bytes_per_s"] / figures["bandwidth_bytes_per_s"]))
        if but != "release_year" and "release_year" in figures and "release_year" in other:
            apart += abs(other["release_year"] - figures["release_year"]) / YEARS
        return apart

    return sorted(asked, key=distance)[:NEAREST]


def _product(powers: Powers, figures: Figures) -> float:
    return exp(sum(power * log(figures[name]) for name, power in powers))


@cache
def _factor(field: str, powers: Powers, tier: int, kind: str) -> float:
    """The 90 % factor of a rule for parts of a kind, of any kind where too few of that one state the figure."""
    errors: dict[str, list[float]] = {}
    for sheet, figures in _catalogue():
        if field not in figures or any(name not in figures for name, _ in powers):
            continue
        asked = _asked(field, powers, tier, sheet)
        if asked:
            found = _ratio(field, powers, asked, figures) * _product(powers, figures)
            errors.setdefault(sheet.kind, []).append(abs(log(found / figures[field])))
    known = errors.get(kind, [])
    if len(known) < FEW:
        known = [error for listed in errors.values() for error in listed]
    return _spread(known, LEAST_YEAR_FACTOR if field == "release_year" else LEAST_FACTOR)


def _spread(errors: list[float], least: float = LEAST_FACTOR) -> float:
    """The factor that nine in ten logarithmic errors stay below."""
    if len(errors) < FEW:
        return ASSUMED_FACTOR
    return max(least, exp(sorted(errors)[round(0.9 * (len(errors) - 1))]))


def _memory_type(target: Target, figures: Figures) -> tuple[str, float]:
    """What the nearest sheet has, and one over the share of sheets this is right for."""
    right = [_nearest_type(sheet, known) == sheet.memory_type for sheet, known in _catalogue()]
    return _nearest_type(target, figures), len(right) / sum(right)


def _nearest_type(target: Target, figures: Figures) -> str:
    types = {id(known): sheet.memory_type for sheet, known in _catalogue()}
    tiers = ([other for other in _others(tier, target) if types[id(other)]] for tier in range(len(_TIERS)))
    asked = next(others for others in tiers if others)
    return str(types[id(_nearest(asked, figures, "memory_type")[0])])


# Packed pairs in the vector units. float16: CUDA C++ programming guide, throughput of arithmetic instructions (twice
# float32 from compute capability 5.3, 6.0, 6.2 and 7.x on, on 8.0, 9.0 and 10.0; as float32 or emulated with it on 6.1,
# 8.6, 8.9 and 12.0); AMD "Vega" and later ISA guides (packed math); Intel Xe ISA (half-float SIMD twice as wide);
# AVX512-FP16 from Sapphire Rapids on, and Arm FEAT_FP16. bfloat16: of these the same CUDA guide has twice float32 for
# NVIDIA's compute parts from 8.0 on, the others have no packed arithmetic in it.
_HALF_ARCHS = {"volta", "turing", "hopper", "sapphire-rapids", "emerald-rapids", "granite-rapids"}
_BFLOAT_ARCHS = {"ampere", "hopper", "blackwell"}
_HALF_VENDORS = {"amd", "intel"}


def _narrow(target: Target) -> dict[str, float]:
    """float16 and bfloat16 rates of the vector units: the float32 rate, or twice that where the lanes are paired."""
    float32 = _float32(target) or 0.0
    compute_part = (target.memory_type or "").lower().startswith("hbm")
    if target.kind == "cpu":
        paired = "neon_fp16" in target.features or target.arch in _HALF_ARCHS
    elif target.vendor == "nvidia":
        paired = target.arch in _HALF_ARCHS or target.kind == "soc" or compute_part
    else:
        paired = target.vendor in _HALF_VENDORS
    paired_bfloat = target.vendor == "nvidia" and compute_part and target.arch in _BFLOAT_ARCHS
    return {"float16": float32 * (1 + paired), "bfloat16": float32 * (1 + paired_bfloat)}


@cache
def _narrow_factor(dtype: str, kind: str) -> float:
    stated = [sheet for sheet, _ in _catalogue() if dtype in sheet.vector and sheet.kind == kind]
    return _spread([abs(log(_narrow(sheet)[dtype] / sheet.vector[dtype])) for sheet in stated])
