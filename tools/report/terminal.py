"""The report in a terminal: where the joules go, what each pass did, what was refused and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from eopt.tools.report import frontier, usage
from eopt.tools.report.tree import Json, folded, folded_kernels, modules
from eopt.tools.report.units import change, figure, percent, si

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TOP = 10
BAR = 8
_SIDES = ("before", "after", "change")


def print_compile(report: Json, console: Console) -> None:
    """Warnings, bottlenecks before and after, modules, passes, frontiers, refusals, totals."""
    before, after = report["before"], report["after"]
    _heading(report, console)
    if before is not None:
        console.print(_bottlenecks([("before", before), ("after", after)]))
        console.print(_top_modules(before, after))
    console.print(_passes(report["passes"]))
    for step in report["passes"]:
        _frontier(step, console)
    _refusals(report["passes"], console)
    if before is not None:
        _totals(before, after, console)
        _unknown(after, console)


def print_predict(report: Json, console: Console, depth: int) -> None:
    """Warnings, the tree down to `depth` levels of modules, bottlenecks, totals."""
    priced = report["before"]
    _heading(report, console)
    console.print(_annotated(priced, depth))
    console.print(_bottlenecks([("operator", priced)]))
    console.print(
        f"total {_ranged(priced['energy_j'], 'J')}, {_ranged(priced['latency_s'], 's')}, {si(priced['power_w'], 'W')}"
    )
    console.print(f"{percent(priced['launch_share'])} of predicted time is launch overhead")
    for line in (*_composition(priced), *usage.lines(report)):
        console.print(line, markup=False)
    _unknown(priced, console)


def _composition(priced: Json) -> Iterator[str]:
    """Operators and what the whole takes besides; parts of a step of training; what of the operators' joules is
    kernels, launch gaps, and not in the physics."""
    if priced["residual"]:
        off = priced["residual"]
        figures = (f"{off[name]:+.3g} {unit}" for name, unit in (("energy_j", "J"), ("latency_s", "s")))
        each = (_ranged(priced["operators"][name], unit) for name, unit in (("energy_j", "J"), ("latency_s", "s")))
        yield f"operators {', '.join(each)}; residual {', '.join(figures)}"
    for name, part in (priced["parts"] or {}).items():
        if part:
            yield f"{name} {_ranged(part['energy_j'], 'J')}, {_ranged(part['latency_s'], 's')}"
    sums: Json = priced["operators"] or {"energy_j": None}
    joules = _mid(sums["energy_j"])
    if joules and priced["launch_j"] is not None:
        gaps = priced["launch_j"] / joules
        yield f"{percent(1 - gaps)} of the joules are kernels, {percent(gaps)} waiting for launches"
    learned = priced["learned"]
    if joules and learned:
        seconds = sums["latency_s"]["mid"]
        moved = [
            change(all_of_it - off, all_of_it)
            for all_of_it, off in ((joules, learned["energy_j"]), (seconds, learned["latency_s"]))
        ]
        yield f"learned beyond the physics prior: {moved[0]} joules, {moved[1]} seconds"


def _heading(report: Json, console: Console) -> None:
    where, priced = report["situation"], report["before"]
    console.print(f"[bold]{_plain(report['model']['path'])}[/]")
    if where is not None:
        dims = ", ".join(f"{name}={size}" for name, size in where["bindings"].items()) or "fixed shapes"
        basis = ", ".join(priced["basis"]) or "unknown"
        console.print(
            f"on {_plain(where['target'])} with {_plain(where['executor'])}{_run_as(where)}, {_plain(dims)}; "
            f"energy of the {where['energy_scope']}, {basis}{_asked_of(where)}"
        )
    for warning in report["warnings"]:
        console.print(f"[yellow]! {_plain(warning)}[/]")


def _run_as(where: Json) -> str:
    step = f", a step of training with {where['optimizer']}" if where["optimizer"] else ""
    return (" in a captured graph" if where["launches"] == "graph" else "") + step


def _asked_of(where: Json) -> str:
    return f", by {_plain(where['cost_model'])}" if where["cost_model"] else ""


def _table(title: str, columns: Sequence[str], numbers: Sequence[str] = ()) -> Table:
    """Text folds where it is too long; numbers (right-aligned) and bars never do."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"\n{title}" if title else None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        if column in numbers or not column:
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def _bottlenecks(sides: Sequence[tuple[str, Json]]) -> Table:
    """The kernels with the most joules, the sides next to each other."""
    columns = [column for label, _ in sides for column in (label, "energy", "")]
    table = _table(f"top {TOP} operators and fused groups by energy", columns, ["energy"])
    ranked = [folded_kernels(priced["tree"])[:TOP] for _, priced in sides]
    longest = max((kernel["share"] or 0.0 for side in ranked for kernel in side[:1]), default=0.0) or 1.0
    for row in zip_longest(*ranked):
        table.add_row(*[cell for kernel in row for cell in _kernel_cells(kernel, longest)])
    return table


def _kernel_cells(kernel: Json | None, longest: float) -> tuple[str, str, str]:
    """Two lines each: module above operator, joules above seconds, share above its bar (`longest` fills it)."""
    if kernel is None:
        return "", "", ""
    others = kernel["members"] - 1
    group = f" +{others} fused ({kernel['group']})" if others else f" ({kernel['group']})" if kernel["group"] else ""
    times = f" ×{kernel['count']}" if kernel["count"] > 1 else ""
    return (
        f"{_plain(kernel['path'] or '(model)')}{times}\n[dim]{_plain(kernel['op'])}{group}, {kernel['basis']}[/]",
        f"{si(kernel['energy_j'], 'J')}\n[dim]{si(kernel['latency_s'], 's')}[/]",
        f"{percent(kernel['share'])}\n{_bar((kernel['share'] or 0.0) / longest)}",
    )


def _top_modules(before: Json, after: Json) -> Table:
    table = _table("top modules by energy", ("module", "class", *_SIDES), _SIDES)
    later = dict(modules(after["tree"]))
    known = [item for item in modules(before["tree"]) if item[1]["energy_j"]]
    for path, region in sorted(known, key=lambda item: -item[1]["energy_j"])[:TOP]:
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
    parts = list(priced["parts"] or ())
    numbers = ("energy", "share", "latency", *parts)
    table = _table("module tree", ("module", "class", "energy", "share", "", "latency", *parts), numbers)
    stack = [(0, folded([priced["tree"]]))]
    while stack:
        level, node = stack.pop()
        table.add_row(
            "  " * level + _plain(node["name"] or "(model)"),
            _class(node),
            si(node["energy_j"], "J"),
            percent(node["share"]),
            _bar(node["share"]),
            si(node["latency_s"], "s"),
            *(si(node["parts"][part]["energy_j"], "J") for part in parts if "parts" in node),
        )
        if level < depth:
            stack.extend((level + 1, child) for child in reversed(node["children"]))
    return table


def _class(node: Json) -> str:
    times = f" ×{node['count']}" if node["count"] > 1 else ""
    return _plain(node["cls"]) + times + (f" ({node['unknown']} unknown)" if node["unknown"] else "")


def _passes(steps: Sequence[Json]) -> Table:
    table = _table("passes", ("pass", "applied", "refused", "energy", "change", "contract"), ("refused", "change"))
    for step in steps:
        applied = [f"{item['count']} {_plain(item['rule'])}" for item in step["applied"]] or ["nothing"]
        notes = [f"[dim]note: {_plain(note)}[/]" for note in step["notes"]]
        energy = step["energy_j"]
        table.add_row(
            _plain(step["spec"]),
            "\n".join([*applied, *notes]),
            str(sum(item["count"] for item in step["refused"])),
            f"{si(energy[0], 'J')} -> {si(energy[1], 'J')}" if energy else "not priced",
            change(*energy) if energy else "",
            _verdict(step),
        )
    return table


def _verdict(step: Json) -> str:
    verdict = step["verdict"]
    if verdict is None:
        return "unchanged"
    if step["kept"]:
        return f"[green]holds[/]: {_plain(verdict['text'])}"
    where = f"; first broken at {_plain(step['broken_at'])}" if step["broken_at"] else ""
    return f"[red]rolled back[/]: {_plain(verdict['text'])}{where}"


def _frontier(step: Json, console: Console) -> None:
    """What was tried to hold the contract, the cheapest first. The title is wider than the table."""
    if not step["trials"]:
        return
    joules, bound = frontier.priced(step), step["bound"]
    columns = (*(["energy"] if joules else []), "low precision", _plain(bound["unit"]), "contract")
    against = "joules" if joules else "operators in low precision"
    asked = f"{step['spec']}, {figure(bound['required'])} {bound['unit']} required"
    console.print(f"\n[bold]frontier of loss against {against}: {_plain(asked)}[/]")
    table = _table("", columns, columns[:-1])
    for cells, trial in zip(frontier.cells(step), step["trials"], strict=True):
        held = "[green]holds[/]" if trial["holds"] else "[red]breaks[/]"
        table.add_row(*cells, f"{held}, [bold]chosen[/]" if trial["chosen"] else held)
    console.print(table)


def _refusals(steps: Sequence[Json], console: Console) -> None:
    refused = [(step["spec"], item) for step in steps for item in step["refused"]]
    if not refused:
        return
    table = _table("refused", ("rule", "count", "saving", "reason", "for example"), ("count", "saving"))
    for spec, item in refused:
        table.add_row(
            _plain(f"{spec.partition('{')[0]}: {item['rule']}"),
            str(item["count"]),
            "unknown" if item["saved_j"] is None else si(item["saved_j"], "J"),
            _plain(item["reason"]),
            _plain(item["where"][0] if item["where"] else ""),
        )
    console.print(table)


def _totals(before: Json, after: Json, console: Console) -> None:
    table = _table("total, 90 % intervals in brackets", ("", *_SIDES), _SIDES)
    for label, key, unit in (("energy", "energy_j", "J"), ("latency", "latency_s", "s")):
        moved = change(_mid(before[key]), _mid(after[key]))
        table.add_row(label, _ranged(before[key], unit), _ranged(after[key], unit), moved)
    watts = before["power_w"], after["power_w"]
    table.add_row("power", si(watts[0], "W"), si(watts[1], "W"), change(*watts))
    console.print(table)
    was, now = percent(before["launch_share"]), percent(after["launch_share"])
    console.print(f"{now} of predicted time is launch overhead (before: {was})")


def _unknown(priced: Json, console: Console) -> None:
    unknown = priced["unknown"]
    if not unknown["count"]:
        console.print("unknown: none, every executed operator could be priced")
        return
    console.print(f"unknown: {unknown['count']} operators ({percent(unknown['share'])} of kernels), not in the totals")
    for op in unknown["ops"][:TOP]:
        where = f"{op['path']}/{op['name']}".lstrip("/")
        console.print(f"  {_plain(where)} ({_plain(op['op'])}): {_plain('; '.join(op['reasons']))}")
    if unknown["count"] > TOP:
        console.print(f"  and {unknown['count'] - TOP} more in the JSON report")


def _mid(interval: Json | None) -> float | None:
    return interval["mid"] if interval else None


def _ranged(interval: Json | None, unit: str) -> str:
    if interval is None:
        return "unknown"
    return f"{si(interval['mid'], unit)} [{si(interval['lo'], unit)}, {si(interval['hi'], unit)}]"


def _bar(share: float | None) -> str:
    return "█" * max(0, min(BAR, round((share or 0.0) * BAR)))


def _plain(text: Any) -> str:
    """Names come from model files: no markup of theirs is interpreted, and no control characters reach the terminal."""
    from rich.markup import escape

    return escape(
        "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))
    )
