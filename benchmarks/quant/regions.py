"""Does the cost gate know which regions int8 makes faster? Its decisions beside measurements of the regions alone.

python benchmarks/quant/regions.py MODEL ... [--passes quant] [--alone] [--out FILE.json]

The pass asks the gate once for all clusters of equal structure. Every question is noted and refused; then the operators
that differ are cut out of the models before and after, and run in turns on values from held-out samples, on two threads
of onnxruntime. `--alone` asks about every kind of product by itself, cut out before it is quantised: a convolutional
network is a single question otherwise. Target `auto`, executor `onnxruntime`.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import zoo
from questions import PRODUCTS, Question, products, questions, shapes, subject
from timing import interleaved, ratio
from variants import session

FASTER = 0.95  # of the time in float


@dataclass(frozen=True)
class Row:
    """A region.

    Attributes:
        ops: how many of each type it has in float.
        shapes: of the operands of its first product.
        saved_j: predicted; None where that is undecided.
        before_s, after_s: measured, the median over the rounds.
        ratio: of the times, the median over the rounds of the ratio within a round.
    """

    model: str
    batch: int
    ops: Mapping[str, int]
    shapes: Sequence[Any]
    accepted: bool
    reason: str
    saved_j: float | None
    before_s: float
    after_s: float
    ratio: float


def rows(name: str, options: argparse.Namespace) -> Iterator[Row]:
    """A row for every question about a model."""
    case = zoo.case(name)
    batch = options.batch or case.batch
    whole = subject(case, batch)
    for about in products(whole) if options.alone else [whole]:
        for question in questions(about, options.passes, "auto", "onnxruntime"):
            yield _row(name, batch, question, options.rounds, options.seconds)


def _row(name: str, batch: int, question: Question, rounds: int, seconds: float) -> Row:
    runs = {}
    for side, encoded in zip(("before", "after"), question.sides(), strict=True):
        running = session(encoded)
        feed = question.subject.values(question.before, [value.name for value in running.get_inputs()])
        runs[side] = partial(running.run, None, feed)
    times = interleaved(runs, rounds, seconds)
    before_s, after_s = (sorted(times[side])[rounds // 2] for side in ("before", "after"))
    decision = question.decision
    return Row(
        name,
        batch,
        dict(Counter(op.op for op in question.ops)),
        next(shapes(question.before, op) for op in question.ops if op.op in PRODUCTS),
        not decision.reason,
        decision.reason,
        decision.saved_j,
        before_s,
        after_s,
        ratio(times["after"], times["before"]),
    )


def confusion(found: Sequence[Row]) -> Iterator[str]:
    """How often the gate is right about what is clearly faster and what is slower."""
    faster = [row.accepted for row in found if row.ratio <= FASTER]
    slower = [not row.accepted for row in found if row.ratio > 1]
    yield f"{len(found)} regions, {len(found) - len(faster) - len(slower)} of them neither"
    yield f"at least {1 - FASTER:.0%} faster: {sum(faster)} of {len(faster)} accepted"
    yield f"slower: {sum(slower)} of {len(slower)} refused"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=zoo.HELP)
    parser.add_argument("--passes", default="quant", help="after simplify,fuse")
    parser.add_argument("--alone", action="store_true", help="every kind of product by itself")
    parser.add_argument("--batch", type=int, help="samples in a run; each model has its own default")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=0.05, help="of one timing")
    parser.add_argument("--out", type=Path, help="JSON")
    options = parser.parse_args()
    found: list[Row] = []
    for name in options.models:
        for row in rows(name, options):
            ops = "+".join(f"{count}x{op}" for op, count in row.ops.items())
            print(
                f"{name:<12}{row.ratio:>7.3f} {'accepted' if row.accepted else row.reason:<40} {ops} {row.shapes}",
                flush=True,
            )
            found.append(row)
    print("\n".join(confusion(found)))
    if options.out:
        options.out.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
