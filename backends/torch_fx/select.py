"""Choose a kernel for every operator: what is quantised, sparse or attention gets the unit made for it, if it is there.

Each pattern looks at one operator and returns the step that computes it, or why it does not apply.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eopt.backends.torch_fx.capability import Capabilities
from eopt.backends.torch_fx.steps import Array, Choice, Step, plain
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import DType

INT8, FLOAT8 = (DType.INT8, DType.UINT8), (DType.FLOAT8E4M3FN,)
MAX_INT8_DEPTH = (2**31 - 1) // (255 * 128)  # products that an int32 sum holds in any case
_HALF = (DType.FLOAT16, DType.BFLOAT16)
_EXPLICIT = {"softcap": "a cap on the scores", "softmax_precision": "a softmax in another type"}


def plan(model: Model, can: Capabilities, trainable: bool) -> tuple[Step, ...]:
    """One step per operator but constants, in order."""
    return tuple(_step(model, op, can, trainable) for op in model.leaves() if op.op != "Constant" or op.domain)


def _step(model: Model, op: Op, can: Capabilities, trainable: bool) -> Step:
    if op.domain:
        return plain(op)
    if op.op == "Attention":
        return attention(op)
    if op.op == "QuantizeLinear" and trainable:
        return straight_through(model, op)
    if op.op in ("MatMul", "Gemm"):
        return product(model, op, can, trainable)
    if op.op == "Conv" and _dequantized(model, op.inputs[1]) is not None:
        return plain(op, "torch has no int8 convolution: runs on the dequantised values")
    return plain(op)


def attention(op: Op) -> Step:
    """The fused kernel unless scores are changed in ways it does not know, or wanted as an output."""
    reasons = [text for name, text in _EXPLICIT.items() if op.attrs.get(name)]
    reasons += ["the scores are an output"] if len(op.outputs) > 3 and op.outputs[3].id else []
    if reasons:
        return Step(op, Choice("eopt.ExplicitAttention", " and ".join(reasons)), op.inputs, op.attrs)
    return plain(op, "torch.nn.functional.scaled_dot_product_attention")


def straight_through(model: Model, op: Op) -> Step:
    """Rounding passes its gradient on where only DequantizeLinear reads the result."""
    readers = model.users(op.output)
    if model.is_output(op.output) or any(reader.op != "DequantizeLinear" for reader in readers):
        return plain(op, "its integers are used as such: no gradient")
    return Step(op, Choice("eopt.FakeQuantize", "straight-through gradient"), op.inputs, op.attrs)


@dataclass(frozen=True)
class _Quantized:
    """A value as DequantizeLinear makes it, with constant parameters."""

    name: str
    dtype: DType
    scale: Array
    zero: Array
    axis: int


def _dequantized(model: Model, name: str | None) -> _Quantized | None:
    op = model.producer(name) if name else None
    if op is None or op.op != "DequantizeLinear" or op.domain or op.attrs.get("block_size"):
        return None
    source, scale = op.inputs[0] or "", model.constant(op.inputs[1] or "")
    zero_name = op.inputs[2] if len(op.inputs) > 2 else None
    zero = model.constant(zero_name) if zero_name else np.zeros((), np.int64)
    dtype = model.value(zero_name or source).dtype
    if scale is None or zero is None or dtype is None:
        return None
    return _Quantized(source, dtype, scale, zero, op.attrs.get("axis", 1))


def product(model: Model, op: Op, can: Capabilities, trainable: bool) -> Step:
    """int8 and float8 groups on their own units, 2:4 sparse weights on theirs, everything else in floating point."""
    if op.attrs.get("transA") or op.attrs.get("alpha", 1.0) != 1.0 or op.attrs.get("beta", 1.0) != 1.0:
        return plain(op)
    a, b = _dequantized(model, op.inputs[0]), _dequantized(model, op.inputs[1])
    if a is not None and b is not None:
        return _quantized(model, op, a, b, can) if not trainable else plain(op, "trainable: integers have no gradient")
    weight = model.constant(op.inputs[1] or "")
    if weight is None or not is_two_of_four(_out_in(op, weight)):
        return plain(op)
    return plain(op, "trainable: 2:4 sparse weight kept dense") if trainable else _sparse(op, weight, can)


def _quantized(model: Model, op: Op, a: _Quantized, b: _Quantized, can: Capabilities) -> Step:
    weight = model.constant(b.name)
    if weight is None or weight.ndim != 2:
        return plain(op, "quantised, but the second operand is no constant matrix")
    if a.scale.size != 1:
        return plain(op, "quantised, but the first operand has more than one scale")
    if b.scale.size != 1 and b.axis % 2 != (0 if op.attrs.get("transB") else 1):
        return plain(op, "quantised, but not per output channel")
    if a.dtype in FLOAT8 and b.dtype in FLOAT8:
        return _float8(op, a, b, _out_in(op, weight), can)
    if a.dtype in INT8 and b.dtype in INT8:
        return _int8(op, a, b, _out_in(op, weight), can)
    return plain(op, f"quantised to {a.dtype} and {b.dtype}: torch has no kernel for the pair")


def _int8(op: Op, a: _Quantized, b: _Quantized, weight: Array, can: Capabilities) -> Step:
    """s (a - z) W = s (a W - z sum W): the sums over a constant weight are constants."""
    shifted = weight.astype(np.int64) - np.reshape(b.zero, (-1, 1)).astype(np.int64)
    if can.int8:
        return plain(op, f"int8, but torch._int_mm refuses here: {can.int8}")
    if abs(shifted).max(initial=0) > 128 or shifted.max(initial=0) > 127:
        return plain(op, "int8, but the weight without its zero point leaves int8")
    if weight.shape[1] > MAX_INT8_DEPTH:
        return plain(op, "int8, but the sums could leave int32")
    signed = a.dtype is DType.INT8
    zero = int(a.zero.reshape(-1)[0]) - (0 if signed else 128)
    scale = (a.scale.reshape(-1)[0].astype("f") * b.scale.reshape(-1).astype("f")).astype("f")
    stem = op.output
    constants = {
        f"{stem}.int8": shifted.astype(np.int8),
        f"{stem}.offset": (zero * shifted.sum(1)).astype(np.int32),
        f"{stem}.scale": scale,
    }
    choice = Choice("eopt.Int8Linear", "torch._int_mm: int8 operands with constant scales")
    inputs = (a.name, *constants, *op.inputs[2:3])
    return Step(op, choice, inputs, {"dtype": _number(b.scale)}, constants)


def _float8(op: Op, a: _Quantized, b: _Quantized, weight: Array, can: Capabilities) -> Step:
    if can.float8:
        return plain(op, f"float8, but torch._scaled_mm refuses here: {can.float8}")
    if b.scale.size != 1:
        return plain(op, "float8, but the weight has more than one scale")
    if weight.shape[0] % 16 or weight.shape[1] % 16:
        return plain(op, "float8, but the weight's extents are no multiples of 16")
    constants = {
        f"{op.output}.float8": weight,
        f"{op.output}.scale_a": a.scale.reshape(()).astype("f"),
        f"{op.output}.scale_b": b.scale.reshape(()).astype("f"),
    }
    choice = Choice("eopt.Float8Linear", "torch._scaled_mm: float8e4m3fn operands, one scale each")
    inputs = (a.name, *constants, *op.inputs[2:3])
    return Step(op, choice, inputs, {"dtype": _number(b.scale)}, constants)


def _sparse(op: Op, weight: Array, can: Capabilities) -> Step:
    matrix = _out_in(op, weight)
    if DType.from_onnx(_number(weight)) not in _HALF:
        return plain(op, f"2:4 sparse, but in {weight.dtype}: kept dense, the sparse unit takes 16-bit floats")
    refusal = can.sparse(matrix)
    if refusal:
        return plain(op, f"2:4 sparse, but kept dense: {refusal}")
    name = f"{op.output}.sparse"
    choice = Choice("eopt.SparseLinear", "2:4 sparse weight, torch.sparse.to_sparse_semi_structured")
    inputs = (op.inputs[0], name, *op.inputs[2:3])
    return Step(op, choice, inputs, {}, {name: matrix}, frozenset((name,)))


def is_two_of_four(matrix: Array) -> bool:
    """True when of every four neighbours along the last axis two at least are zero."""
    if matrix.ndim != 2 or matrix.shape[1] % 4 or not matrix.size or matrix.dtype.kind in "OUS":
        return False
    groups = np.count_nonzero(matrix.reshape(-1, 4), axis=1)
    return bool((groups <= 2).all()) and bool(groups.any())


def _out_in(op: Op, weight: Array) -> Array:
    """As `torch.nn.functional.linear` wants it: (out, in)."""
    return weight if op.attrs.get("transB") or weight.ndim != 2 else np.ascontiguousarray(weight.T)


def _number(array: Array) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
