"""Sources of measurements by name, imported when asked for; others come in through the entry points `eopt.datasets`."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from eopt.costmodel.datasets.base import Source
from eopt.ir.errors import UsageError

GROUP = "eopt.datasets"

_OWN = (
    "neusight", "aiconfigurator", "pipeweave", "vidur", "llmservingsim", "energaizer", "joulepoint", "irene", "zeus",
    "mlenergy", "llmperf", "getzner", "hwnas_pi5", "help_nas",
)  # fmt: skip


def _entries() -> dict[str, EntryPoint]:
    own = {name: EntryPoint(name, f"{__name__}.{name}:SOURCE", GROUP) for name in _OWN}
    foreign = {entry.name: entry for entry in entry_points(group=GROUP)}
    if taken := own.keys() & foreign.keys():
        raise UsageError(f"data sources {', '.join(sorted(taken))} are already defined; uninstall or rename the others")
    return {**own, **foreign}


def names() -> list[str]:
    """Names of all sources, ours first."""
    return list(_entries())


def load(name: str) -> Source:
    """The source of this name.

    Raises:
        UsageError: no such source, or its entry point names something else.
    """
    entries = _entries()
    if name not in entries:
        close = get_close_matches(name, entries, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(entries)}"
        raise UsageError(f"no data source {name!r}; {hint}")
    found = entries[name].load()
    if not isinstance(found, Source):
        raise UsageError(f"data source {name!r}: {entries[name].value} is no eopt.costmodel.datasets.base.Source")
    return found
