"""Runs models in onnxruntime and compares results bit for bit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ctypes import string_at
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

REASONS = {
    "no CPU kernel for the operator at this type or operator set": r"NOT_IMPLEMENTED",
    "the operator is unknown to it": r"not a registered function/op|No Op registered|No opset import|No schema",
    "an operator set or IR version newer than this onnxruntime": r"under development|IR version",
    "the kernel refuses the attributes or data": r"during initialization|while running",
    "the type is not allowed there": r"Type Error|Unexpected data type|nvalid tensor data type|type_case|unsupported",
    "the graph is not valid for it": r"INVALID_GRAPH|ShapeInference",
    "its Python interface cannot pass the value": r"OrtValues|MLDataType|Numpy Type|Unable to handle|SequenceType",
}
EXOTIC = {f"tensor({name})" for name in ("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")}
EXOTIC |= {f"tensor({name})" for name in ("int4", "uint4", "int2", "uint2", "float4e2m1", "float8e8m0")}


class Refused(Exception):
    """onnxruntime does not load or run a model; the text is one of `REASONS`, or its own first line."""


def run(model: ModelProto, feeds: Sequence[Sequence[Any]]) -> list[Any]:
    """All outputs of a model on each feed; without feeds, on made-up ones.

    Raises:
        Refused: onnxruntime does not take it.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return [_once(session, feed) for feed in feeds or [made_up(session)]]
    except Exception as error:  # of types of its own, all plain Exceptions
        raise Refused(reason(str(error))) from None


def reason(message: str) -> str:
    """Why a model was refused."""
    for text, pattern in REASONS.items():
        if re.search(pattern, message):
            return text
    return message.strip().split("\n")[0][:160]


def _once(session: ort.InferenceSession, feed: Sequence[Any]) -> list[Any]:
    names = [port.name for port in session.get_inputs()]
    values = [_array(value) for value in feed]
    fed = dict(zip(names, values, strict=False))
    exotic = any(isinstance(value, np.ndarray) and value.dtype.isbuiltin != 1 for value in values)
    if exotic or any(port.type in EXOTIC for port in session.get_outputs()):
        held = {name: _held(np.asarray(value)) for name, value in fed.items()}
        return [_bytes(value) for value in session.run_with_ort_values(None, held)]
    return list(session.run(None, fed))


def _array(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _held(array: np.ndarray[Any, Any]) -> ort.OrtValue:
    """An array in memory of onnxruntime; types that NumPy lacks go as integers of their width."""
    if array.dtype.isbuiltin == 1:
        return ort.OrtValue.ortvalue_from_numpy(array)
    plain = np.ascontiguousarray(array).view(f"uint{8 * array.dtype.itemsize}")
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(plain, helper.np_dtype_to_tensor_dtype(array.dtype))


def _bytes(value: ort.OrtValue) -> Any:
    """Type, shape and bytes, for tensors that have no NumPy type."""
    return value.data_type(), tuple(value.shape()), string_at(value.data_ptr(), value.tensor_size_in_bytes())


def made_up(session: ort.InferenceSession) -> list[Any]:
    """Small random inputs; dims without an extent become 2."""
    rng = np.random.default_rng(0)
    return [_random(port, rng) for port in session.get_inputs()]


def _random(port: Any, rng: np.random.Generator) -> Any:
    if "seq(" in port.type:
        return [rng.standard_normal(3).astype("float32") for _ in range(2)]
    shape = [dim if isinstance(dim, int) and dim > 0 else 2 for dim in port.shape]
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    if kind.startswith(("int", "uint", "bool")):
        return rng.integers(0, 2, shape).astype(kind)
    if kind == "string":
        return np.full(shape, "text", dtype=object)
    return rng.standard_normal(shape).astype({"float": "float32", "double": "float64"}.get(kind, kind))


def equal(first: Any, second: Any) -> bool:
    """Bit for bit: the same types, shapes and bytes, payloads of NaN included."""
    if type(first) is not type(second):
        return False
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and equal(list(first.values()), list(second.values()))
    if not isinstance(first, np.ndarray):
        return bool(first == second)
    same = first.dtype == second.dtype and first.shape == second.shape
    return same and (
        first.tolist() == second.tolist() if first.dtype == object else first.tobytes() == second.tobytes()
    )
