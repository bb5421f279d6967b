"""Which low-precision format an operator's operands are written in, read off the DequantizeLinear in front of it."""

from __future__ import annotations

from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.ops import Trait, spec
from eopt.ir.types import DType

WEIGHT_ONLY = "weight-"
_BOTH = ("Add", "Mul")  # elementwise operators of two operands
_ONE = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "MaxPool", "AveragePool", "GlobalAveragePool")


def format_of(model: Model, op: Op) -> str:
    """`static-int8`, `dynamic-int8`, `float8`, `weight-int8`, `weight-int4`, or '' for an operator on floats."""
    found = [_dequantised(model, name) for name in _data(op)]
    if not found or not any(found):
        return ""
    if not all(found):
        return _weight_only(model, op)
    stored = {_type(model, source) for source in found if source is not None}
    if stored != {"int8"}:
        return "float8" if stored == {"float8"} else ""
    makers = (model.producer(source.inputs[0] or "") for source in found if source is not None)
    return "dynamic-int8" if any(m is not None and m.op == "DynamicQuantizeLinear" for m in makers) else "static-int8"


def _data(op: Op) -> tuple[str | None, ...]:
    """Inputs that hold numbers to compute with."""
    described = spec(op.op, op.domain)
    contraction = described is not None and Trait.CONTRACTION in described.traits and op.op != "Attention"
    if contraction or op.op in _BOTH:
        return op.inputs[:2]
    if op.op == "Concat":
        return op.inputs
    return op.inputs[:1] if op.op in _ONE else ()


def _dequantised(model: Model, name: str | None) -> Op | None:
    producer = model.producer(name) if name else None
    return producer if producer is not None and producer.op == "DequantizeLinear" else None


def _weight_only(model: Model, op: Op) -> str:
    """Floats times a stored weight."""
    weight = _dequantised(model, op.inputs[1]) if len(op.inputs) > 1 else None
    if weight is None or op.op not in ("MatMul", "Gemm") or weight.inputs[0] not in model.weights:
        return ""
    kind = _type(model, weight)
    return f"{WEIGHT_ONLY}{kind}" if kind in ("int8", "int4") else ""


def _type(model: Model, dequantise: Op) -> str:
    """Family of what is stored."""
    dtype = model.value(dequantise.inputs[0] or "").dtype
    if dtype is None:
        return ""
    families = {DType.UINT8: "int8", DType.UINT4: "int4", DType.FLOAT8E4M3FN: "float8", DType.FLOAT8E5M2: "float8"}
    return families.get(dtype, str(dtype))
