"""Speed and error of all variants of a model in one run: is any of the peers beyond all of ours?

python benchmarks/quant/frontier.py MODEL ... [--ours FORMAT:PASSES ...] [--peers NAME ...] [--batch N] [--out JSON]

Time is that of onnxruntime on two threads as a ratio to the original within a round, the median over rounds. A peer is
matched where one variant of ours, of any format, takes at most `NOISE` times its time, within a round again, and has at
least its SQNR less `NOISE_DB`. `--out` writes a scatter plot beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import zoo
from accuracy import Row, row
from plot import scatter
from timing import interleaved, ratio
from variants import add_options, outputs, session, variants
from zoo import Case

NOISE = 1.02
NOISE_DB = 0.1  # 2 % of the power of the error, as of the time


@dataclass(frozen=True)
class Point:
    """A variant that runs.

    Attributes:
        row: its accuracy.
        series: seconds, one figure per round.
        time: as a ratio to the original.
    """

    row: Row
    series: tuple[float, ...]
    time: float

    @property
    def sqnr_db(self) -> float:
        """Of the original, and of what equals it, infinite."""
        return math.inf if self.row.sqnr_db is None else self.row.sqnr_db

    def exact_as(self, other: Point) -> bool:
        """At least as exact."""
        return self.sqnr_db >= other.sqnr_db - NOISE_DB

    def fast_as(self, other: Point) -> bool:
        """At least as fast."""
        return ratio(self.series, other.series) <= NOISE


def sessions(case: Case, options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """The accuracy of all variants, the original first, and those that run."""
    with variants(case, options) as files:
        expected = outputs(session(files[0].path), case)
        rows = [row(case, variant, expected) for variant in files]
        return rows, {
            item.variant: session(file.path) for item, file in zip(rows, files, strict=True) if not item.error
        }


def points(
    case: Case, rows: Sequence[Row], running: Mapping[str, Any], batch: int, options: argparse.Namespace
) -> list[Point]:
    """Time all that runs on a batch; the original first."""
    feed = {name: array[:batch] for name, array in case.heldout.arrays.items()}
    times = interleaved(
        {name: partial(each.run, None, feed) for name, each in running.items()}, options.rounds, options.seconds
    )
    series = [(item, tuple(times[item.variant])) for item in rows if item.variant in times]
    return [Point(item, taken, ratio(taken, times["original"])) for item, taken in series]


def verdicts(found: Sequence[Point]) -> Iterator[str]:
    """For every peer who of ours matches it, or what of ours comes nearest at its exactness."""
    ours = [point for point in found if point.row.ours]
    for peer in (point for point in found[1:] if not point.row.ours):
        exact = [point for point in ours if point.exact_as(peer)]
        matching = [point for point in exact if point.fast_as(peer)]
        if matching:
            best = min(matching, key=lambda point: point.time)
            yield f"  {peer.row.variant}: matched by {best.row.variant}"
        elif exact:
            near = min(exact, key=lambda point: point.time)
            slower = ratio(near.series, peer.series)
            yield f"  {peer.row.variant}: BEYOND OURS, {near.row.variant} takes {slower:.3f} times its time"
        else:
            yield f"  {peer.row.variant}: BEYOND OURS, none is as exact"


def report(case: Case, found: Sequence[Point], failed: Sequence[Row], batch: int) -> None:
    print(f"\n{case.name}, batch {batch}\n{'':<72}{'SQNR dB':>9}{'figure':>9}{'ms':>10}{'x original':>12}{'MB':>8}")
    for point in sorted(found, key=lambda point: point.time):
        middle = sorted(point.series)[len(point.series) // 2] * 1e3
        print(
            f"{point.row.variant:<72}{point.sqnr_db:>9.1f}{point.row.figure:>9.4f}{middle:>10.3f}"
            f"{point.time:>12.3f}{point.row.file_mb:>8.2f}"
        )
    for item in failed:
        print(f"{item.variant:<72}{item.error}")
    print("\n".join(verdicts(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--batch", type=int, nargs="+", help="samples in a run; each model has its own default")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one timing")
    options = parser.parse_args()
    written = []
    for name in options.models:
        case = zoo.case(name)
        rows, running = sessions(case, options)
        for batch in options.batch or [case.batch]:
            found = points(case, rows, running, batch, options)
            report(case, found, [item for item in rows if item.error], batch)
            times = {point.row.variant: point.time for point in found}
            written += [{**asdict(item), "batch": batch, "time": times.get(item.variant)} for item in rows]
            if options.out:
                options.out.write_text(json.dumps(written, indent=1) + "\n")
                dots = [(point.time, point.sqnr_db, point.row.variant, point.row.ours) for point in found]
                scatter(dots, options.out.with_name(f"{options.out.stem}-{case.name}-{batch}.svg"))


if __name__ == "__main__":
    main()
