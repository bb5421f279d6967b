"""Print the operator tree of a model in eopt's text form.

eopt inspect model.onnx
eopt inspect model.onnx --summary"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import Any

from eopt.tools.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    common.add_model(parser)
    parser.add_argument("--summary", action="store_true", help="counts instead of the tree")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read and print."""
    from eopt.ir import text
    from eopt.tools import frontdoor

    model = frontdoor.load(arguments.model, trust=arguments.trust)
    if arguments.json:
        common.print_json(summary(model))
    elif arguments.summary:
        _print_summary(summary(model))
    else:
        sys.stdout.write(text.dumps(model))
    return 0


def summary(model: Any) -> dict[str, Any]:
    """Counts, interface and operator sets of a model."""
    operators = Counter(f"{op.domain}.{op.op}" if op.domain else op.op for op in model.leaves())
    return {
        "nodes": len(model.leaves()),
        "regions": sum(1 for _ in model.regions()) - 1,
        "weights": len(model.weights),
        "weight_bytes": sum(model.weights.nbytes(name) for name in model.weights),
        "opsets": dict(model.opsets),
        "inputs": _ports(model.feeds),
        "outputs": _ports(model.outputs),
        "operators": dict(operators.most_common()),
    }


def _ports(values: Any) -> list[dict[str, Any]]:
    return [{"name": value.id, "dtype": value.dtype, "shape": value.shape} for value in values]


def _print_summary(counts: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(
        "operator", "count", title=f"{counts['nodes']} nodes, {counts['weight_bytes'] / 1e6:.1f} MB of weights"
    )
    for name, count in counts["operators"].items():
        table.add_row(name, str(count))
    console = common.console()
    for kind in ("inputs", "outputs"):
        for port in counts[kind]:
            console.print(f"{kind[:-1]} {port['name']}: {port['dtype']}{list(port['shape'] or ())}", markup=False)
    console.print(table)
