"""Making a model ready for grids that are found at run time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from eopt.ir.model import Model
from eopt.ir.node import Attrs, Op


def problem(op: Op) -> str:
    """Why no kernel computes this operator on a grid found when the model runs; '' when one does."""
    if op.op == "Conv":
        return "no kernel finds the grid of a convolution"
    return "no kernel finds the grid of an input that it transposes" if op.attrs.get("transA", 0) else ""


def split(model: Model) -> Model:
    """Every `Gemm` as `MatMul` and, with a bias, `Add`: executors compute a product of grids found at run time only so.

    Those that transpose their input or scale their result stay, and are refused for what they are.
    """
    for op in model.leaves():
        if op.op == "Gemm" and not op.domain and _plain(model, op):
            model = _split(model, op)
    return model


def apart(model: Model, products: Iterable[Op]) -> Model:
    """The model with `Sum` for every `Add` behind these products of matrices.

    onnxruntime makes `MatMul` and `Add` of matrices one `Gemm`, even in front of its integer kernels, and computes that
    in float after it has dequantised the weight (optimised models of onnxruntime 1.32).
    """
    for op in products:
        users = model.users(op.output)
        matrix = len(model.value(op.inputs[0] or "").shape or ()) == 2
        if matrix and len(users) == 1 and users[0].op == "Add" and not users[0].domain:
            model = model.replace(users, [replace(users[0], op="Sum", uid=0)])
    return model


def _plain(model: Model, op: Op) -> bool:
    scaled = op.attrs.get("alpha", 1.0) != 1.0 or op.attrs.get("beta", 1.0) != 1.0
    return not scaled and not op.attrs.get("transA", 0) and model.constant(op.inputs[1] or "") is not None


def _split(model: Model, op: Op) -> Model:
    data, weight, *bias = op.inputs
    arrays: dict[str, np.ndarray] = {}
    if op.attrs.get("transB", 0):
        array = model.constant(weight or "")
        assert array is not None
        weight = model.fresh(f"{weight}_t")
        arrays[weight] = np.ascontiguousarray(array.T)
    if not bias or bias[0] is None:
        product = replace(op, op="MatMul", attrs=Attrs.of(), inputs=(data, weight), uid=0)
        return model.replace([op], [product], weights=arrays)
    product_value = replace(op.outputs[0], id=model.fresh(f"{op.output}_product"))
    product = replace(op, op="MatMul", attrs=Attrs.of(), inputs=(data, weight), outputs=(product_value,), uid=0)
    add = Op("Add", (product_value.id, bias[0]), op.outputs)
    return model.replace([op], [product, add], weights=arrays)
