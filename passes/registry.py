"""Passes by name, loaded when asked for; third parties add theirs through the entry-point group `eopt.passes`."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from eopt.ir.errors import UsageError
from eopt.passes.base import Pass

GROUP = "eopt.passes"

_OWN = {
    "simplify": "eopt.passes.simplify:Simplify",
    "fuse": "eopt.passes.fuse:Fuse",
    "quant": "eopt.passes.quant:Quant",
    "cast": "eopt.passes.cast:Cast",
    "lower-qop": "eopt.passes.lower_qop:LowerQop",
}


@cache
def _locations() -> dict[str, EntryPoint]:
    found = {name: EntryPoint(name, location, GROUP) for name, location in _OWN.items()}
    for entry in entry_points(group=GROUP):
        if entry.name in found:
            raise UsageError(f"pass {entry.name!r} of {entry.value} is already defined; uninstall or rename one")
        found[entry.name] = entry
    return found


def names() -> list[str]:
    """Names of all passes, ours first."""
    return list(_locations())


@cache
def load(name: str) -> type[Pass]:
    """The pass of this name.

    Raises:
        UsageError: no such pass.
    """
    if name not in _locations():
        close = get_close_matches(name, names(), 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names())}"
        raise UsageError(f"no pass {name!r}{hint}")
    entry = _locations()[name]
    found = getattr(import_module(entry.module), entry.attr)
    if not (isinstance(found, type) and issubclass(found, Pass)):
        raise UsageError(f"pass {name!r}: {entry.value} is no eopt.passes.base.Pass")
    return found
