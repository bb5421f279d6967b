"""Measure the operators that tell most about a device, and correct predictions of it by them.

  eopt calibrate --target auto
  eopt calibrate --target auto --executor torch --ops 20
  eopt calibrate --target auto --executor tvm --tune 32
  eopt calibrate --target my-board.yaml --executor tvm --rpc 127.0.0.1:9190 --key my-board

Which operators is decided before anything is measured: those whose figures narrow down most what is not known of the
device. Forty more at random are measured; the errors that are printed are on those, before they are learned from, too.
The calibration is kept in $EOPT_CALIBRATIONS, else ~/.config/eopt/calibrations, and every verb uses it for this target
and executor. What was measured stays in the cache, so a run that was stopped goes on where it was.

TVM RPC runs any code that a peer sends, unencrypted: trackers are loopback or the end of an SSH tunnel, unless you say
--trust-network. Operators that fail are named, and the exit code is 5."""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from eopt.ir.errors import UsageError
from eopt.tools.cli import common

if TYPE_CHECKING:
    from eopt.tools.calibrate import Outcome

PARTIAL = 5
_SHOWN = 5  # reasons of operators that failed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("--target", metavar="NAME", help="the device: auto, a name, a sheet.yaml or a TVM target")
    parser.add_argument("--executor", metavar="NAME", help="who runs operators there; default by target")
    parser.add_argument("--ops", type=common.positive, default=60, metavar="N", help="operators to learn from (60)")
    parser.add_argument("--tune", type=common.positive, metavar="N", help="with tvm: search schedules with N trials")
    common.add_reach(parser)
    parser.add_argument("--cache", metavar="DIR", help="for measurements; default $EOPT_CACHE, else ~/.cache/eopt")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the pool and of what is held out (0)")
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, keep and print."""
    from eopt.tools.calibrate import calibrate
    from eopt.tools.measuring import reach

    if arguments.target is None:
        raise UsageError("a calibration needs a target; give --target auto for this machine")
    away = reach(arguments.rpc, arguments.key, arguments.trust_network)
    with common.progress(arguments.json) as progress:
        outcome = calibrate(
            arguments.target,
            arguments.executor,
            ops=arguments.ops,
            tune=arguments.tune,
            away=away,
            cache=arguments.cache,
            seed=arguments.seed,
            progress=progress,
        )
    if arguments.json:
        common.print_json(_document(outcome))
    else:
        _print(outcome)
    return PARTIAL if outcome.failed else 0


def _document(outcome: Outcome) -> dict[str, Any]:
    made = outcome.calibration
    names = ("kind", "measured_s", "before_s", "after_s")
    return {
        "target": made.target,
        "executor": made.executor,
        "schedule": made.schedule,
        "version": made.version,
        "operators": made.unseen["learned"],
        "kept": len(made.rows),
        "noisy": _noisy(outcome),
        "unseen": made.unseen,
        "held_out": [dict(zip(names, one, strict=True)) for one in outcome.held_out],
        "failed": list(outcome.failed),
        "path": str(outcome.path),
    }


def _noisy(outcome: Outcome) -> int:
    from eopt.backends.harness.base import NOISY_CV

    return sum(row.cv > NOISY_CV for row in outcome.calibration.rows)


def _print(outcome: Outcome) -> None:
    from rich import box
    from rich.table import Table

    from eopt.tools.calibrate import median_error

    made, console = outcome.calibration, common.console()
    schedule = f", {made.schedule}" if made.schedule else ""
    title = f"{made.target}, {made.executor} {made.version}{schedule}: error on operators it did not learn from"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("kind", "operators", "before", "after"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    kinds: dict[str, list[Any]] = defaultdict(list)
    for one in outcome.held_out:
        kinds[one[0]].append(one)
    for kind, rows in (*sorted(kinds.items()), ("all, median", list(outcome.held_out))):
        table.add_row(kind, str(len(rows)), *(f"{median_error(rows, which):.0%}" for which in (2, 3)))
    console.print(table)
    console.print(
        f"learned from {made.unseen['learned']:.0f} operators; kept are all {len(made.rows)}, {_noisy(outcome)} noisy: "
        f"{outcome.path}",
        markup=False,
    )
    for reason in outcome.failed[:_SHOWN]:
        console.print(f"! {reason}", markup=False)
    if len(outcome.failed) > _SHOWN:
        console.print(f"! and {len(outcome.failed) - _SHOWN} more; --json lists all", markup=False)
