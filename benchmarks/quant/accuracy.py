"""What quantisation costs in accuracy: ours beside the peers of the same format, on held-out samples.

python benchmarks/quant/accuracy.py MODEL ... [--ours FORMAT:PASSES ...] [--peers NAME ...] [--out FILE.json]

SQNR is that of onnxruntime running the quantised file against onnxruntime running the float file, both on two threads;
top-1 is the share of right answers, cosine the mean over samples against the float file's.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import zoo
from variants import FLOAT, Variant, add_options, outputs, session, variants
from zoo import Case

from eopt.backends.base import Array
from eopt.passes.contract import sqnr_db
from eopt.passes.metrics import cosine, top1

Batches = Sequence[dict[str, Array]]


@dataclass(frozen=True)
class Row:
    """One variant of one model.

    Attributes:
        sqnr_db: None where the output is that of the original, and where there is no file that runs.
        figure: top-1 where there are labels, else cosine.
        error: why there is no figure.
    """

    model: str
    format: str
    variant: str
    ours: bool
    sqnr_db: float | None = None
    figure: float | None = None
    file_mb: float | None = None
    error: str = ""


def rows(case: Case, found: Sequence[Variant]) -> Iterator[Row]:
    """The original is first of what was found."""
    expected = outputs(session(found[0].path), case)
    for variant in found:
        yield row(case, variant, expected)


def row(case: Case, variant: Variant, expected: Batches) -> Row:
    """Run a variant on the held-out samples."""
    empty = Row(case.name, variant.format, variant.name, variant.ours, error=variant.error)
    if variant.error:
        return empty
    try:
        actual = outputs(session(variant.path), case)
    except Exception as error:  # onnxruntime raises types of its own, all of them plain Exceptions
        return replace(empty, error=str(error).strip().splitlines()[0])
    name = next(iter(expected[0]))
    a, b = (np.concatenate([batch[name] for batch in side]) for side in (actual, expected))
    figure = cosine(a, b, None) if case.heldout.labels is None else top1(a, b, case.heldout.labels)
    db = sqnr_db(expected, actual, name)
    if db == -math.inf:
        return replace(empty, error="NaN or infinity in its output")
    megabytes = variant.path.stat().st_size / 1e6
    return replace(empty, sqnr_db=None if db == math.inf else db, figure=figure, file_mb=megabytes)


def table(found: Sequence[Row]) -> Iterator[str]:
    """Markdown, by format, the most exact first; ours are bold."""
    yield "| model | format | variant | SQNR dB | top-1 or cosine | MB |\n|---|---|---|---|---|---|"
    for item in sorted(found, key=_place):
        start = f"| {item.model} | {item.format} | {f'**{item.variant}**' if item.ours else item.variant} "
        if item.error:
            yield f"{start}| {item.error} | | |"
        else:
            db = "exact" if item.sqnr_db is None else f"{item.sqnr_db:.1f}"
            yield f"{start}| {db} | {item.figure:.4f} | {item.file_mb:.2f} |"


def _place(row: Row) -> tuple[str, bool, str, bool, float]:
    db = math.inf if row.sqnr_db is None else row.sqnr_db
    return row.model, row.format != FLOAT, row.format, bool(row.error), -db


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    found: list[Row] = []
    for name in options.models:
        case = zoo.case(name)
        with variants(case, options) as files:
            of_case = list(rows(case, files))
        print("\n".join(table(of_case)), flush=True)
        found += of_case
        if options.out:
            options.out.write_text(json.dumps([asdict(item) for item in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
