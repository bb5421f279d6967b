"""What somebody asks to be measured, as workloads: the operator of a cost query, or a whole model at given extents."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper, numpy_helper

from eopt.backends.base import Array, Unknown
from eopt.backends.harness.base import Workload
from eopt.costmodel.cut import IR_VERSION, MAX_BYTES
from eopt.costmodel.records import record
from eopt.ir import onnx_out
from eopt.ir.errors import InputError
from eopt.ir.model import Model
from eopt.ir.onnx_io import from_proto
from eopt.ir.specialize import specialize
from eopt.ir.types import DType, concrete

OPSETS = (20, 23)  # the first that has the operator: older ones are known to more executors
_SEED = 0
# Operands that models hold as weights; of products and lookups only where they are matrices, or kernels.
_WEIGHTS = {
    "MatMul": (1,), "MatMulInteger": (1,), "Gemm": (1, 2), "Conv": (1, 2), "ConvInteger": (1,), "ConvTranspose": (1, 2),
    "Gather": (0,), "LayerNormalization": (1, 2), "RMSNormalization": (1,), "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2), "BatchNormalization": (1, 2, 3, 4), "PRelu": (1,),
}  # fmt: skip
_PRODUCTS = ("MatMul", "MatMulInteger")
_INTEGER = {"MatMul": "MatMulInteger", "Conv": "ConvInteger"}
_INDICES = {"Gather": (1,), "GatherElements": (1,), "GatherND": (1,), "ScatterND": (1,), "ScatterElements": (1,)}
_CONDITIONS = {"Where": (0,), "And": (0, 1), "Or": (0, 1), "Xor": (0, 1), "Not": (0,)}
# Operands whose values decide what is done; a query has shapes only.
_VALUES = {
    "Reshape": 1, "Expand": 1, "Tile": 1, "Slice": 1, "Pad": 1, "Resize": 1, "TopK": 1, "OneHot": 1, "Squeeze": 1,
    "Unsqueeze": 1, "Split": 1, "ReduceSum": 1, "ReduceMean": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceProd": 1,
    "ReduceL1": 1, "ReduceL2": 1, "ReduceLogSumExp": 1, "ReduceSumSquare": 1, "CumSum": 1, "Trilu": 1, "Range": 0,
    "ConstantOfShape": 0,
}  # fmt: skip
_OWN_ATTRIBUTES = ("past", "window", "ep", "skew", "unit", "ranks")


def workload_of(row: Mapping[str, Any]) -> Workload | Unknown:
    """The operator of a cost query as a workload of one node, or why it cannot be measured.

    Raises:
        InputError: as of `operator_model`.
    """
    model = operator_model(row)
    return model if isinstance(model, Unknown) else Workload(str(row["op"]), _encoded(model), lone=True)


def operator_model(row: Mapping[str, Any]) -> Model | Unknown:
    """The operator of a cost query as a model of one node; what models hold as weights is drawn with a fixed seed.

    Products of int8 become `MatMulInteger` and `ConvInteger`, whose results are int32.

    Raises:
        InputError: a malformed query, as of `records.record`.
    """
    if why := _valued(row):
        return Unknown((why,))
    priced = record(row)
    why = priced.reasons[0] if isinstance(priced, Unknown) else _unmeasurable(row)
    if why:
        return Unknown((why,))
    domain, _, name = str(row["op"]).rpartition(".")
    dtype = DType.parse(row["dtype"])
    name = _INTEGER.get(name, name) if dtype is DType.INT8 else name
    opset = next((version for version in OPSETS if domain or onnx.defs.has(name, version)), None)
    if opset is None:
        return Unknown((f"{name}: not in ONNX opset {OPSETS[-1]}, so executors of this release do not run it",))
    try:
        return from_proto(_proto(name, domain, opset, row["inputs"], dtype, row.get("attrs") or {}))
    except (InputError, ValueError, TypeError, AttributeError, onnx.shape_inference.InferenceError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Unknown((f"{name}: no model can be made of the query ({reason[:200]})",))


def _valued(row: Mapping[str, Any]) -> str:
    """Why an operator whose operands are values cannot be measured; '' for others."""
    name, shapes = str(row.get("op")).rpartition(".")[2], row.get("inputs")
    place = _VALUES.get(name)
    if place is None or not isinstance(shapes, list) or len(shapes) <= place:
        return ""
    return f"{name}: operand {place} is a value, of which a query has the shape only; measure a model that holds it"


def _unmeasurable(row: Mapping[str, Any]) -> str:
    """Why a query that can be priced cannot be measured; '' where it can."""
    name, dtype = str(row["op"]).rpartition(".")[2], row["dtype"]
    attrs, shapes = row.get("attrs") or {}, row["inputs"]
    if (row.get("phase") or "forward") != "forward":
        return f"{name}: only the forward phase is measured, not {row['phase']}"
    if (row.get("weight_dtype") or dtype) != dtype or row.get("scale"):
        return f"{name}: weights of another type or with scales have no ONNX operator of their own; measure a QDQ model"
    if row.get("math") == "tf32":
        return f"{name}: executors decide on tf32 themselves; leave out math"
    if own := [key for key in _OWN_ATTRIBUTES if key in attrs]:
        return f"{name}: {own[0]} is no ONNX attribute; give the shapes of what is executed"
    if sum(prod(shape) for shape in shapes if shape is not None) * DType.parse(dtype).bits / 8 > MAX_BYTES:
        return f"{name}: more than {MAX_BYTES} bytes of operands"
    return ""


def _proto(
    name: str, domain: str, opset: int, shapes: list[list[int] | None], dtype: DType, attrs: Mapping[str, Any]
) -> ModelProto:
    names = ["" if shape is None else f"x{place}" for place, shape in enumerate(shapes)]
    given = {key: _said(key, value) for key, value in attrs.items()}
    node = helper.make_node(name, names, ["y"], name=name, domain=domain, **given)
    proto = ModelProto(ir_version=IR_VERSION, opset_import=[helper.make_opsetid("", opset)])
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    proto.graph.name = name
    proto.graph.node.append(node)
    rng = np.random.default_rng(_SEED)
    for place, shape in enumerate(shapes):
        if shape is None:
            continue
        if _is_weight(name, place, shape):
            proto.graph.initializer.append(numpy_helper.from_array(_drawn(rng, shape, dtype), names[place]))
        else:
            kind = _type(name, place, dtype)
            proto.graph.input.append(helper.make_tensor_value_info(names[place], kind.onnx, shape))
    proto.graph.output.append(ValueInfoProto(name="y"))
    typed = onnx.shape_inference.infer_shapes(proto, strict_mode=True)
    if not typed.graph.output[0].type.HasField("tensor_type"):
        raise InputError("the type of its result is unknown")
    return typed


def _said(key: str, value: Any) -> Any:
    """An attribute as ONNX has it: types are numbers there, and names in queries."""
    return DType.parse(value).onnx if key == "to" and isinstance(value, str) else value


def _is_weight(name: str, place: int, shape: list[int]) -> bool:
    matrix = name not in _PRODUCTS or len(shape) == 2
    return matrix and place in _WEIGHTS.get(name, ())


def _type(name: str, place: int, dtype: DType) -> DType:
    if place in _INDICES.get(name, ()):
        return DType.INT64
    return DType.BOOL if place in _CONDITIONS.get(name, ()) else dtype


def _drawn(rng: np.random.Generator, shape: list[int], dtype: DType) -> Array:
    """Small positive numbers, as variances have to be; all small integers."""
    if dtype.is_float:
        return np.asarray(rng.uniform(0.01, 0.1, shape)).astype(dtype.numpy)
    return np.asarray(rng.integers(0, 100, shape)).astype(dtype.numpy)


def whole_workload(model: Model, bindings: Mapping[str, int], name: str) -> Workload:
    """A whole model at these extents, its weights inside.

    Raises:
        InputError: an input without a type or extents, or more than `MAX_BYTES` of weights.
    """
    fixed = specialize(model, bindings)
    for value in fixed.feeds:
        if value.dtype is None or concrete(value.shape) is None:
            raise InputError(f"{name}: input {value.id!r} has no type or an extent that is unknown; give --bind")
    size = sum(fixed.weights.nbytes(weight) for weight in fixed.weights)
    if size > MAX_BYTES:
        raise InputError(f"{name}: {size} bytes of weights, more than {MAX_BYTES}; measure a part of it")
    return Workload(name, _encoded(fixed), lone=False)


def _encoded(model: Model) -> bytes:
    proto = onnx_out.skeleton(model)
    rng = np.random.default_rng(_SEED)
    for name in model.weights:
        dtype = model.weights.dtype(name)
        if dtype is not None and model.weights.is_absent(name):
            array = (rng.standard_normal(model.weights.shape(name)) * 0.02).astype(dtype.numpy)
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        else:
            proto.graph.initializer.append(model.weights.message(name))
    return bytes(proto.SerializeToString(deterministic=True))
