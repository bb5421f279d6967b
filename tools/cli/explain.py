"""Say where the joules of an operator come from, and which figures of the target's sheet they hang on.

  eopt explain --target nvidia-h100-sxm --op MatMul --inputs 8x512x1024,1024x4096 --dtype bfloat16
  eopt explain model.onnx /conv1/Conv --target nvidia-l4 --batch 8
  eopt explain model.onnx encoder/layer.0 --target nvidia-a100-80gb-sxm --json

NODE is a module path, a node name, or the name of a value the node computes; operators that are fused are one kernel.
Joules are those of the physics prior by cause, and a correction: what the trained model predicts beyond them. Changes
are of latency and energy when one figure of the sheet is half as much again and all others stay."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import exp
from typing import TYPE_CHECKING

from eopt.costmodel.query import Basis, Kernel, Unknown
from eopt.ir.errors import UsageError
from eopt.tools import nodes
from eopt.tools.cli import common
from eopt.tools.cli.query import add_query, given_query, query_of
from eopt.tools.report.units import percent, si

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from eopt.costmodel.explain import Explanation
    from eopt.costmodel.tree import Priced
    from eopt.ir.model import Model

_STATED = {
    "bandwidth_bytes_per_s": "memory bandwidth",
    "peaks": "all peak rates",
    "cores": "cores",
    "llc_bytes": "last-level cache",
    "tdp_w": "TDP",
    "clock_hz": "clock",
}
_CAUSES = {
    "static": "static power",
    "flops": "arithmetic",
    "dram": "memory traffic",
    "llc": "cache traffic",
    "launch": "launch",
    "correction": "learned correction",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="as of eopt predict; or ask with --op")
    parser.add_argument("node", nargs="?", metavar="NODE", help="module path, node name or value name")
    parser.add_argument("--trust", action="store_true", help="load file types that can run code (.pt2)")
    add_query(parser)
    common.add_situation(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain every kernel that is meant and print."""
    if arguments.target is None:
        raise UsageError("an explanation needs a target; give --target NAME (eopt targets list)")
    if given_query(arguments) == (arguments.node is not None):
        raise UsageError("explain MODEL NODE, or --op, --inputs and --dtype")
    labels, explained = (_query if given_query(arguments) else _node)(arguments)
    documents = [{"kernel": label, **found.to_dict()} for label, found in zip(labels, explained, strict=True)]
    if arguments.json:
        common.print_json(documents)
        return 0
    console = common.console()
    for label, found in zip(labels, explained, strict=True):
        _print(console, label, found, arguments.target)
    return 0


def _query(arguments: argparse.Namespace) -> tuple[list[str], list[Explanation]]:
    """As `eopt query` asks, so that what is explained is what it answers."""
    from eopt.costmodel.explain import explain_query
    from eopt.costmodel.learned import current
    from eopt.costmodel.records import record
    from eopt.costmodel.service import engine_of
    from eopt.tools.situation import hardware

    if arguments.batch is not None or arguments.bind or arguments.model is not None:
        raise UsageError("MODEL, --batch and --bind go with a NODE, not with --op")
    target, default = hardware(arguments.target, arguments.executor, arguments.clock, arguments.power_cap)
    row = query_of(arguments)
    found = record(row)
    if isinstance(found, Unknown):
        raise UsageError(f"nothing to explain: {'; '.join(found.reasons)}")
    names = [arguments.executor or engine_of(row["dtype"])] * len(found)
    return [kernel.name for kernel in found], explain_query(
        found, names, target, default, current(), said=arguments.executor is not None
    )


def _node(arguments: argparse.Namespace) -> tuple[list[str], list[Explanation]]:
    """The kernels of a node or below a module; those that are alike are explained once."""
    from eopt.costmodel.explain import explain_model, kernels_of_model
    from eopt.costmodel.learned import current
    from eopt.tools import frontdoor
    from eopt.tools.situation import situation

    model = frontdoor.load(arguments.model, trust=arguments.trust)
    bound = common.bindings(arguments)
    clock_mhz, power_cap_w = arguments.clock, arguments.power_cap
    chosen = situation(model, arguments.target, arguments.executor, arguments.batch, bound, clock_mhz, power_cap_w)
    assert chosen is not None  # there is a target
    plan, kernels = kernels_of_model(model, chosen)
    firsts = {op.uid: first for first, group in plan.groups.items() for op in group.members}
    meant = nodes.by_name(model, arguments.node) or nodes.below(model, arguments.node)
    met = dict.fromkeys(firsts.get(op.uid, op.uid) for op in meant)
    labels: dict[Kernel, list[str]] = {}
    refused: list[str] = []
    for uid in met:
        found = kernels.get(uid)
        if isinstance(found, Unknown):
            refused += found.reasons
        elif found is not None:
            labels.setdefault(found, []).append(_label(model, plan, uid))
    if not labels:
        raise UsageError(f"nothing to explain at {arguments.node!r}: {'; '.join(refused) or 'it executes nothing'}")
    said = [label if not more else f"{label} and {len(more)} alike" for label, *more in labels.values()]
    return said, explain_model(list(labels), chosen.target, chosen.executor, current())


def _label(model: Model, plan: Priced, uid: int) -> str:
    from eopt.passes.rewrite import where

    name, group = where(model, model.index.op(uid)), plan.groups.get(uid)
    return f"{name} +{len(group.members) - 1} fused ({group.kind})" if group and len(group.members) > 1 else name


def _print(console: Console, label: str, found: Explanation, target: str) -> None:
    console.print(f"\n{label}, {found.kernel.family}, on {target}", style="bold", markup=False)
    if found.basis is Basis.UNKNOWN:
        console.print(f"unknown: {'; '.join(found.reasons)}", markup=False)
        return
    network, prior = found.engines
    told = f"prior with {prior}" if found.basis is Basis.ESTIMATED else f"network with {network}, prior with {prior}"
    console.print(f"{found.basis}, energy of the {found.scope}; {told}", markup=False)
    for name, unit in (("latency_s", "s"), ("energy_j", "J")):
        low, high = si(found.figures[f"{name}_lo"], unit), si(found.figures[f"{name}_hi"], unit)
        console.print(f"{si(found.figures[name], unit)}, in 90 % of cases {low} – {high}", markup=False)
    console.print(_joules(found))
    terms = found.prior
    parts = ", ".join(f"{name} {si(terms[f'{name}_s'], 's')}" for name in ("compute", "memory", "launch"))
    levels = f"{si(terms['dram_bytes'], 'B')} from memory, {si(terms['llc_bytes'], 'B')} from the cache"
    console.print(f"prior: {parts}; {levels}", markup=False)
    if found.basis is not Basis.ESTIMATED:
        factors = [f"{name} ×{exp(found.correction_log[name]):.2f}" for name in ("latency", "energy")]
        console.print(f"network over prior: {', '.join(factors)}", markup=False)
    _print_sheet(console, found)


def _print_sheet(console: Console, found: Explanation) -> None:
    from eopt.costmodel.explain import STEP

    if found.nearest:
        listed = ", ".join(f"{name} {distance:.2f}" for name, distance in found.nearest)
        console.print(f"nearest devices measured: {listed}", markup=False)
    if found.imputed:
        listed = ", ".join(f"{name} (within ×{factor:.3g})" for name, factor in sorted(found.imputed.items()))
        console.print(f"not in the sheet, estimated: {listed}", markup=False)
    table = _table(f"change with a figure of the sheet ×{STEP:g}", ("figure", "latency", "energy"))
    for name, changes in found.elasticities.items():
        table.add_row(_STATED[name], *(f"{100 * changes[quantity]:+.1f} %" for quantity in ("latency", "energy")))
    console.print(table)


def _joules(found: Explanation) -> Table:
    table = _table("where the joules go", ("cause", "energy", "share"))
    total = found.figures["energy_j"] or 1.0
    for name, joules in found.joules.items():
        table.add_row(_CAUSES[name], si(joules, "J"), percent(joules / total))
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table
