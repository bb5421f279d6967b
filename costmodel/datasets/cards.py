"""Data cards: what a source of the built table holds, as Markdown, with a plot where matplotlib is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from eopt.costmodel.datasets import load, table
from eopt.costmodel.datasets.base import Source

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = {"latency_s": ("latency", "s"), "power_w": ("power", "W"), "energy_j": ("energy", "J")}
MOST_OPS = 12  # named in a row of the table of devices
BINS = 60


def write(out: Path, folder: Path, name: str) -> list[Path]:
    """Write the card of a source that was built below `out`, and its plot; the paths of both."""
    columns = ["device", "level", "op", "phase", "executor", "energy_scope", "noisy", "workload", *QUANTITIES]
    rows = table.read(out, [name], columns)
    folder.mkdir(parents=True, exist_ok=True)
    plot = _plot(rows, folder / f"{name}.svg") if find_spec("matplotlib") and len(rows) else None
    card = folder / f"{name}.md"
    card.write_text(markdown(load(name), rows, plot.name if plot else None), encoding="utf-8")
    return [card, plot] if plot else [card]


def markdown(source: Source, rows: pd.DataFrame, plot: str | None) -> str:
    """The text of a card; `plot` is the file of its figure."""
    noisy = int(rows["noisy"].astype("boolean").sum())
    parts = [
        f"# {source.name}\n",
        f"Upstream: {source.upstream}  \nLicence: {source.licence}  \nFolder: `{source.folder}`\n",
        f"{len(rows):,} rows, {rows['workload'].nunique():,} workloads, {noisy:,} rows marked noisy. "
        f"Phases: {_counts(rows, 'phase')}. Executors: {_counts(rows, 'executor')}. "
        f"Energy: {_counts(rows, 'energy_scope')}.\n",
        "## Devices and operators\n",
        _table(("device", "level", "rows", "operators"), _devices(rows)),
        "## Ranges\n",
        _table(("device", "quantity", "rows", "least", "median", "greatest"), _ranges(rows)),
    ]
    if plot:
        parts.append(f"![Histograms of latency, power and energy by device]({plot})\n")
    if source.notes:
        parts += ["## Notes\n", "".join(f"- {note}\n" for note in source.notes)]
    return "\n".join(parts)


def _counts(rows: pd.DataFrame, column: str) -> str:
    counts = rows[column].value_counts()
    return ", ".join(f"{label} {count:,}" for label, count in counts.items() if count) or "not known"


def _devices(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for (device, level), part in rows.groupby(["device", "level"], observed=True):
        counts = part["op"].value_counts()
        named = [f"{op} {count:,}" for op, count in counts[counts > 0].items()]
        more = f" and {len(named) - MOST_OPS} more" if len(named) > MOST_OPS else ""
        lines.append((str(device), str(level), f"{len(part):,}", ", ".join(named[:MOST_OPS]) + more))
    return lines


def _ranges(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for device, part in rows.groupby("device", observed=True):
        for column, (label, unit) in QUANTITIES.items():
            values = part[column].dropna()
            if len(values):
                figures = (f"{figure:.4g} {unit}" for figure in (values.min(), values.median(), values.max()))
                lines.append((str(device), label, f"{len(values):,}", *figures))
    return lines


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *lines))


def _plot(rows: pd.DataFrame, path: Path) -> Path:
    """Histograms over decades, one panel for each quantity that was read."""
    import numpy as np
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    read = [column for column in QUANTITIES if rows[column].notna().any()]
    figure = Figure(figsize=(4 * len(read), 3), layout="constrained")
    for place, column in enumerate(read, 1):
        axes = figure.add_subplot(1, len(read), place)
        values = rows.dropna(subset=[column]).groupby("device", observed=True)[column]
        edges = np.geomspace(rows[column].min() * 0.99, rows[column].max() * 1.01, BINS).tolist()
        for device, part in values:
            axes.hist(part, edges, histtype="step", label=str(device))
        label, unit = QUANTITIES[column]
        axes.set(xscale="log", xlabel=f"{label} / {unit}", ylabel="rows" if place == 1 else "")
    figure.get_axes()[0].legend(fontsize=5)
    with rc_context({"svg.hashsalt": path.stem}):  # the same rows give the same file
        figure.savefig(path, metadata={"Date": None})
    return path
