"""Decision trees of the domain ai.onnx.ml."""

from __future__ import annotations

from math import log2

from eopt.ir.ops import OpView, Tie, Unit, Work, declare
from eopt.ir.opset.shared import kept

_ML = "ai.onnx.ml"
_STEP = 3  # feature, threshold, comparison


def _ensemble(view: OpView) -> Work:
    """3 operations per level and tree, with the depth log2(nodes / trees + 1) of balanced trees of that size; a sum and
    a selection per tree and target. The nodes on these paths are read besides features and results."""
    x = view.input(0)
    if view.op == "TreeEnsemble":
        nodes, trees = len(view.attrs["nodes_featureids"]), len(view.attrs["tree_roots"])
    else:
        nodes, trees = len(view.attrs["nodes_treeids"]), len(set(view.attrs["nodes_treeids"]))
    depth = log2(nodes / trees + 1)
    rows = x.numel // x.shape[-1]
    written = sum(tensor.nbytes for tensor in view.outputs)
    return Work(rows * trees * (_STEP * depth + 2), x.nbytes, written, Unit.VECTOR, x.dtype)


def _rows(view: OpView) -> tuple[Tie, ...]:
    """Samples are independent."""
    ports = ["x0", *(f"y{number}" for number in range(len(view.outputs)))]
    return kept(view, range(1, len(view.input(0).shape)), ports)


declare(["TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"], _ensemble, _rows, domain=_ML)
