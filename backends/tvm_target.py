"""TVM targets as targets of ours, and the reverse.

A TVM target that names a device of ours is its sheet: by a tag among the sheet's aliases, by `model`, or by the `mcpu`
of a CPU. What was written beside that and says something else than the sheet changes it, and its name with it. Of a
device without a sheet an architecture may be known, from whose parts `backends/typical.py` estimates the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eopt.backends import detect, tvm_names, tvm_text, typical
from eopt.backends import target as targets
from eopt.backends.target import Target
from eopt.backends.tvm_text import Attributes, Description
from eopt.ir.errors import UsageError

# Architecture and year of the first part by compute capability: NVIDIA, "CUDA GPU compute capability" and "CUDA legacy
# GPUs", https://developer.nvidia.com/cuda-gpus, and the CUDA C++ programming guide.
_GENERATIONS = {
    20: ("fermi", 2010), 21: ("fermi", 2010), 30: ("kepler", 2012), 32: ("kepler", 2014), 35: ("kepler", 2013),
    37: ("kepler", 2014), 50: ("maxwell", 2014), 52: ("maxwell", 2014), 53: ("maxwell", 2015), 60: ("pascal", 2016),
    61: ("pascal", 2016), 62: ("pascal", 2017), 70: ("volta", 2017), 72: ("volta", 2018), 75: ("turing", 2018),
    80: ("ampere", 2020), 86: ("ampere", 2020), 87: ("ampere", 2022), 89: ("ada", 2022), 90: ("hopper", 2022),
    100: ("blackwell", 2024), 103: ("blackwell", 2025), 110: ("blackwell", 2025), 120: ("blackwell", 2025),
    121: ("blackwell", 2025),
}  # fmt: skip
_SOCS = {32, 53, 62, 72, 87, 110, 121}
# Of a thread block on every part since Kepler: CUDA C++ programming guide, technical specifications per compute
# capability. Tags say where a part has less, such as half the registers on small ones.
_BLOCK = {
    "max_num_threads": 1024, "max_threads_per_block": 1024, "thread_warp_size": 32, "registers_per_block": 65536,
    "max_shared_memory_per_block": 49152,
}  # fmt: skip
_ESTIMATED = re.compile(r"tvm-(cuda-sm_[0-9]{2,3}|rocm-gfx[0-9a-f]{3,5}|metal)")
_STATED = {"cores": "num-cores", "l2_bytes": "l2_cache_size_bytes"}
_NO_FIGURES = {"kind", "keys", "host", "model"}


def from_text(text: str) -> Target | None:
    """The target of a TVM target, or of the name that one has here; None for any other text.

    Raises:
        UsageError: a TVM target that cannot be read, or of a device that nothing is known of.
    """
    return _resolved(tvm_text.parse(text)) if tvm_text.is_tvm(text) else _named(text)


def tvm_target(target: Target) -> dict[str, Any]:
    """What `tvm.target.Target` takes for a target: attributes of its tag or its architecture's tags, under its own.

    Raises:
        UsageError: its sheet has no field `tvm`, or one that is no TVM target.
    """
    if target.tvm is None:
        fix = "add the TVM target of the device, such as {kind: llvm, mcpu: cortex-a72}"
        raise UsageError(f"target {target.name}: tvm: missing; {fix}")
    own = _own(target)
    found = {"model": target.name, **_usual(target, own), **own}
    known = tvm_text.options(found["kind"])
    stated = {option: getattr(target, field) for field, option in _STATED.items() if option in known}
    bare = {name: value for name, value in found.items() if name not in stated}
    return bare | {option: int(value) for option, value in stated.items() if value}


def _own(sheet: Target) -> Attributes:
    return {} if sheet.tvm is None else tvm_text.checked(sheet.tvm, f"target {sheet.name}: tvm").attributes


def _usual(target: Target, own: Attributes) -> dict[str, Any]:
    """Attributes of the tag of a target, else those on which all tags of its architecture agree."""
    named = [tvm_text.tags()[alias] for alias in target.aliases if alias in tvm_text.tags()]
    alike = named[:1] or [
        tag for tag in tvm_text.tags().values() if tag["kind"] == own["kind"] and _code(tag) == _code(own)
    ]
    agreed = {name: value for name, value in (alike or [{}])[0].items() if all(tag.get(name) == value for tag in alike)}
    return {**(_BLOCK if own["kind"] == "cuda" else {}), **agreed}


def _code(attributes: Attributes) -> tuple[str, str]:
    """Kind and architecture; `nvptx` is another road to cuda devices."""
    kind = "cuda" if attributes["kind"] == "nvptx" else str(attributes["kind"])
    return kind, typical.generation(attributes.get("arch") or attributes.get("mcpu") or "")


def _resolved(written: Description) -> Target:
    found = _without_native(written)
    base = _sheet(found) or _unknown(found)
    own, by_alias = _own(base), found.tag in base.aliases
    merged = {**found.attributes, **own, **found.said} if by_alias else {**own, **found.attributes}
    known = tvm_text.options(found.kind)
    tvm = {**{name: value for name, value in merged.items() if name in known}, "kind": found.kind}
    figures = found.said if by_alias else found.attributes
    return tvm_names.varied(replace(base, tvm=tvm, sources=_noted(base, found)), figures)


def _without_native(found: Description) -> Description:
    """This machine's CPU is known by its own name: `native` would leave the compiler without its dot products."""
    if found.attributes.get("mcpu") != "native":
        return found
    said, attributes = (
        {name: value for name, value in given.items() if name != "mcpu"} for given in (found.said, found.attributes)
    )
    return replace(found, said=said, attributes=attributes)


def _noted(base: Target, found: Description) -> Mapping[str, str]:
    """Sources of a sheet, and what was written that it does not say."""
    if base.tvm is None:
        return base.sources
    known = tvm_target(base)
    apart = [name for name in found.said if name not in _NO_FIGURES and known.get(name) != found.said[name]]
    places = [
        f"{name} {found.said[name]}" + (f" in the place of {known[name]}" if name in known else "") for name in apart
    ]
    return {**base.sources, "tvm": f"as written: {'; '.join(places)}"} if places else base.sources


def _sheet(found: Description) -> Target | None:
    """The sheet of the device a TVM target names."""
    aliases, model = targets.aliases(), found.attributes.get("model", "")
    if found.tag in aliases:
        return aliases[found.tag]
    named = _by_model(model) if model else None
    if named is not None and named.tvm is not None and _code(_own(named))[0] == _code(found.attributes)[0]:
        return named
    if found.kind == "cuda" and "arch" not in found.attributes:
        return detect.nvidia()
    return _cpu(found) if found.kind == "llvm" else None


def _by_model(model: str) -> Target | None:
    """By name, alias, or what one name alone contains, dashes or not: `1080ti` is nvidia-gtx-1080-ti."""
    bare = re.sub(r"[^a-z0-9]", "", model.lower())
    close = [name for name in targets.names() if bare and bare in name.replace("-", "")]
    if model in targets.names() or len(close) == 1:
        return targets.load(model if model in targets.names() else close[0])
    return targets.aliases().get(model) or _named(model)


def _cpu(found: Description) -> Target | None:
    """By `mcpu` the oldest CPU that has it; without one, this machine's."""
    mcpu = found.attributes.get("mcpu")
    if mcpu is None and not found.tag and "mtriple" not in found.attributes:
        return detect.cpu()
    cpus = [sheet for sheet in map(targets.load, targets.shipped()) if _code(_own(sheet)) == ("llvm", mcpu)]
    return min(cpus, key=lambda sheet: (sheet.release_year or 0, sheet.name), default=None)


def _unknown(found: Description) -> Target:
    """A target without a sheet, estimated."""
    kind, code = _code(found.attributes)
    sought = _sought(found, kind, code)
    name = tvm_names.slug(found.tag) or "-".join(filter(None, ("tvm", kind, code)))
    base = typical.typical(name, found.tag or f"any {code or kind}", sought) if sought else None
    if base is None:
        raise UsageError(_nothing_known(found, kind, code))
    l2_bytes = tvm_text.tags().get(found.tag, {}).get("l2_cache_size_bytes")
    return base if l2_bytes is None else replace(base, l2_bytes=float(l2_bytes))


def _sought(found: Description, kind: str, code: str) -> typical.Sought | None:
    if kind == "metal":
        return typical.Sought("soc", "apple", kind)
    if kind == "rocm" and re.fullmatch(r"gfx[0-9a-f]{3,5}", code):
        return typical.Sought("gpu", "amd", code)
    number = re.fullmatch(r"sm_([0-9]{2,3})", code) if kind == "cuda" else None
    if number is None or int(number[1]) not in _GENERATIONS:
        return None
    soc = int(number[1]) in _SOCS or "jetson" in found.tag
    return typical.Sought("soc" if soc else "gpu", "nvidia", code, *_GENERATIONS[int(number[1])])


def _nothing_known(found: Description, kind: str, code: str) -> str:
    sheets = [sheet for sheet in map(targets.load, targets.shipped()) if _code(_own(sheet))[0] == kind]
    known = sorted({_code(_own(sheet))[1] for sheet in sheets} - {""})
    listed = f" (those of kind {kind} are {', '.join(known)})" if known and not found.tag else ""
    alias = f" with aliases: [{found.tag}]" if found.tag else ""
    device = found.tag or " ".join(filter(None, (kind, code[:40])))
    missing = "memory.bandwidth_gb_per_s and peak.vector.float32 are missing"
    return f"TVM target {device}: no sheet is of this device or its like{listed}; {missing}: write a sheet{alias}"


def _named(name: str) -> Target | None:
    """By a name given to a TVM target: `nvidia-geforce-gtx-960`, `tvm-cuda-sm_86`, `cpu-amd-epyc-9004-8core`."""
    if len(name) > targets.MAX_NAME:
        return None
    if name == detect.cpu().name:
        return detect.cpu()
    base, figures = tvm_names.split(name)
    if figures:
        return _varied(base, figures)
    tag = next((tag for tag in tvm_text.tags() if tvm_names.slug(tag) == name), None)
    kind, _, code = name.removeprefix("tvm-").partition("-")
    option = "arch" if kind == "cuda" else "mcpu"
    if tag is None and not _ESTIMATED.fullmatch(name):
        return None
    return _resolved(tvm_text.checked(tag or {"kind": kind, **({option: code} if code else {})}, name))


def _varied(base: str, figures: dict[str, int]) -> Target | None:
    known = base in targets.names()
    sheet = targets.load(base) if known else _named(base)
    if sheet is None or not figures.keys() <= tvm_text.options(_own(sheet).get("kind", "")).keys():
        return None
    return tvm_names.varied(sheet, figures)
