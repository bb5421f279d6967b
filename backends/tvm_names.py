"""Names of devices that a TVM target made of a sheet: what differs stands behind its name, and is read back from there.

Calibrations and records are stored by these names, so `cpu-amd-epyc-9004-8core` means the same target wherever it is
typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from eopt.backends import detect
from eopt.backends.target import Target
from eopt.ir.errors import UsageError


def slug(tag: str) -> str:
    """A tag as a name: `nvidia-geforce-gtx-960`."""
    return re.sub(r"[^a-z0-9._-]", "-", tag.lower())


def split(name: str) -> tuple[str, dict[str, int]]:
    """A name without its last ending, and the option this stands for; none where it has no such ending."""
    found = _ENDING.fullmatch(name)
    if found is None:
        return name, {}
    values = zip(VARIATIONS, found.groups()[1:], strict=True)
    return found[1], {option: int(value) for option, value in values if value}


def varied(sheet: Target, attributes: Mapping[str, Any]) -> Target:
    """A device with the figures of a TVM target in the place of the sheet's, and a name that says which.

    Raises:
        UsageError: a figure that is not above 0.
    """
    for option, (change, ending) in VARIATIONS.items():
        value = attributes.get(option)
        if value is not None and not 0 < value < LARGEST:
            raise UsageError(f"TVM target: {option}: {value} is no sensible number")
        changed = sheet if value is None else change(sheet, value)
        if changed is not sheet:
            tvm = {**(sheet.tvm if isinstance(sheet.tvm, dict) else {}), option: value}
            sheet = replace(changed, name=sheet.name + ending.format(value), aliases=(), tvm=tvm)
    return sheet


LARGEST = 10**12


def _cores(sheet: Target, cores: int) -> Target:
    return sheet if cores == sheet.cores else detect.share(sheet, cores)


def _l2(sheet: Target, size: int) -> Target:
    if size == sheet.l2_bytes:
        return sheet
    return replace(sheet, l2_bytes=float(size), imputed=sheet.imputed - {"l2_bytes"})


def _vector(sheet: Target, bits: int) -> Target:
    """Vectors of the compiler that are narrower than the CPU's."""
    widest = next((width for feature, width in (("avx512", 512), ("avx2", 256)) if feature in sheet.features), 128)
    if bits >= widest:
        return sheet
    return replace(
        sheet,
        vector={dtype: rate * bits / widest for dtype, rate in sheet.vector.items()},
        matrix={dtype: rate * bits / widest for dtype, rate in sheet.matrix.items()},
        imputed=sheet.imputed | {"vector", "matrix"},
    )


# Options that say something of the device, what they change, and how a name shows it.
VARIATIONS: Mapping[str, tuple[Callable[[Target, int], Target], str]] = {
    "num-cores": (_cores, "-{}core"),
    "l2_cache_size_bytes": (_l2, "-l2-{}"),
    "vector-width": (_vector, "-vector{}"),
}
_ENDING = re.compile(r"(.+)-(?:(\d{1,12})core|l2-(\d{1,12})|vector(\d{1,12}))", re.ASCII)
