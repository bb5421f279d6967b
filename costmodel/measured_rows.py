"""Measurements as rows of the typed table (`costmodel/datasets/base.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, NodeProto, helper

from eopt.backends.base import Unknown
from eopt.backends.harness.base import Timing, Workload
from eopt.backends.meters.base import EnergyReading
from eopt.backends.target import Target
from eopt.costmodel.datasets.base import QUERY, attrs_text
from eopt.costmodel.datasets.table import schema
from eopt.ir.errors import UsageError
from eopt.ir.onnx_out import atomic
from eopt.ir.types import DType

SOURCE = "measured"
FILE = f"rows-{SOURCE}.parquet"
_PLAIN = (
    AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING, AttributeProto.INTS, AttributeProto.FLOATS,
)  # fmt: skip


def described(workload: Workload) -> dict[str, Any]:
    """The columns of a query, and the level, of what a workload executes: a model, an operator or a fused group.

    Operands are those that cross its boundary, each once: of an operator in its order, weights among them.
    """
    graph = onnx.load_from_string(workload.onnx).graph
    nodes = list(graph.node)[: len(graph.node) // workload.copies]
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in graph.input}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    for weight in graph.initializer:
        shapes[weight.name], types[weight.name] = list(weight.dims), weight.data_type
    if not workload.lone:
        return {"level": "model", "op": "Model", **_operands([value.name for value in graph.input], shapes, types)}
    if len(nodes) > 1:
        read = dict.fromkeys(name for node in nodes for name in node.input if name in shapes)
        return {"level": "module", "op": "+".join(map(_kind, nodes)), **_operands(list(read), shapes, types)}
    (node,) = nodes
    return {"level": "operator", "op": _kind(node), "attrs": _attributes(node), **_operands(node.input, shapes, types)}


def _kind(node: NodeProto) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _operands(names: Sequence[str], shapes: Mapping[str, list[int]], types: Mapping[str, int]) -> dict[str, Any]:
    known = [name for name in names if name in shapes]
    held = [dtype for name in known if (dtype := DType.from_onnx(types[name])) is not None]
    dtype = next((one for one in held if one.is_float), held[0] if held else None)  # not of conditions, indices
    return {"inputs": [shapes.get(name) for name in names], "dtype": dtype and str(dtype)}


def _attributes(node: NodeProto) -> str:
    plain = [attribute for attribute in node.attribute if attribute.type in _PLAIN]
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in plain}
    return attrs_text(**{name: v.decode(errors="replace") if isinstance(v, bytes) else v for name, v in values.items()})


def asked(query: Mapping[str, Any]) -> dict[str, Any]:
    """The same columns, of a cost query as somebody wrote it."""
    given = {name: query.get(name) for name in QUERY if query.get(name) is not None}
    return {"level": "operator", **given, "attrs": attrs_text(**(query.get("attrs") or {}))}


def row(
    what: Mapping[str, Any],
    latency: Timing,
    energy: EnergyReading | Unknown,
    target: Target,
    executor: str,
    library: str,
    workload: str,
    batch: int | None = None,
) -> dict[str, Any]:
    """One row; what was not read is left out.

    Args:
        what: as of `described` or `asked`.
        library: who executed it, with its version.
        workload: name of the model it belongs to.
        batch: samples of one execution, above operators.
    """
    found = {
        "phase": "forward", **what, "source": SOURCE, "device": target.name, "executor": executor, "library": library,
        "workload": workload, "latency_s": latency.latency_s, "noisy": latency.noisy,
        "batch": None if what["level"] == "operator" else batch,
    }  # fmt: skip
    if isinstance(energy, Unknown):
        return found
    drawn = {"power_w": energy.power_w, "energy_j": energy.energy_j, "energy_scope": energy.scope}
    return {**found, **drawn, "window_s": energy.window_s, "noisy": latency.noisy or energy.noisy}


def write(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write `rows-measured.parquet`, which `eopt.costmodel.datasets.table.read` reads.

    Raises:
        UsageError: pyarrow is not installed.
        OutputError: it cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise UsageError(f"{FILE} needs pyarrow; pip install 'eopt[data]'") from None
    path = folder / FILE
    with atomic(path) as file:
        parquet.write_table(pa.Table.from_pylist([dict(one) for one in rows], schema=schema()), file)
    return path
