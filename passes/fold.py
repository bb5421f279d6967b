"""Fold operators that depend on weights only, when the result is not larger than what it is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from eopt.ir.analysis import RANDOM
from eopt.ir.model import Model
from eopt.ir.node import Op

Array = np.ndarray[Any, Any]
GROWTH = 1.1  # an Expand of a scalar stays an operator: folded, it would only fill the file
SMALL_BYTES = 4096


def fold_constants(model: Model) -> Model:
    """Compute constant operators once and for all; equal ones on a tied weight have been merged before."""
    for op in model.leaves():
        function = _FOLDERS.get(op.op) if not op.domain else None
        if function is None or len(op.outputs) != 1 or model.is_output(op.output):
            continue
        arrays = [model.constant(name) if name else None for name in op.inputs]
        if not arrays or any(array is None and name for array, name in zip(arrays, op.inputs, strict=True)):
            continue
        result = function(op, [array for array in arrays if array is not None])
        if result is None or not _worth_it(result, arrays):
            continue
        model = model.replace([op], [], weights={op.output: np.ascontiguousarray(result)})
    return model


def merge_equal(model: Model) -> Model:
    """Compute once what is computed twice: the same operator on the same values with the same attributes."""
    seen: dict[tuple[Any, ...], Op] = {}
    for leaf in model.leaves():
        op = model.index.op(leaf.uid)  # its inputs may have been renamed on the way
        if op.attrs.graphs or op.op.startswith(RANDOM) or any(model.is_output(value.id) for value in op.outputs):
            continue
        key = (op.op, op.domain, op.inputs, op.attrs, len(op.outputs))
        first = seen.setdefault(key, op)
        if first is not op and not _captured(model, op):
            pairs = zip(op.outputs, first.outputs, strict=True)
            model = model.replace([op], [], renames={gone.id: kept.id for gone, kept in pairs})
    return model


def _captured(model: Model, op: Op) -> bool:
    return any(value.id not in user.inputs for value in op.outputs for user in model.users(value.id))


def _worth_it(result: Array, arrays: list[Array | None]) -> bool:
    return result.nbytes <= max(SMALL_BYTES, GROWTH * sum(array.nbytes for array in arrays if array is not None))


def _transpose(op: Op, arrays: list[Array]) -> Array | None:
    return np.transpose(arrays[0], op.attrs.get("perm"))


def _reshape(op: Op, arrays: list[Array]) -> Array | None:
    if len(arrays) < 2:
        return None
    zero_copies = not op.attrs.get("allowzero", 0)
    shape = [
        arrays[0].shape[axis] if dim == 0 and zero_copies else int(dim) for axis, dim in enumerate(arrays[1].tolist())
    ]
    return arrays[0].reshape(shape)


def _squeeze(op: Op, arrays: list[Array]) -> Array | None:
    axes = arrays[1].tolist() if len(arrays) > 1 else op.attrs.get("axes")
    return np.squeeze(arrays[0], tuple(axes) if axes else None)


def _unsqueeze(op: Op, arrays: list[Array]) -> Array | None:
    axes = arrays[1].tolist() if len(arrays) > 1 else op.attrs.get("axes")
    return None if axes is None else np.expand_dims(arrays[0], tuple(axes))


def _cast(op: Op, arrays: list[Array]) -> Array | None:
    from eopt.ir.types import DType

    dtype = DType.from_onnx(op.attrs["to"])
    return None if dtype is None or dtype is DType.STRING or dtype.bits < 8 else arrays[0].astype(dtype.numpy)


_FOLDERS: dict[str, Callable[[Op, list[Array]], Array | None]] = {
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
    "Identity": lambda op, arrays: arrays[0],
}
