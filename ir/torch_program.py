"""Exported programs and fx graphs as models; every operator keeps the names of the fx nodes it stands for."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from eopt.ir import onnx_io
from eopt.ir.model import Model
from eopt.ir.node import Op

FX_KEY = "eopt.fx_node"
_TRACE_KEY = "pkg.torch.onnx.stack_trace"  # paths of the exporting machine: bulky and nobody's business
_NODE_KEY = "pkg.torch.onnx.fx_node"  # the node of the decomposed program, printed
_NODE = re.compile(r"%([^\s:]+) :")


def imported(exported: Any, sources: Mapping[str, str] | None = None) -> Model:
    """The model of a `torch.onnx.ONNXProgram`.

    Args:
        exported: what the exporter returned.
        sources: the user's name of each node of the program that was exported, where they differ.
    """
    names = origins(exported.exported_program)
    with TemporaryDirectory(prefix="eopt-") as folder:
        path = Path(folder) / "model.onnx"
        exported.save(path, external_data=True)
        model = onnx_io.read(path)  # the weights stay mapped although the folder goes
    for _, node in model.envelope.nodes.values():
        kept = [entry for entry in node.metadata_props if entry.key != _TRACE_KEY]
        told = [match for entry in kept if entry.key == _NODE_KEY and (match := _NODE.match(entry.value))]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
        for match in told:
            name = names.get(match[1], match[1])
            node.metadata_props.add(key=FX_KEY, value=(sources or {}).get(name, name))
    return model


def fx_names(model: Model, op: Op) -> tuple[str, ...]:
    """Names of the fx nodes an operator stands for, of all it replaced; () for one that never was in torch."""
    nodes = [model.envelope.nodes[uid][1] for uid in sorted(op.origin) if uid in model.envelope.nodes]
    found = (entry.value for node in nodes for entry in node.metadata_props if entry.key == FX_KEY)
    return tuple(dict.fromkeys(found))


def origins(program: Any) -> dict[str, str]:
    """By name of a node of an exported program, the node it was traced or decomposed from."""
    found = {}
    for node in program.graph.nodes:
        sources = node.meta.get("from_node") or []
        found[node.name] = sources[0].name if sources else node.name
    return found


def traceable(torch: Any, module: Any) -> Any:
    """A copy of a GraphModule whose nodes all have metadata: torch.export traces the origin of those that have any."""
    copied = torch.fx.GraphModule(module, copy.deepcopy(module.graph))
    for node in copied.graph.nodes:
        node.meta.setdefault("nn_module_stack", {})
        node.meta["eopt"] = True
    return copied
