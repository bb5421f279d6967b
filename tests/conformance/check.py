"""One model through the doors of eopt: equal as a message, equal as a file, equal when it runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine import Refused, equal, run
from onnx import ModelProto
from suite import Case

from eopt.ir import onnx_io, onnx_out
from eopt.ir.model import Model


@dataclass(frozen=True)
class Outcome:
    """What became of one model; True in `ran` means that onnxruntime takes the original.

    Attributes:
        message: reading and writing in memory gives an equal message.
        file: the file that is written parses to an equal message.
        same: the round-tripped model runs bit-equal, and is refused where the original is.
        rebuilt: so does the model whose operators are all made anew from the tree.
        random: two runs of the original differ, so there is nothing to compare.
        refused: why onnxruntime does not take the original.
    """

    name: str
    category: str
    message: bool
    file: bool
    same: bool
    rebuilt: bool
    random: bool
    refused: str = ""


def examine(case: Case, folder: Path) -> Outcome:
    """Send a model through eopt and onnxruntime."""
    original = case.message()
    model = onnx_io.from_proto(original)
    again = onnx_out.to_proto(model)
    stored = _through_a_file(case, original, folder)
    expected = _run(case, original)
    random = not isinstance(expected, str) and not equal(expected, _run(case, original))
    same, rebuilt = (random or equal(expected, _run(case, proto)) for proto in (stored, _rebuilt(model)))
    refused = expected if isinstance(expected, str) else ""
    return Outcome(case.name, case.category, again == original, stored == original, same, rebuilt, random, refused)


def _through_a_file(case: Case, original: ModelProto, folder: Path) -> ModelProto:
    source = case.model if isinstance(case.model, Path) else folder / "in.onnx"
    if not isinstance(case.model, Path):
        source.write_bytes(original.SerializeToString())
    onnx_out.write(onnx_io.read(source), folder / "out.onnx")
    return ModelProto.FromString((folder / "out.onnx").read_bytes())


def _rebuilt(model: Model) -> ModelProto:
    """Every operator made from the tree alone, none written back as the message it came from.

    The overload of a function is not in the tree; a call that names one is made anew like an operator that changed.
    """
    imported = model.envelope.nodes
    changed = {uid: (replace(op, name=f"{op.name}'"), node) for uid, (op, node) in imported.items() if node.overload}
    return onnx_out.to_proto(replace(model, envelope=replace(model.envelope, nodes=changed)))


def _run(case: Case, proto: ModelProto) -> list[Any] | str:
    """Results, or why there are none."""
    try:
        return run(proto, case.feeds)
    except Refused as error:
        return str(error)
