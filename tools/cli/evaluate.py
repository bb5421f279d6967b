"""Score the cost model on devices it has not seen, beside the baselines on the same rows.

  eopt evaluate                                 every generation left out in turn
  eopt evaluate --by device                     every device left out in turn, its siblings stay and are named
  eopt evaluate --fold hopper --fold ampere     some generations
  eopt evaluate --device nvidia-t4              one device left out
  eopt evaluate --as-of 2020                    train on devices released by then, score on every later one
  eopt evaluate --model mine --fold hopper      another predictor on the same rows: installed, or an artefact's folder
  eopt evaluate --ablation                      what each part of the model is worth
  eopt evaluate --fold hopper --json --dump rows.parquet

Needs a table (`eopt data build`) and the extra `train`. Errors are absolute, in percent, per device and
kind of operator; `power` is given the measured latency, `energy` is given nothing. Folds that were scored before
by the same code on the same rows come from the cache, so an evaluation that was stopped goes on where it was."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eopt.tools.cli import common

if TYPE_CHECKING:
    from eopt.costmodel.release import Recipe
    from eopt.costmodel.scores import Score

Row = dict[str, Any]
_STEPS = 600


def cache_folder() -> Path:
    """Where scores are kept where nothing else is said."""
    return Path.home() / ".cache/eopt/scores"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    from eopt.tools.cli.data import table_folder

    parser.add_argument(
        "--table", type=Path, default=table_folder(), metavar="DIR", help="as `eopt data build` writes it"
    )
    parser.add_argument("--by", choices=("generation", "device"), default="generation", help="what is left out in turn")
    parser.add_argument("--fold", action="append", default=[], metavar="GENERATION", help="leave this one out")
    parser.add_argument("--device", action="append", default=[], metavar="NAME", help="leave this device out")
    parser.add_argument("--as-of", type=int, metavar="YEAR", help="train on what was released by then")
    methods = parser.add_mutually_exclusive_group()
    methods.add_argument("--model", metavar="NAME", help="score this predictor as well: a name, or a folder")
    methods.add_argument("--ablation", action="store_true", help="score variants of the model instead")
    parser.add_argument("--members", type=common.positive, default=1, metavar="N", help="networks in the ensemble (1)")
    parser.add_argument("--steps", type=common.positive, metavar="N", help="of the training (600; ablation: 250)")
    parser.add_argument(
        "--rows", type=common.positive, metavar="N", help="drawn of each kind of measurement (400; ablation: 150)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the training and of the rows drawn (0)")
    parser.add_argument(
        "--cache", type=Path, default=cache_folder(), metavar="DIR", help="for scores; default ~/.cache/eopt/scores"
    )
    parser.add_argument("--dump", type=Path, metavar="FILE", help="write every score to a Parquet file")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Train, score and print."""
    found = _scores(arguments)
    scores = [score.to_dict() for score in found]
    if arguments.dump:
        import pandas as pd

        pd.DataFrame(scores).to_parquet(arguments.dump)
    if arguments.ablation:
        from eopt.costmodel.ablation import summary

        variants = summary(found)
        common.print_json(variants) if arguments.json else _print_ablation(variants)
        return 0
    common.print_json(scores) if arguments.json else _print(scores)
    return 0


def _scores(arguments: argparse.Namespace) -> list[Score]:
    from eopt.costmodel import ablation, evaluate
    from eopt.costmodel.contender import Contender
    from eopt.costmodel.datasets.draw import draw
    from eopt.costmodel.score_cache import ScoreCache

    recipe = _recipe(arguments)
    split = evaluate.Split(tuple(arguments.fold), tuple(arguments.device), arguments.as_of, arguments.by)
    other = Contender.named(arguments.model) if arguments.model else None
    frame = draw(arguments.table, recipe.cap, recipe.settings.seed)
    errors = common.console(stderr=True)
    cache = ScoreCache(arguments.cache, lambda label: errors.print(f"{label}: from {arguments.cache}", markup=False))
    with common.progress(arguments.json) as progress:
        if arguments.ablation:
            wanted = ablation.SPLIT if split == evaluate.Split() else split
            return ablation.ablation(frame, recipe, wanted, progress, cache)
        return evaluate.evaluate(frame, recipe, split, progress, cache, other)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from eopt.costmodel.ablation import RECIPE
    from eopt.costmodel.release import Recipe
    from eopt.costmodel.train import Settings

    usual = RECIPE if arguments.ablation else Recipe(Settings(steps=_STEPS))
    steps = arguments.steps or usual.settings.steps
    settings = replace(usual.settings, members=arguments.members, steps=steps, seed=arguments.seed)
    return replace(usual, settings=settings, cap=arguments.rows or usual.cap)


def _print_ablation(variants: list[Row]) -> None:
    from rich.table import Table

    shown = Table(title="latency: mean / median error in %, devices weighted equally", title_justify="left", box=None)
    for name in ("variant", "devices", "all kinds", "gemm", "better than plain sheet features on"):
        shown.add_column(name, justify="left" if name == "variant" else "right")
    for row in variants:
        both = [f"{row[f'{kind}mean']:.0f} / {row[f'{kind}median']:.0f}" for kind in ("", "gemm_")]
        shown.add_row(row["variant"], str(row["devices"]), *both, str(row["beats_plain"]))
    common.console().print(shown)


def _print(rows: list[Row]) -> None:
    """One line for each device, kind and quantity; the baselines stand beside it."""
    from rich.table import Table

    console = common.console()
    texts = ("device", "family", "type", "source")
    for quantity in ("latency", "power", "energy"):
        own = [row for row in rows if row["quantity"] == quantity]
        mine = [row for row in own if row["method"] == "eopt"]
        others = sorted({row["method"] for row in own} - {"eopt"})
        if not mine:
            continue
        shown = Table(title=f"{quantity}: mean / median error in %", title_justify="left", box=None)
        for name in (*texts, "rows", "eopt", "bias", "in 90 %", "hi/lo", "interval score", *others):
            shown.add_column(name, justify="left" if name in texts else "right")
        for row in mine:
            shown.add_row(*_cells(row, own, others))
        console.print(shown)


def _cells(row: Row, rows: list[Row], others: list[str]) -> list[str]:
    keys = ("fold", "device", "family", "dtype", "scale", "source")
    same = {other["method"]: other for other in rows if all(other[key] == row[key] for key in keys)}
    interval = ["–"] * 3
    if row["coverage"] is not None:
        interval = [f"{100 * row['coverage']:.0f} %", f"{row['width']:.1f}", f"{row['interval_score']:.2f}"]
    device = f"{row['device']} (sibling of {row['sibling']})" if row["sibling"] else row["device"]
    dtype = f"{row['dtype']} {row['scale']}".strip()
    return [
        device, row["family"], dtype, row["source"], str(row["rows"]), _both(row), f"{row['bias']:+.2f}",
        *interval, *(_both(same[name]) if name in same else "–" for name in others),
    ]  # fmt: skip


def _both(row: Row) -> str:
    return f"{row['mean_ape']:.0f} / {row['median_ape']:.0f}"
