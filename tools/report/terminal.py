"""The report in a terminal: where the joules go, what each pass did, what was refused and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eopt.tools.report.data import Json, modules, operators
from eopt.tools.report.units import change, percent, si

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TOP = 10
BAR = 12


def print_compile(report: Json, console: Console) -> None:
    """Bottlenecks before and after, passes, refusals, totals."""
    before, after = report["before"], report["after"]
    if before is not None:
        _heading(report, console)
        console.print(_top_operators("operators by energy, before", before))
        console.print(_top_operators("operators by energy, after", after))
        console.print(_top_modules(before, after))
    console.print(_passes(report["passes"]))
    _refusals(report["passes"], console)
    if before is None:
        console.print("no target given: nothing was priced (add --target NAME)")
        return
    _totals(before, after, console)


def print_predict(report: Json, console: Console, depth: int) -> None:
    """The annotated tree, the top operators and the totals."""
    priced = report["before"]
    _heading(report, console)
    console.print(_annotated(priced, depth))
    console.print(_top_operators("operators by energy", priced))
    _line(priced, console)
    _unknown(priced, console)


def _table(title: str, columns: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        if column in numbers:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def _heading(report: Json, console: Console) -> None:
    where = report["situation"]
    dims = ", ".join(f"{name}={size}" for name, size in where["bindings"].items()) or "fixed shapes"
    console.print(
        f"{report['model']['path']} on {where['target']} with {where['executor']} ({dims}); energy of the "
        f"{where['energy_scope']}, {', '.join(report['before']['basis']) or 'unknown'}",
        markup=False,
    )


def _top_operators(title: str, priced: Json) -> Table:
    table = _table(
        title, ("module", "operator", "fused", "energy", "share", "", "latency"), ("energy", "share", "latency")
    )
    whole = _mid(priced["energy_j"])
    ranked = sorted((op for op in operators(priced["tree"]) if op["energy_j"]), key=lambda op: -op["energy_j"])
    for op in ranked[:TOP]:
        share = op["energy_j"] / whole
        table.add_row(
            _plain(op["path"] or "-"),
            _plain(op["op"]),
            op["group"],
            si(op["energy_j"], "J"),
            percent(share),
            _bar(share),
            si(op["latency_s"], "s"),
        )
    return table


def _top_modules(before: Json, after: Json) -> Table:
    table = _table("modules by energy", ("module", "class", "before", "after", "change"), ("before", "after", "change"))
    later = dict(modules(after["tree"]))
    ranked = sorted(modules(before["tree"]), key=lambda item: -item[1]["energy_j"])
    for path, region in ranked[:TOP]:
        now = later.get(path)
        joules = now["energy_j"] if now else None
        table.add_row(
            _plain(path),
            _plain(region["cls"]),
            si(region["energy_j"], "J"),
            si(joules, "J") if now else "gone",
            change(region["energy_j"], joules) if now else "",
        )
    return table


def _annotated(priced: Json, depth: int) -> Table:
    table = _table("module tree", ("module", "class", "energy", "share", "", "latency"), ("energy", "share", "latency"))
    whole = _mid(priced["energy_j"])
    stack = [(0, priced["tree"])]
    while stack:
        level, node = stack.pop()
        share = node["energy_j"] / whole if whole else 0.0
        label = "  " * level + (node["name"] or "(model)")
        table.add_row(
            _plain(label),
            _plain(node["cls"]),
            si(node["energy_j"], "J"),
            percent(share),
            _bar(share),
            si(node["latency_s"], "s"),
        )
        if level < depth:
            below = [child for child in node["children"] if "children" in child]
            stack.extend((level + 1, child) for child in reversed(below))
    return table


def _passes(steps: Sequence[Json]) -> Table:
    table = _table("passes", ("pass", "applied", "refused", "nodes", "energy", "contract"), ("refused", "nodes"))
    for step in steps:
        applied = ", ".join(f"{item['count']} {item['rule']}" for item in step["applied"]) or "nothing"
        refused = sum(item["count"] for item in step["refused"])
        energy = step["energy_j"]
        joules = f"{si(energy[0], 'J')} -> {si(energy[1], 'J')}" if energy else ""
        verdict = step["verdict"] or "unchanged"
        if not step["kept"]:
            verdict = f"{verdict}: rolled back; first broken at {step['broken_at'] or 'unknown'}"
        nodes = f"{step['nodes'][0]} -> {step['nodes'][1]}"
        table.add_row(_plain(step["spec"]), _plain(applied), str(refused), nodes, joules, _plain(verdict))
        for note in step["notes"]:
            table.add_row("", _plain(f"note: {note}"))
    return table


def _refusals(steps: Sequence[Json], console: Console) -> None:
    refused = [(step["spec"], item) for step in steps for item in step["refused"]]
    if not refused:
        return
    table = _table("refused", ("pass", "rule", "count", "saved", "reason", "for example"), ("count", "saved"))
    for name, item in refused:
        saved = "" if item["saved_j"] is None else si(item["saved_j"], "J")
        example = item["where"][0] if item["where"] else ""
        table.add_row(_plain(name), _plain(item["rule"]), str(item["count"]), saved, item["reason"], _plain(example))
    console.print(table)


def _totals(before: Json, after: Json, console: Console) -> None:
    table = _table("total", ("", "before", "after", "change"), ("before", "after", "change"))
    for label, key, unit in (("energy", "energy_j", "J"), ("latency", "latency_s", "s")):
        table.add_row(
            label, _ranged(before[key], unit), _ranged(after[key], unit), change(_mid(before[key]), _mid(after[key]))
        )
    table.add_row(
        "power", si(before["power_w"], "W"), si(after["power_w"], "W"), change(before["power_w"], after["power_w"])
    )
    table.add_row("launch overhead", percent(before["launch_share"]), percent(after["launch_share"]), "")
    console.print(table)
    if before["launch_share"] is not None:
        console.print(
            f"{percent(1 - before['launch_share'])} of the predicted time before, and "
            f"{percent(1 - (after['launch_share'] or 0.0))} after, is not launch overhead"
        )
    _unknown(after, console)


def _line(priced: Json, console: Console) -> None:
    console.print(
        f"total {_ranged(priced['energy_j'], 'J')}, {_ranged(priced['latency_s'], 's')}, {si(priced['power_w'], 'W')}; "
        f"launch overhead {percent(priced['launch_share'])} of the time"
    )


def _unknown(priced: Json, console: Console) -> None:
    unknown = priced["unknown"]
    if not unknown["count"]:
        console.print("every executed operator could be priced")
        return
    console.print(f"unknown: {unknown['count']} operators ({percent(unknown['share'])}), not in the totals")
    for op in unknown["ops"][:TOP]:
        console.print(f"  {op['path']}/{op['name']} ({op['op']}): {'; '.join(op['reasons'])}", markup=False)


def _mid(interval: Json | None) -> float:
    return interval["mid"] if interval else 0.0


def _ranged(interval: Json | None, unit: str) -> str:
    if interval is None:
        return "unknown"
    return f"{si(interval['mid'], unit)} [{si(interval['lo'], unit)}, {si(interval['hi'], unit)}]"


def _bar(share: float) -> str:
    return "█" * max(0, min(BAR, round(share * BAR)))


def _plain(text: Any) -> str:
    """Names come from model files: no markup of theirs is interpreted, and no control characters reach the terminal."""
    from rich.markup import escape

    return escape(
        "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))
    )
