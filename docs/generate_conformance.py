"""Write docs/conformance.md: every model of the suite through the ONNX doors and onnxruntime.

python docs/generate_conformance.py
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
import onnxruntime

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "docs/conformance.md"
sys.path += [str(ROOT / "tests" / name) for name in ("conformance", "models")]

import features  # noqa: E402
import suite  # noqa: E402
from check import Outcome, examine  # noqa: E402

HEAD = """# Conformance

Written by `python docs/generate_conformance.py` with onnx {onnx} and onnxruntime {onnxruntime}; a slow test compares it
with a fresh run (`tests/conformance`).

Each model is read and written back in memory and through files, and compared with the original as a protobuf message.
Then the original, the model that was written back, and one whose operators were all made anew from the tree run in
onnxruntime on the data of the case (made up where it has none); results have to agree in type, shape and every bit.
Operators are grouped by the folder of onnx's sources that defines them; functions expanded into their bodies count
with their operator.

| models | count | message equal | file equal | onnxruntime runs | written back: bit-equal | made anew: bit-equal |
|---|---|---|---|---|---|---|
"""
TAIL = """
What onnxruntime refuses it refuses in all three forms; {random} models are random and differ between two runs of the
original. Refused:

| models | why |
|---|---|
"""
NOTES = """
## What changes on the way
- External data of initialisers stays a reference in memory and is taken into the file that is written; that of
  subgraphs, functions and attributes is taken in when the model is read.
- A graph whose nodes are not in topological order, which ONNX forbids, is written in order.
- An operator that a rewrite changed keeps its documentation, overload and device placement while it is the same kind.

## What is refused
Tensors whose data contradicts their shape or type, strings that are not UTF-8, functions that call themselves, values
with two producers, and what [fuzz.md](fuzz.md) lists.
"""


def main() -> None:
    TABLE.write_text(render(outcomes((*suite.operators(), *suite.files(), *suite.exported(), *features.cases()))))


def outcomes(cases: Iterable[suite.Case]) -> list[Outcome]:
    """Examine every case."""
    with tempfile.TemporaryDirectory() as folder:
        return [examine(case, Path(folder)) for case in cases]


def render(found: Sequence[Outcome]) -> str:
    """The page."""
    page = HEAD.format(onnx=onnx.__version__, onnxruntime=onnxruntime.__version__)
    groups = dict.fromkeys(outcome.category for outcome in found)
    rows = [(name, [outcome for outcome in found if outcome.category == name]) for name in groups]
    page += "".join(_row(name, members) for name, members in [*rows, ("**all**", found)])
    page += TAIL.format(random=sum(outcome.random for outcome in found))
    refused = Counter(outcome.refused for outcome in found if outcome.refused)
    page += "".join(f"| {count} | {why} |\n" for why, count in sorted(refused.items(), key=lambda item: -item[1]))
    return page + NOTES


def _row(name: str, members: Sequence[Outcome]) -> str:
    ran = [outcome for outcome in members if not outcome.refused]
    fixed = [outcome for outcome in ran if not outcome.random]
    counts = [len(members), sum(o.message for o in members), sum(o.file for o in members), len(ran)]
    counts += [sum(o.same for o in fixed), sum(o.rebuilt for o in fixed)]
    return f"| {name} | {' | '.join(map(str, counts))} |\n"


if __name__ == "__main__":
    main()
