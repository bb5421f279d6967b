"""Hardware targets: spec sheets in SI units, shipped or the user's own, found by name, alias or path."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

import yaml

from eopt.ir.errors import InputError, UsageError

MAX_SHEET_BYTES, MAX_NAME = 1 << 20, 100
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Target:
    """A device as its spec sheet describes it. None means that no source says.

    Attributes:
        kind: `gpu`, `cpu` or `soc` (memory shared with the host).
        cores: streaming multiprocessors, compute units, Xe cores or CPU cores.
        clock_base_hz, clock_boost_hz: limits of what the clock does by itself; a part with one clock has a base only.
        clock_hz: where the clock is held (`backends/throttle.py`); None where it is free.
        idle_w: power of the board (package for a CPU) with nothing to do.
        vector: peak flop/s of the vector units by dtype.
        lanes_per_core: float32 lanes of one core, each a multiply-add per cycle.
        matrix: peak dense op/s of the matrix units (tensor cores, AMX, VNNI …) by dtype; `tf32` is one of them.
        sparse: op/s with 2:4 sparse weights, as datasheets advertise them; never used as dense rates.
        features: flags capability tables ask for (`sparse24`, `fp8`, `vnni`, `amx` …).
        tvm: tag or attributes of the TVM target.
        power_cap_w: the power limit that was set; None where it is the TDP.
        imputed: fields that were estimated rather than read.
        factors: by estimated field (`vector.float32`) its 90 % factor; `backends/impute.py` has one for the others.
    """

    name: str
    vendor: str
    model: str
    kind: str
    arch: str
    release_year: int | None = None
    process_nm: float | None = None
    cores: int | None = None
    lanes_per_core: float | None = None
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
    sparse: Mapping[str, float] = field(default_factory=dict)
    features: frozenset[str] = frozenset()
    interconnect: Mapping[str, Any] = field(default_factory=dict)
    tvm: Any = None
    aliases: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    clock_hz: float | None = None
    power_cap_w: float | None = None
    imputed: frozenset[str] = frozenset()
    factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def peak_clock_hz(self) -> float | None:
        """The clock the peak figures refer to, in Hz: vendors quote GPUs at their boost clock, CPUs at their base."""
        limits = (self.clock_boost_hz, self.clock_base_hz)
        first, second = reversed(limits) if self.kind == "cpu" else limits
        return self.clock_hz or first or second

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
    "lanes_per_core": ("lanes_per_core", 1),
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
_UNITS = ("vector", "matrix", "sparse")
_OTHER = {"memory.type", *(f"peak.{unit}" for unit in _UNITS), "interconnect", "tvm", "aliases", "features"}
FIELDS = frozenset({*_TEXTS, *_NUMBERS, *_OTHER, "sources", "cite"})
"""Every field of a sheet; nested ones with a dot."""
_TOP = {key.partition(".")[0] for key in FIELDS}
_NESTED = {key.partition(".")[0] for key in FIELDS if "." in key}
KINDS = ("gpu", "cpu", "soc")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
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
    _only_known(sheet, _TOP, where)
    for group in _NESTED & {key for key, value in sheet.items() if isinstance(value, dict)}:
        known = {key.partition(".")[2] for key in FIELDS if key.startswith(f"{group}.")}
        _only_known(sheet[group], known, f"{where}: {group}")
    return _target(sheet, where)


def _only_known(fields: dict[Any, Any], known: set[str], where: str) -> None:
    unknown = [key for key in fields if key not in known]
    if unknown:
        raise InputError(f"{where}: unknown field {unknown[0]!r}; known are {', '.join(sorted(known))}")


def _target(sheet: dict[str, Any], where: str) -> Target:
    values: dict[str, Any] = {name: _text(sheet, name, where) for name in _TEXTS}
    if values["kind"] not in KINDS:
        raise InputError(f"{where}: kind: {values['kind']!r} is none of {', '.join(KINDS)}")
    for key, (name, factor) in _NUMBERS.items():
        number = _number(_at(sheet, key, where), f"{where}: {key}")
        values[name] = None if number is None else number * factor
    for name in ("cores", "release_year"):
        values[name] = None if values[name] is None else int(values[name])
    for unit in _UNITS:
        values[unit] = _rates(_at(sheet, f"peak.{unit}", where) or {}, f"{where}: peak.{unit}")
    memory_type = _at(sheet, "memory.type", where)
    if memory_type is not None and not isinstance(memory_type, str):
        raise InputError(f"{where}: memory.type: {memory_type!r} is no text")
    return Target(
        **values,
        memory_type=memory_type,
        features=frozenset(_of(list, sheet, "features", where)),
        interconnect=_of(dict, sheet, "interconnect", where),
        tvm=sheet.get("tvm"),
        aliases=tuple(_of(list, sheet, "aliases", where)),
        sources=_of(dict, sheet, "sources", where),
    )


def _of(wanted: type[list[Any]] | type[dict[str, Any]], sheet: dict[str, Any], name: str, where: str) -> Any:
    """A list of texts or a mapping; an empty one where the field is missing."""
    value = sheet.get(name)
    if value is None:
        return wanted()
    if not isinstance(value, wanted) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {name}: expected a {'list of texts' if wanted is list else 'mapping'}")
    return value


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
    for dtype, rate in numbers.items():
        if rate == 0:
            raise InputError(f"{where}.{dtype}: 0 is no rate; leave out what the device does not have")
    return {dtype: rate * 1e12 for dtype, rate in numbers.items() if rate is not None}


@cache
def shipped() -> tuple[str, ...]:
    """Names of all sheets shipped, sorted."""
    folder = files("eopt.backends.targets")
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def own_folder() -> Path:
    """Where the user's own sheets are: `$EOPT_TARGETS`, else `~/.config/eopt/targets`."""
    named = os.environ.get("EOPT_TARGETS")
    return Path(named) if named else Path.home() / ".config/eopt/targets"


def names() -> list[str]:
    """Names of all sheets, shipped and the user's own, sorted."""
    return sorted({*shipped(), *(path.stem for path in own_folder().glob("*.yaml"))})


def add(path: Path) -> Path:
    """Copy a sheet to the user's own, where it is found by its name; returns where it is now.

    Raises:
        InputError: a sheet that cannot be used, or a name or alias that is taken.
        OutputError: the folder cannot be written.
    """
    from eopt.ir.onnx_out import atomic, made

    text = _read(path)
    sheet = parse(text, str(path))
    if not _NAME.fullmatch(sheet.name):
        raise InputError(f"{path}: name: {sheet.name!r} must be lower-case letters, digits and . _ - to be found by")
    _check_free(sheet, path)
    copy = made(own_folder()) / f"{sheet.name}.yaml"
    with atomic(copy) as file:
        file.write(text.encode())
    load.cache_clear()
    return copy


def _check_free(sheet: Target, path: Path) -> None:
    """Shipped names are taken, and so are the user's own but for a sheet that is added again."""
    own = [load(name) for name in names() if name not in shipped() and name != sheet.name]
    taken = dict.fromkeys(("auto", *shipped()), "is that of a shipped sheet")
    taken |= {alias: f"is an alias of {name}" for name in shipped() for alias in load(name).aliases}
    taken |= {name: f"is taken by {other.name}" for other in own for name in (other.name, *other.aliases)}
    for name in (sheet.name, *sheet.aliases):
        if name in taken:
            raise InputError(f"{path}: the name {name!r} {taken[name]}; give yours another, such as my-{name}")


@cache
def load(name: str) -> Target:
    """A target by name, alias, path to a sheet, any TVM target (`backends/tvm_target.py`), or `auto` for this machine.

    Raises:
        UsageError: unknown or ambiguous, with candidates in the message; a TVM target of a device nothing is known of.
        InputError: a sheet that cannot be used.
    """
    if name == "auto":
        from eopt.backends.detect import detect

        return detect()
    if name.endswith((".yaml", ".yml")):
        return parse(_read(Path(name)), name)
    if name in shipped():
        text = files("eopt.backends.targets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        return parse(text, f"target {name}")
    if name in names():
        return _own(name)
    from eopt.backends import tvm_target

    return aliases().get(name) or tvm_target.from_text(name) or _refuse(name)


def aliases() -> dict[str, Target]:
    """By alias the sheet that has it, shipped or the user's own."""
    return {alias: sheet for sheet in map(load, names()) for alias in sheet.aliases}


def _own(name: str) -> Target:
    path = own_folder() / f"{name}.yaml"
    sheet = parse(_read(path), str(path))
    if sheet.name != name:
        raise InputError(f"{path}: name: {sheet.name!r} is not that of the file; add sheets with eopt targets add FILE")
    return sheet


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_SHEET_BYTES:
            raise InputError(f"{path}: larger than a megabyte; that is no target sheet")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    except ValueError:  # a zero byte, or half a surrogate pair
        raise InputError(f"{str(path)!r}: no name of a file") from None


def _refuse(name: str) -> NoReturn:
    from eopt.backends.tvm_text import tags

    wanted = name.lower()[:MAX_NAME]
    partial = [candidate for candidate in names() if wanted in candidate] or [tag for tag in tags() if wanted in tag]
    close = partial or get_close_matches(wanted, dict.fromkeys([*names(), *aliases(), *tags()]), 5, 0.5)
    hint = f"did you mean {', '.join(close[:8])}?" if close else "eopt targets list names them"
    raise UsageError(f"no target {name[:MAX_NAME]!a}; {hint}")
