"""List and show passes.

eopt passes list
eopt passes show quant"""

from __future__ import annotations

import argparse
import inspect
from dataclasses import fields
from typing import Any

from eopt.tools.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("action", choices=["list", "show"])
    parser.add_argument("name", nargs="?", metavar="PASS", help="the pass to show")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one pass or all."""
    from eopt.ir.errors import UsageError
    from eopt.passes import registry

    if arguments.action == "show" and not arguments.name:
        raise UsageError("passes show: which one? eopt passes list names them")
    chosen = [arguments.name] if arguments.action == "show" else registry.names()
    described = [_describe(registry.load(name)) for name in chosen]
    if arguments.json:
        common.print_json(described if arguments.action == "list" else described[0])
    elif arguments.action == "list":
        _print_list(described)
    else:
        _print_one(described[0])
    return 0


def _describe(cls: Any) -> dict[str, Any]:
    doc = inspect.getdoc(cls) or ""
    return {
        "name": cls.name,
        "summary": doc.partition("\n")[0],
        "doc": doc,
        "after": list(cls.after),
        "conflicts": list(cls.conflicts),
        "gated": str(cls.granularity),
        "needs_data": cls.needs_data,
        "options": [{"name": f.name, "type": str(f.type), "default": str(getattr(cls(), f.name))} for f in fields(cls)],
        "rules": [rule.name for rule in cls.rules()],
    }


def _print_list(described: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("pass", "what it does", "runs after", "gated by", "data")
    for item in described:
        needs = "needed" if item["needs_data"] else ""
        table.add_row(item["name"], item["summary"], ", ".join(item["after"]), item["gated"], needs)
    common.console().print(table)


def _print_one(item: dict[str, Any]) -> None:
    from rich.table import Table

    console = common.console()
    console.print(f"{item['name']}: {item['doc']}\n", markup=False)
    table = Table("option", "type", "default")
    for option in item["options"]:
        table.add_row(option["name"], option["type"], option["default"])
    console.print(table)
    if item["rules"]:
        console.print(f"rules: {', '.join(item['rules'])}", markup=False)
