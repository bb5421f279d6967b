"""Chips of one design: predicting one device from another with the same die looks like skill and is not.

Boards differ in memory, form, clocks and how many cores are enabled. Dies as vendors name them in their whitepapers.
"""

from __future__ import annotations

from collections.abc import Collection

# Beginnings of sheet names; the longest that fits counts.
_DIES = {
    "gp100": ("nvidia-p100", "nvidia-quadro-gp100"),
    "gp102": ("nvidia-gtx-1080-ti", "nvidia-titan-x", "nvidia-titan-xp", "nvidia-p40", "nvidia-quadro-p6000"),
    "gp104": ("nvidia-gtx-1070", "nvidia-gtx-1080", "nvidia-p4", "nvidia-quadro-p4000"),
    "gv100": ("nvidia-v100", "nvidia-titan-v", "nvidia-quadro-gv100"),
    "tu102": ("nvidia-rtx-2080-ti", "nvidia-titan-rtx", "nvidia-quadro-rtx-6000", "nvidia-quadro-rtx-8000"),
    "tu104": ("nvidia-t4", "nvidia-rtx-2080", "nvidia-quadro-rtx-4000", "nvidia-quadro-rtx-5000"),
    "ga100": ("nvidia-a100", "nvidia-a30"),
    "ga102": ("nvidia-a10", "nvidia-a40", "nvidia-rtx-3080", "nvidia-rtx-3090", "nvidia-rtx-a4500", "nvidia-rtx-a5000",
              "nvidia-rtx-a6000"),
    "ga104": ("nvidia-rtx-3060-ti", "nvidia-rtx-3070", "nvidia-rtx-a4000"),
    "ad102": ("nvidia-l20", "nvidia-l40", "nvidia-l40s", "nvidia-rtx-4090", "nvidia-rtx-5000-ada",
              "nvidia-rtx-6000-ada"),
    "ad104": ("nvidia-l4", "nvidia-rtx-4070", "nvidia-rtx-4000-ada", "nvidia-rtx-4500-ada"),
    "gh100": ("nvidia-h100", "nvidia-h20", "nvidia-h200", "nvidia-h800", "nvidia-gh200"),
    "gb100": ("nvidia-b100", "nvidia-b200", "nvidia-b300", "nvidia-gb200", "nvidia-gb300"),
    "gb202": ("nvidia-rtx-5090", "nvidia-rtx-pro-6000"),
    "aldebaran": ("amd-mi210", "amd-mi250", "amd-mi250x"),
    "cdna3": ("amd-mi300x", "amd-mi325x"),
    "bmg-g21": ("intel-b60", "intel-arc-b580"),
}  # fmt: skip


def die(name: str) -> str:
    """The die of a device; its own name where none is known to be shared."""
    fitting = {start: code for code, starts in _DIES.items() for start in starts if f"{name}-".startswith(f"{start}-")}
    return fitting[max(fitting, key=len)] if fitting else name


def sibling(name: str, known: Collection[str]) -> str:
    """The first of the known devices that is made of the same die, '' for none."""
    return next((other for other in sorted(known) if other != name and die(other) == die(name)), "")
