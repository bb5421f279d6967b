"""Write docs/operators.md: every operator with a specification, and those of onnxruntime without one.

python docs/generate_operators.py
"""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from eopt.ir.ops import OpSpec, Trait, known, no_axes, spec

TABLE = Path(__file__).with_name("operators.md")
MICROSOFT = "com.microsoft"
HEAD = """# Operators

Written by `python docs/generate_operators.py` with onnx {onnx} and onnxruntime {ort}; a test compares it with a fresh
run.

An operator is declared once, in `ir/opset/<family>.py`: floating-point operations, compulsory bytes, what is used again
and at which distance, and which axes belong together. An operator without a specification is kept, runs, and costs
`Unknown`; so does one whose work depends on data nobody can know before it runs, such as a loop without a constant trip
count.

- **Bytes.** `read_bytes` and `write_bytes` are compulsory: each distinct byte once. `reread_bytes` are moved again
  (second passes of a normalisation, panels of a product, the state's weights at every step) and are served by the
  nearest memory that holds `held_bytes`; `level_bytes` makes a figure for every level of that.
- **Axes.** Yes: axes are mapped, contracted or mixed one by one, and tests compute that the map is true. No: all mixed.
- **Data decides.** Where a result's extent, or how often something runs, depends on the data, its bound counts.
- **Containers.** Sequences, optionals and maps hold references; operators on them move no data. Their values have no
  tensor type, so a view of them is unknown, while the ones marked `view` are known to cost nothing.
- **Strings** are references of 64 bits; how long they are no type says, so their operators are lower bounds.

{counts}
"""
TITLES = {
    "": "ONNX",
    "ai.onnx.ml": "ai.onnx.ml",
    "ai.onnx.preview": "ai.onnx.preview",
    MICROSOFT: "com.microsoft",
    "com.microsoft.nchwc": "com.microsoft.nchwc",
}
ROWS = "\n## {title}\n\n| operator | family, traits | operations | axes |\n|---|---|---|---|\n"
WITHOUT = "\n## Without a specification\n\nOf `com.microsoft` in onnxruntime {ort}: {names}.\n"


def main() -> None:
    TABLE.write_text(render())


def render() -> str:
    """The page."""
    named = {domain: [op for other, op in known() if other == domain] for domain in TITLES}
    counts = "Specified: " + ", ".join(f"{len(ops)} of {TITLES[domain]}" for domain, ops in named.items()) + "."
    page = HEAD.format(onnx=onnx.__version__, ort=onnxruntime.__version__, counts=counts)
    for domain, title in TITLES.items():
        page += ROWS.format(title=title) + "".join(_row(op, domain) for op in named[domain])
    return page + WITHOUT.format(ort=onnxruntime.__version__, names=", ".join(unspecified()))


def unspecified() -> list[str]:
    """Operators of com.microsoft that have no specification."""
    return sorted(op for op in schemas()[MICROSOFT] if spec(op, MICROSOFT) is None)


def schemas() -> dict[str, set[str]]:
    """Operators that onnxruntime registers, by domain."""
    registered = {(schema.domain, schema.name) for schema in get_all_operator_schema()}
    return {domain: {op for other, op in registered if other == domain} for domain in Counter(d for d, _ in registered)}


def _row(op: str, domain: str) -> str:
    described = spec(op, domain)
    assert described is not None
    family = described.work_of.__module__.rpartition(".")[2]
    traits = [trait.value for trait in Trait if trait in described.traits]
    axes = "no" if described.axes_of is no_axes else "yes"
    return f"| {op} | {', '.join([family, *traits])} | {_note(op, described)} | {axes} |\n"


def _note(op: str, described: OpSpec) -> str:
    """The first sentence of what the formula says of itself, or the figure it looks up."""
    text = " ".join((described.work_of.__doc__ or "").split())
    figures = getattr(import_module(described.work_of.__module__), "PER_ELEMENT", {})
    if text.startswith("By operator") and op in figures:
        return f"{figures[op]} per element of the result"
    return text.partition(". ")[0].rstrip(".").replace("|", "\\|")


if __name__ == "__main__":
    main()
