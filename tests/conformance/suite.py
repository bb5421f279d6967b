"""The models of the conformance table: onnx's backend test suite, exported networks, and what both lack."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, OptionalProto, SequenceProto, TensorProto, defs, numpy_helper
from onnx.backend.test.case import node as node_cases

DATA = Path(onnx.__file__).parent / "backend/test/data"
FOLDERS = ("light", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Case:
    """A model with what it is run on.

    Attributes:
        category: family of its operator, or where it comes from.
        model: the message, or the file of a model with large weights.
        feeds: inputs by position, for each run; empty where they are made up.
    """

    name: str
    category: str
    model: ModelProto | Path
    feeds: Sequence[Sequence[Any]] = ()

    def message(self) -> ModelProto:
        return onnx.load(self.model) if isinstance(self.model, Path) else self.model


@cache
def operators() -> tuple[Case, ...]:
    """The node tests; one that is expanded into a function's body counts with the operator it defines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the reference implementations
        found = node_cases.collect_testcases(None)
    families = {case.name: _family(case.model) for case in found if "_expanded" not in case.name}
    return tuple(
        Case(
            case.name,
            families.get(case.name.split("_expanded")[0]) or _family(case.model),
            case.model,
            [inputs for inputs, _ in case.data_sets],
        )
        for case in found
    )


def _family(model: ModelProto) -> str:
    """The folder of onnx's sources in which the operator is defined; the rarest operator decides."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    named = [node for node in model.graph.node if node.op_type not in ("Constant", "Identity")]
    return _folder((named or list(model.graph.node))[-1], versions)


def _folder(node: NodeProto, versions: dict[str, int]) -> str:
    schema = defs.get_schema(node.op_type, versions[node.domain], node.domain)
    return Path(schema.file.replace("\\", "/")).parent.name


@cache
def files() -> tuple[Case, ...]:
    """The .onnx files of the suite, with the data beside them."""
    paths = [path for folder in FOLDERS for path in sorted((DATA / folder).rglob("*.onnx"))]
    return tuple(
        Case(str(path.relative_to(DATA)), path.relative_to(DATA).parts[0], onnx.load(path), list(_feeds(path)))
        for path in paths
    )


def exported() -> tuple[Case, ...]:
    """The networks of tests/models, fed with made-up inputs."""
    import zoo

    return tuple(Case(name, "exported networks", zoo.zoo_model(name)) for name in (*zoo.NAMES, *zoo.MULTI))


def _feeds(path: Path) -> Iterator[list[Any]]:
    types = [info.type.WhichOneof("value") for info in onnx.load(path).graph.input]
    for folder in sorted(path.parent.glob("test_data_set_*")):
        inputs = sorted(folder.glob("input_*.pb"), key=lambda found: int(found.stem.partition("_")[2]))
        yield [_content(types[number], found.read_bytes()) for number, found in enumerate(inputs)]


def _content(kind: str, encoded: bytes) -> Any:
    if kind == "sequence_type":
        return numpy_helper.to_list(SequenceProto.FromString(encoded))
    if kind == "optional_type":
        return numpy_helper.to_optional(OptionalProto.FromString(encoded))
    return numpy_helper.to_array(TensorProto.FromString(encoded))
