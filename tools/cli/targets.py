"""List, show, find, check and add hardware targets.

  eopt targets list
  eopt targets show nvidia-h100-sxm
  eopt targets show nvidia/geforce-gtx-960
  eopt targets show 'llvm -mcpu=znver4 -num-cores=8'
  eopt targets find 4090
  eopt targets check my-board.yaml other.yaml
  eopt targets add my-board.yaml

`check` says which figures a sheet leaves out and what would be taken for them: the factor is the 90 % uncertainty
around the estimate, learned from the shipped sheets. `add` copies a checked sheet to $EOPT_TARGETS, else
~/.config/eopt/targets, where it is found by its name. `show` and `check` also take any TVM target: JSON, a tag, or the
older string form. `show` prints the TVM target of each as `tvm_target`, null where a sheet of yours names none."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from eopt.tools.cli import common

_UNITS = {"_hz": "Hz", "_w": "W", "_nm": "nm", "_bytes": "bytes", "_bytes_per_s": "bytes/s", "_bytes_per_core": "bytes"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("action", choices=["list", "show", "find", "check", "add"])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a target name, part of one, a sheet.yaml, or a TVM target"
    )
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print targets."""
    from eopt.ir.errors import UsageError

    action, names = arguments.action, arguments.names
    if action != "list" and not names:
        raise UsageError(f"targets {action}: which one? eopt targets list names them")
    if action == "check":
        return _check(names, arguments.json)
    if len(names) > 1:
        raise UsageError(f"targets {action}: one at a time")
    if action == "show":
        return _show(names[0], arguments.json)
    if action == "add":
        return _add(names[0], arguments.json)
    return _list((names or [""])[0].lower(), arguments.json)


def _show(name: str, as_json: bool) -> int:
    from eopt.backends import target
    from eopt.backends.tvm_target import tvm_target

    sheet = target.load(name)
    tvm = None if sheet.tvm is None else tvm_target(sheet)
    document = {**sheet.to_dict(), "tvm_target": tvm, "estimated": _estimated(sheet), "formats": _formats(sheet)}
    if as_json:
        common.print_json(document)
        return 0
    import yaml

    common.console().print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), markup=False)
    return 0


def _formats(sheet: Any) -> dict[str, list[dict[str, Any]]]:
    """Formats of low precision that have kernels there, by executor, and where that is known from."""
    from eopt.backends import executor as executors

    found: dict[str, list[dict[str, Any]]] = {}
    for runs_it in map(executors.load, executors.names()):
        rows = [row for row in runs_it.capabilities if runs_it.runs_on(sheet) and row.on(sheet)]
        if rows:
            found[runs_it.name] = [{"format": r.format, "ops": sorted(r.ops), "source": r.source} for r in rows]
    return found


def _add(path: str, as_json: bool) -> int:
    from eopt.backends import target

    found = _checked(path)
    copy = target.add(Path(path))
    if as_json:
        common.print_json({**found, "added": str(copy)})
        return 0
    _print_checked(found)
    common.console().print(f"added as {found['name']}: {copy}", markup=False)
    return 0


def _check(names: list[str], as_json: bool) -> int:
    """All are looked at, the exit code is that of the first bad one."""
    from eopt.ir.errors import EoptError

    results: list[dict[str, Any]] = []
    code = 0
    for name in names:
        try:
            results.append(_checked(name))
        except EoptError as error:
            results.append({"sheet": name, "ok": False, "error": str(error)})
            code = code or error.exit_code
    if as_json:
        common.print_json(results)
        return code
    for result in results:
        _print_checked(result)
    return code


def _checked(name: str) -> dict[str, Any]:
    from eopt.backends import target

    sheet = target.load(name)
    return {"sheet": name, "ok": True, "name": sheet.name, "estimated": _estimated(sheet)}


def _estimated(sheet: Any) -> dict[str, dict[str, Any]]:
    """What a sheet leaves open: by field the estimate in SI units and its 90 % factor."""
    from eopt.backends.impute import completed

    found = completed(sheet)
    estimated = {}
    for field, factor in found.imputed.items():
        group, dot, dtype = field.partition(".")
        value = getattr(found, group)[dtype] if dot else getattr(found, field)
        estimated[field] = {"value": value, "factor": factor}
    return estimated


def _print_checked(result: dict[str, Any]) -> None:
    if not result["ok"]:
        common.console(stderr=True).print(f"eopt: {result['error']}", markup=False)
        return
    from rich.table import Table

    console = common.console()
    console.print(f"{result['sheet']}: {result['name']} can be used", markup=False)
    table = Table("not in the sheet", "estimate", "", "within a factor")
    for field, found in result["estimated"].items():
        value = found["value"]
        shown = value if isinstance(value, str) else f"{value:.0f}" if field == "release_year" else f"{value:.4g}"
        table.add_row(field, shown, _unit(field), f"{found['factor']:.3g}")
    if result["estimated"]:
        console.print(table)


def _unit(field: str) -> str:
    if "." in field:
        return "op/s"
    endings = [ending for ending in _UNITS if field.endswith(ending)]
    return _UNITS[max(endings, key=len)] if endings else ""


def _list(wanted: str, as_json: bool) -> int:
    from eopt.backends import target
    from eopt.ir.errors import UsageError

    found = [target.load(name).to_dict() for name in target.names() if wanted in name]
    if not found:
        raise UsageError(f"no target has {wanted!r} in its name; eopt targets list names them")
    if as_json:
        common.print_json(found)
    else:
        _print_list(found)
    return 0


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
