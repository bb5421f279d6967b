"""`eopt data train`: make the cost model anew from a table of measurements."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from eopt.tools.cli import common

SUMMARY = "train the cost model on a table, and write it as files that EOPT_MODEL can name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    from eopt.tools.cli.data import table_folder

    parser.add_argument(
        "--table", type=Path, default=table_folder(), metavar="DIR", help="as `eopt data build` writes it"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the model")
    parser.add_argument("--exclude-device", action="append", default=[], metavar="NAME", help="never look at its rows")
    parser.add_argument(
        "--exclude-arch", action="append", default=[], metavar="NAME", help="nor at a whole generation's"
    )
    parser.add_argument("--members", type=int, default=3, metavar="N", help="networks in the ensemble (3)")
    parser.add_argument("--steps", type=int, default=600, metavar="N", help="of each (600)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> int:
    """Train and write."""
    from eopt.costmodel import artifact
    from eopt.costmodel.datasets.draw import draw
    from eopt.costmodel.release import Recipe, release
    from eopt.costmodel.train import Settings
    from eopt.costmodel.wholes import read

    settings = Settings(members=arguments.members, steps=arguments.steps, seed=arguments.seed)
    recipe = Recipe(
        settings, exclude_devices=tuple(arguments.exclude_device), exclude_generations=tuple(arguments.exclude_arch)
    )
    frame = draw(arguments.table, recipe.cap, arguments.seed)
    command = "eopt " + shlex.join(sys.argv[1:]) if sys.argv[0].endswith("eopt") else "eopt data train"
    with common.progress(arguments.json) as progress:
        made = release(frame, recipe, command, progress, read(arguments.table))
    artifact.save(made, arguments.out)
    if arguments.json:
        common.print_json(dict(made.about))
        return 0
    scores = made.about["scores"]
    for quantity, families in scores.items():
        for family, score in families.items():
            figures = (
                f"mean {score['mean']:.0f} %, median {score['median']:.0f} % over {score['devices']} devices left out"
            )
            common.console().print(f"{quantity:<8} {family:<10} {figures}", markup=False)
    common.console().print(f"wrote {arguments.out}", markup=False)
    return 0
