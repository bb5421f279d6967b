"""What was measured beside what was predicted: as plain data, as a table in a terminal, and as a plot."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING

import numpy as np

from eopt.backends.base import Unknown
from eopt.backends.harness.base import Timing
from eopt.backends.meters.base import EnergyReading
from eopt.costmodel.query import Interval
from eopt.tools.against import Comparison
from eopt.tools.measurement import Measurement, Operator
from eopt.tools.proving import sentence
from eopt.tools.report.tree import Json, finite
from eopt.tools.report.units import percent, si
from eopt.tools.turns import Saved

if TYPE_CHECKING:
    from rich.console import Console

WORST = 15  # operators in the table of a terminal


def document(found: Measurement) -> Json:
    """Everything about a measurement; what is not known is null, with reasons."""
    errors = [abs(one.error) for one in found.operators if one.error is not None]
    closed = found.energy_closure
    return {
        "kind": "measure",
        "model": found.name,
        "target": found.situation.target.name,
        "executor": found.setup.executor,
        "version": found.version,
        "schedule": found.setup.schedule,
        "bindings": dict(found.situation.bindings),
        "whole": None if found.whole is None else _operator(found.whole),
        "operators": [_operator(one) for one in sorted(found.operators, key=lambda one: -one.missed)],
        "median_error": float(np.median(errors)) if errors else None,
        "latency_closure": found.latency_share,
        "energy_closure": None
        if isinstance(closed, Unknown)
        else {"share": closed.share, "lo": closed.share_lo, "hi": closed.share_hi, "closes": closed.closes},
        "without_energy": list(found.without_energy),
        "failed": list(found.failed),
    }


def _operator(one: Operator) -> Json:
    return {
        "name": one.name,
        "where": one.where,
        "count": one.count,
        "inputs": one.row.get("inputs"),
        "dtype": one.row.get("dtype"),
        "predicted_s": _interval(one.predicted_s),
        "latency_s": one.latency.latency_s if isinstance(one.latency, Timing) else None,
        "cv": one.latency.cv if isinstance(one.latency, Timing) else None,
        "noisy": one.latency.noisy if isinstance(one.latency, Timing) else None,
        "error": one.error,
        "predicted_j": _interval(one.predicted_j),
        "energy": _energy(one.energy),
        "reasons": list(one.latency.reasons) if isinstance(one.latency, Unknown) else [],
    }


def _interval(figure: Interval | Unknown) -> Json | None:
    return None if isinstance(figure, Unknown) else {"mid": figure.mid, "lo": figure.lo, "hi": figure.hi}


def _energy(energy: EnergyReading | Unknown) -> Json:
    if isinstance(energy, Unknown):
        return {"energy_j": None, "reasons": list(energy.reasons)}
    names = ("energy_j", "energy_j_lo", "energy_j_hi", "net_j", "power_w", "idle_w", "scope", "trials", "noisy")
    return {**{name: getattr(energy, name) for name in names}, "reasons": list(energy.notes)}


def comparison(found: Comparison) -> Json:
    """Everything about two models that were run in turns; an infinite figure is null."""
    energy = found.energy
    return {
        "kind": "against",
        "verdict": found.verdict,
        "by": found.by,
        "latency_s": _saved(found.latency),
        "energy_j": None if isinstance(energy, Unknown) else _saved(energy),
        "without_energy": list(energy.reasons) if isinstance(energy, Unknown) else [],
        "predicted_saved_s": found.predicted_s,
        "predicted_saved_j": found.predicted_j,
        "outputs": [
            {"output": one.output, "max_abs": finite(one.max_abs), "sqnr_db": finite(one.sqnr_db)}
            for one in found.outputs
        ],
    }


def _saved(figure: Saved) -> Json:
    names = ("before", "after", "mean", "lo", "hi", "pairs", "verdict")
    return {name: getattr(figure, name) for name in names}


def print_measured(report: Json, console: Console) -> None:
    """The whole, the worst operators, and what could not be measured."""
    from rich import box
    from rich.table import Table

    schedule = f", {report['schedule']}" if report["schedule"] else ""
    title = f"{report['model']} on {report['target']}, {report['executor']} {report['version']}{schedule}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("worst predicted first", "runs", "predicted", "measured", "error", "energy"):
        left = name == "worst predicted first"
        table.add_column(name, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    whole, operators = report["whole"], report["operators"]
    for one in ([whole] if whole else []) + operators[:WORST]:
        table.add_row(*_cells(one, "the whole model" if one is whole else ""))
    console.print(table)
    for line in _lines(report):
        console.print(line, markup=False, soft_wrap=True)


def _cells(one: Json, name: str) -> tuple[str, ...]:
    noisy = " ~" if one["noisy"] else ""
    return (
        escape_markup(name or _named(one)),
        str(one["count"]),
        si(one["predicted_s"] and one["predicted_s"]["mid"], "s"),
        si(one["latency_s"], "s") + noisy,
        "unknown" if one["error"] is None else f"{100 * one['error']:+.0f} %",
        si(one["energy"]["energy_j"], "J"),
    )


def _named(one: Json) -> str:
    where, name = str(one["where"]), str(one["name"])
    return where if name in where else f"{where}: {name}"


def escape_markup(text: str) -> str:
    """Text that a rich console prints as it is."""
    from rich.markup import escape as plain

    return plain(text)


def _lines(report: Json) -> Iterator[str]:
    more = len(report["operators"]) - WORST
    if more > 0:
        yield f"and {more} operators that are predicted better; --json lists all"
    if report["median_error"] is not None:
        yield f"median error of operators {percent(report['median_error'])}"
    if report["latency_closure"] is not None:
        yield f"the operators' latencies add up to {percent(report['latency_closure'])} of the whole model's"
    if report["energy_closure"] is not None:
        closed = report["energy_closure"]
        verdict = "closes" if closed["closes"] else "does not close"
        interval = f"{percent(closed['lo'])} to {percent(closed['hi'])}"
        yield f"their energies add up to {percent(closed['share'])} ({interval}, 95 %): {verdict}"
    noisy = [one for one in report["operators"] if one["noisy"]]
    if noisy:
        yield f"~ {len(noisy)} noisy: the repeats differ by more than 5 %; is the machine busy?"
    for reason in report["without_energy"]:
        yield f"! energy unknown: {reason}"
    for reason in report["failed"]:
        yield f"! {reason}"


def print_comparison(found: Comparison, console: Console) -> None:
    """The verdict, both figures, what was predicted, and how outputs differ."""
    console.print(sentence(found), markup=False, soft_wrap=True)
    energy = found.energy
    if isinstance(energy, Unknown):
        console.print(
            f"! energy unknown, so latency decides: {'; '.join(energy.reasons)}", markup=False, soft_wrap=True
        )
    else:
        slow = found.latency
        saves = f"{si(slow.mean, 's')} ({si(slow.lo, 's')} to {si(slow.hi, 's')}, 95 %)"
        console.print(f"latency {si(slow.before, 's')} before, {si(slow.after, 's')} after, saves {saves}")
    pairs = found.latency.pairs if isinstance(energy, Unknown) else energy.pairs
    console.print(f"{pairs} pairs of runs in turns, ABBA or BAAB by chance, on the same inputs")
    console.print(f"predicted to save {si(found.predicted_s, 's')} and {si(found.predicted_j, 'J')}")
    for one in found.outputs:
        same = "identical" if one.max_abs == 0 else f"differs by at most {one.max_abs:.3g}, SQNR {one.sqnr_db:.1f} dB"
        console.print(f"output {one.output!r}: {same}", markup=False)


SIDE, MARGIN = 480, 64


def svg(report: Json) -> str:
    """Predicted against measured latency of every operator and the whole, both logarithmic, with the lines of equality
    and of a factor of two; a document of its own."""
    points: list[tuple[str, float, float]] = [
        (one["where"], one["predicted_s"]["mid"], one["latency_s"])
        for one in ([report["whole"]] if report["whole"] else []) + report["operators"]
        if one["predicted_s"] and one["latency_s"]
    ]
    figures = [value for _, *pair in points for value in pair] or [1e-6, 1e-3]
    low, high = floor(log10(min(figures))), ceil(log10(max(figures)))
    high = max(high, low + 1)

    def at(seconds: float) -> float:
        return round((log10(seconds) - low) / (high - low) * SIDE, 2)

    body = [f'<rect x="{MARGIN}" y="16" width="{SIDE}" height="{SIDE}" fill="none" stroke="#888"/>']
    for power in range(low, high + 1):
        place, label = at(10.0**power), escape(si(10.0**power, "s"))
        body += [
            _line(place, 0, place, SIDE, "#ddd"),
            _line(0, place, SIDE, place, "#ddd"),
            f'<text x="{MARGIN + place}" y="{SIDE + 34}" text-anchor="middle">{label}</text>',
            f'<text x="{MARGIN - 6}" y="{SIDE + 20 - place}" text-anchor="end">{label}</text>',
        ]
    step = round(log10(2) / (high - low) * SIDE, 2)
    body += [
        _line(0, 0, SIDE, SIDE, "#333"),
        _line(0, step, SIDE - step, SIDE, "#999", "4 3"),
        _line(step, 0, SIDE, SIDE - step, "#999", "4 3"),
    ]
    body += [
        f'<circle cx="{MARGIN + at(measured)}" cy="{16 + SIDE - at(predicted)}" r="4" fill="#06c" fill-opacity="0.6">'
        f"<title>{escape(name)}: predicted {si(predicted, 's')}, measured {si(measured, 's')}</title></circle>"
        for name, predicted, measured in points
    ]
    middle = MARGIN + SIDE / 2
    body += [
        f'<text x="{middle}" y="{SIDE + 54}" text-anchor="middle">measured latency; dashed: a factor of two</text>',
        f'<text transform="translate(14 {16 + SIDE / 2}) rotate(-90)" text-anchor="middle">predicted latency</text>',
    ]
    size = f'width="{SIDE + MARGIN + 32}" height="{SIDE + 68}"'
    style = 'font-family="sans-serif" font-size="12"'
    title = f"<title>{escape(report['model'])} on {escape(report['target'])}, {escape(report['executor'])}</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{title}{"".join(body)}</svg>\n'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "") -> str:
    """Between two points of the plot, whose origin is at the bottom."""
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{MARGIN + x1}" y1="{16 + SIDE - y1:g}" x2="{MARGIN + x2}" y2="{16 + SIDE - y2:g}"'
    return f'<line {ends} stroke="{colour}"{dashed}/>'
