"""A torch module as one ONNX file: operators as the module wrote them, module scopes kept, weights inside."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx_ir.passes import common as passes
from onnxscript import optimizer

OPSET = 20  # Gelu is one operator from 20 on; attention stays MatMul and Softmax below 23
SCOPE_KEYS = frozenset({"pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"})
TOLERANCE = 1e-4  # float32 sums in another order differ by some 1e-6 of the largest value; a wrong operator by far more


def to_onnx(
    module: torch.nn.Module,
    example: Mapping[str, torch.Tensor],
    path: Path,
    *,
    output: str,
    dims: Mapping[str, Mapping[int, str]],
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write `module` to `path` and hold the file to torch's own answer.

    Args:
        example: tensors by the name of the argument of `forward`; their axes in `dims` need a size above 1.
        output: name of the one graph output.
        dims: by input, the axes that stay symbolic and their names.
        notes: metadata of the model.

    Raises:
        ValueError: ONNX Runtime and torch differ by more than `TOLERANCE` of the largest output.
    """
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own deprecated calls
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            kwargs=dict(example),
            dynamo=True,
            dynamic_shapes={name: dict(dims.get(name, {})) for name in example},
            opset_version=OPSET,
            input_names=list(example),
            output_names=[output],
            optimize=False,
            verbose=False,
        )
    _fold_constants(program.model)
    model = program.model_proto
    for entry in _described(model.graph):
        _strip(entry)
    onnx.helper.set_model_props(model, dict(notes or {}))
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    _compare(module, example, path)


def _fold_constants(model: Any) -> None:
    """The exporter's own optimiser without its rewrite rules, which would already fold BatchNormalization."""
    passes.ShapeInferencePass()(model)  # a CastLike folds where its types are known
    optimizer.fold_constants(model)
    passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.DeduplicateInitializersPass()(model)


def _described(graph: onnx.GraphProto) -> Iterator[Any]:
    """Everything in a graph that carries metadata."""
    yield graph
    for entries in (graph.input, graph.output, graph.value_info, graph.initializer, graph.node):
        yield from entries
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from _described(attribute.g)


def _strip(entry: Any) -> None:
    """Keep the scopes only: the rest is bulky, and stack traces name folders of the exporting machine."""
    kept = [pair for pair in entry.metadata_props if pair.key in SCOPE_KEYS]
    del entry.metadata_props[:]
    entry.metadata_props.extend(kept)


def _compare(module: torch.nn.Module, example: Mapping[str, torch.Tensor], path: Path) -> None:
    with torch.inference_mode():
        expected = module(**example).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {name: tensor.numpy() for name, tensor in example.items()})
    error = float(np.abs(actual - expected).max())
    if not error <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ValueError(f"{path}: differs from torch by {error:.1e}")
