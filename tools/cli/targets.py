"""List, show, find and check hardware targets.

eopt targets list
eopt targets show nvidia-h100-sxm
eopt targets find 4090
eopt targets check my-board.yaml"""

from __future__ import annotations

import argparse
from typing import Any

from eopt.tools.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("action", choices=["list", "show", "find", "check"])
    parser.add_argument("name", nargs="?", metavar="NAME", help="a target name, part of one, or a sheet.yaml")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print targets."""
    from eopt.backends import target
    from eopt.ir.errors import UsageError

    if arguments.action != "list" and not arguments.name:
        raise UsageError(f"targets {arguments.action}: which one? eopt targets list names them")
    if arguments.action in ("show", "check"):
        _show(target.load(arguments.name).to_dict(), arguments)
        return 0
    wanted = (arguments.name or "").lower()
    found = [target.load(name).to_dict() for name in target.names() if wanted in name]
    if not found:
        raise UsageError(f"no target has {wanted!r} in its name; eopt targets list names them")
    if arguments.json:
        common.print_json(found)
    else:
        _print_list(found)
    return 0


def _show(sheet: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.json:
        common.print_json(sheet)
        return
    import yaml

    common.console().print(yaml.safe_dump(sheet, sort_keys=False, allow_unicode=True), markup=False)


def _print_list(sheets: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table("target", "arch", "year", "TDP W", "GB/s", "fp32 TFLOP/s", "fp16 matrix", "int8 matrix")
    for sheet in sheets:
        matrix, vector = sheet["matrix"], sheet["vector"]
        figures = [sheet["bandwidth_bytes_per_s"], vector.get("float32"), matrix.get("float16"), matrix.get("int8")]
        scaled = [_scaled(figures[0], 1e9), *(_scaled(figure, 1e12) for figure in figures[1:])]
        table.add_row(sheet["name"], sheet["arch"], _text(sheet["release_year"]), _text(sheet["tdp_w"]), *scaled)
    common.console().print(table)


def _scaled(figure: float | None, unit: float) -> str:
    return "" if figure is None else f"{figure / unit:.4g}"


def _text(figure: object) -> str:
    return "" if figure is None else str(figure)
