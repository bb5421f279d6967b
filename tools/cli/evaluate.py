"""Score the cost model on devices it has not seen, beside the baselines on the same rows.

  eopt evaluate                                 every generation left out in turn
  eopt evaluate --fold hopper --fold ampere     some of them
  eopt evaluate --as-of 2020                    train on devices released by then, score on every later one
  eopt evaluate --device nvidia-t4              one device left out, its siblings stay
  eopt evaluate --fold hopper --json --dump rows.parquet

Needs a table (`eopt data build`) and the extra `train`. Errors are absolute, in percent, per device and
kind of operator; `power` is given the measured latency, `energy` is given nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from eopt.tools.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    from eopt.tools.cli.data import table_folder

    parser.add_argument(
        "--table", type=Path, default=table_folder(), metavar="DIR", help="as `eopt data build` writes it"
    )
    parser.add_argument("--fold", action="append", default=[], metavar="GENERATION", help="leave this one out")
    parser.add_argument("--device", action="append", default=[], metavar="NAME", help="leave this device out")
    parser.add_argument("--as-of", type=int, metavar="YEAR", help="train on what was released by then")
    parser.add_argument("--members", type=int, default=1, metavar="N", help="networks in the ensemble (1)")
    parser.add_argument("--steps", type=int, default=400, metavar="N", help="of the training (400)")
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write every score to a Parquet file")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, score and print."""
    from eopt.costmodel.datasets.draw import draw
    from eopt.costmodel.evaluate import evaluate
    from eopt.costmodel.release import Recipe
    from eopt.costmodel.train import Settings

    recipe = Recipe(Settings(members=arguments.members, steps=arguments.steps))
    frame = draw(arguments.table, recipe.cap, recipe.settings.seed)
    with common.progress(arguments.json) as progress:
        scores = evaluate(frame, recipe, progress, arguments.fold, arguments.device, arguments.as_of)
    rows = [score.to_dict() for score in scores]
    if arguments.dump:
        import pandas as pd

        pd.DataFrame(rows).to_parquet(arguments.dump)
    if arguments.json:
        common.print_json(rows)
    else:
        _print(rows)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    """One line for each device, kind and quantity; the baselines stand beside it."""
    from rich.table import Table

    console = common.console()
    for quantity in ("latency", "power", "energy"):
        mine = [row for row in rows if row["quantity"] == quantity and row["method"] == "eopt"]
        others = list(
            dict.fromkeys(row["method"] for row in rows if row["quantity"] == quantity) - {"eopt": None}.keys()
        )
        if not mine:
            continue
        shown = Table(title=f"{quantity}: mean / median error in %", title_justify="left", box=None)
        for name in ("device", "family", "type", "source", "rows", "eopt", "bias", "in 90 %", "hi/lo", *sorted(others)):
            shown.add_column(name, justify="left" if name in ("device", "family", "type", "source") else "right")
        for row in mine:
            shown.add_row(*_cells(row, rows, sorted(others)))
        console.print(shown)


def _cells(row: dict[str, Any], rows: list[dict[str, Any]], others: list[str]) -> list[str]:
    keys = ("fold", "device", "family", "dtype", "scale", "source", "quantity")
    same = {other["method"]: other for other in rows if all(other[key] == row[key] for key in keys)}
    interval = ["–", "–"] if row["coverage"] is None else [f"{100 * row['coverage']:.0f} %", f"{row['width']:.1f}"]
    dtype = f"{row['dtype']} {row['scale']}".strip()
    return [
        row["device"], row["family"], dtype, row["source"], str(row["rows"]), _both(row), f"{row['bias']:+.2f}",
        *interval, *(_both(same[name]) if name in same else "–" for name in others),
    ]  # fmt: skip


def _both(row: dict[str, Any]) -> str:
    return f"{row['mean_ape']:.0f} / {row['median_ape']:.0f}"
