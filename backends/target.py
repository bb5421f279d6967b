"""Hardware targets: spec sheets in SI units, found by name, alias or path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from eopt.ir.errors import InputError, UsageError

MAX_SHEET_BYTES = 1 << 20
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Target:
    """A device as its spec sheet describes it. None means that no source says.

    Attributes:
        kind: `gpu`, `cpu` or `soc` (memory shared with the host).
        cores: streaming multiprocessors, compute units, Xe cores or CPU cores.
        clock_boost_hz: the clock the peak figures refer to.
        idle_w: power of the board (package for a CPU) with nothing to do.
        vector: peak flop/s of the vector units by dtype.
        matrix: peak dense op/s of the matrix units (tensor cores, AMX, VNNI …) by dtype; `tf32` is one of them.
        features: flags capability tables ask for (`sparse24`, `fp8`, `vnni`, `amx` …).
        tvm: tag or attributes of the TVM target.
        imputed: fields that were estimated rather than read.
    """

    name: str
    vendor: str
    model: str
    kind: str
    arch: str
    release_year: int | None = None
    process_nm: float | None = None
    cores: int | None = None
    clock_base_hz: float | None = None
    clock_boost_hz: float | None = None
    tdp_w: float | None = None
    idle_w: float | None = None
    memory_type: str | None = None
    memory_bytes: float | None = None
    bandwidth_bytes_per_s: float | None = None
    l2_bytes: float | None = None
    l2_bandwidth_bytes_per_s: float | None = None
    l1_bytes_per_core: float | None = None
    vector: Mapping[str, float] = field(default_factory=dict)
    matrix: Mapping[str, float] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    interconnect: Mapping[str, Any] = field(default_factory=dict)
    tvm: Any = None
    aliases: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    imputed: frozenset[str] = frozenset()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {**asdict(self), "features": sorted(self.features), "imputed": sorted(self.imputed)}

    def __hash__(self) -> int:
        return hash(self.name)


# sheet key -> (field, factor to SI); nested keys with dots
_NUMBERS = {
    "release_year": ("release_year", 1),
    "process_nm": ("process_nm", 1),
    "cores": ("cores", 1),
    "clock_mhz.base": ("clock_base_hz", 1e6),
    "clock_mhz.boost": ("clock_boost_hz", 1e6),
    "tdp_w": ("tdp_w", 1),
    "idle_w": ("idle_w", 1),
    "memory.gib": ("memory_bytes", 2**30),
    "memory.bandwidth_gb_per_s": ("bandwidth_bytes_per_s", 1e9),
    "cache.llc_mib": ("l2_bytes", 2**20),
    "cache.llc_bandwidth_gb_per_s": ("l2_bandwidth_bytes_per_s", 1e9),
    "cache.l1_kib_per_core": ("l1_bytes_per_core", 2**10),
}
_TEXTS = ("name", "vendor", "model", "kind", "arch")
_OTHER = {"memory.type", "peak.vector", "peak.matrix", "peak.sparse", "interconnect", "tvm", "aliases", "features"}
_TOP = {key.partition(".")[0] for key in (*_NUMBERS, *_OTHER)} | {*_TEXTS, "sources", "cite"}
KINDS = ("gpu", "cpu", "soc")
DTYPES = ("float64", "tf32", "float32", "float16", "bfloat16", "float8", "float4", "int8", "int4")


def parse(text: str, where: str) -> Target:
    """Read a sheet.

    Raises:
        InputError: naming the sheet and the field.
    """
    if len(text) > MAX_SHEET_BYTES:
        raise InputError(f"{where}: larger than a megabyte; that is no target sheet")
    try:
        sheet = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{where}: not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(sheet, dict):
        raise InputError(f"{where}: a target sheet is a mapping of fields")
    for key in sheet:
        if key not in _TOP:
            raise InputError(f"{where}: unknown field {key!r}; known are {', '.join(sorted(_TOP))}")
    return _target(sheet, where)


def _target(sheet: dict[str, Any], where: str) -> Target:
    values: dict[str, Any] = {name: _text(sheet, name, where) for name in _TEXTS}
    if values["kind"] not in KINDS:
        raise InputError(f"{where}: kind: {values['kind']!r} is none of {', '.join(KINDS)}")
    for key, (name, factor) in _NUMBERS.items():
        number = _number(_at(sheet, key, where), f"{where}: {key}")
        values[name] = None if number is None else number * factor
    for name in ("cores", "release_year"):
        values[name] = None if values[name] is None else int(values[name])
    peak = _at(sheet, "peak", where) or {}
    for unit in ("vector", "matrix"):
        values[unit] = _rates(peak.get(unit) or {}, f"{where}: peak.{unit}")
    return Target(
        **values,
        memory_type=_at(sheet, "memory.type", where),
        features=frozenset(map(str, sheet.get("features") or ())),
        interconnect=sheet.get("interconnect") or {},
        tvm=sheet.get("tvm"),
        aliases=tuple(map(str, sheet.get("aliases") or ())),
        sources=sheet.get("sources") or {},
    )


def _at(sheet: dict[str, Any], path: str, where: str) -> Any:
    found: Any = sheet
    for key in path.split("."):
        if found is None:
            return None
        if not isinstance(found, dict):
            raise InputError(f"{where}: {path.partition('.')[0]}: expected a mapping")
        found = found.get(key)
    return found


def _text(sheet: dict[str, Any], name: str, where: str) -> str:
    value = sheet.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: {name}: missing or no text")
    return value


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise InputError(f"{where}: {value!r} is no sensible number")
    return float(value)


def _rates(rates: Any, where: str) -> dict[str, float]:
    if not isinstance(rates, dict) or not set(rates) <= set(DTYPES):
        raise InputError(f"{where}: expected TFLOP/s for some of {', '.join(DTYPES)}")
    numbers = {dtype: _number(rate, f"{where}.{dtype}") for dtype, rate in rates.items()}
    return {dtype: rate * 1e12 for dtype, rate in numbers.items() if rate}


def names() -> list[str]:
    """Names of all sheets shipped, sorted."""
    folder = files("eopt.backends.targets")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


@cache
def load(name: str) -> Target:
    """A target by name, alias, path to a sheet, or `auto` for this machine.

    Raises:
        UsageError: unknown or ambiguous; the message lists candidates.
        InputError: a sheet that cannot be used.
    """
    if name == "auto":
        from eopt.backends.detect import detect

        return detect()
    if name.endswith((".yaml", ".yml")):
        return _from_file(Path(name))
    if name in names():
        text = files("eopt.backends.targets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        return parse(text, f"target {name}")
    return _by_alias(name)


def _from_file(path: Path) -> Target:
    try:
        if path.stat().st_size > MAX_SHEET_BYTES:
            raise InputError(f"{path}: larger than a megabyte; that is no target sheet")
        return parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None


def _by_alias(name: str) -> Target:
    known = {alias: target for target in map(load, names()) for alias in target.aliases}
    if name in known:
        return known[name]
    wanted = name.lower()
    partial = [candidate for candidate in names() if wanted in candidate]
    close = partial or get_close_matches(wanted, [*names(), *known], 5, 0.5)
    hint = f"did you mean {', '.join(close[:8])}?" if close else "eopt targets list names them"
    raise UsageError(f"no target {name!r}; {hint}")
