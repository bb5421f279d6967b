"""Linear layers as a compiled ONNX model holds them: `DequantizeLinear` before a product, or `MatMulNBits`.

What is read is the emitted graph, not what a pass says it did. https://onnx.ai/onnx/operators/ and
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits define both forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from onnx import helper

from eopt.backends.checkpoint.linear import Activations, Array, QuantisedLinear, Scheme
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.types import DType

_INSTANCE = re.compile(r"#\d+(?=/|$)")  # a module whose nodes cannot stand together is read as several

_OPERANDS: Mapping[str, Mapping[int, str]] = {
    "MatMul": {1: "weight"},
    "Gemm": {1: "weight", 2: "bias"},
    "MatMulNBits": {1: "weight", 5: "bias"},
    "MatMulInteger": {1: "weight"},
    "QLinearMatMul": {3: "weight"},
    "Gather": {0: "weight"},
    "Mul": {0: "weight", 1: "weight"},
    "Add": {0: "bias", 1: "bias"},
    "LayerNormalization": {1: "weight", 2: "bias"},
    "RMSNormalization": {1: "weight"},
}
LINEAR = frozenset({"MatMul", "Gemm", "MatMulNBits", "MatMulInteger", "QLinearMatMul"})
_INTEGERS = frozenset({DType.INT4, DType.UINT4, DType.INT8, DType.UINT8})


class NotCarried(Exception):
    """A layer is written in a way the checkpoint format has no word for; the message says which."""


@dataclass(frozen=True)
class Place:
    """Where a model keeps a parameter: the operator that reads it, and the value it reads."""

    op: Op
    value: str


def places(model: Model) -> dict[str, Place]:
    """Places of parameters by dotted module path and `weight` or `bias`; what stands in two places at once is left out.

    Exporters store equal tensors once and under one of their names, so modules tell more than names of initialisers.
    """
    found: dict[str, Place] = {}
    doubtful: set[str] = set()
    for op in model.leaves():
        module = module_of(model, op)
        for position, leaf in _OPERANDS.get(op.op, {}).items():
            value = op.inputs[position] if position < len(op.inputs) else None
            if value is None or not _is_parameter(model, value):
                continue
            key = f"{module}.{leaf}"
            first = found.setdefault(key, Place(op, value))
            if (op.op in LINEAR) > (first.op.op in LINEAR):  # what scales or shifts beside a product is not its weight
                found[key] = Place(op, value)
            elif first.value != value and (op.op in LINEAR) == (first.op.op in LINEAR):
                doubtful.add(key)
    return {key: place for key, place in found.items() if key not in doubtful}


def module_of(model: Model, op: Op) -> str:
    """Dotted path of the module an operator lies in."""
    return _INSTANCE.sub("", model.path(op.uid)).replace("/", ".")


def _is_parameter(model: Model, value: str) -> bool:
    source = _dequantiser(model, value)
    stored = (source.inputs[0] if source else value) or ""
    if stored not in model.weights or model.weights.is_absent(stored):
        return False
    shape = model.weights.shape(stored)
    return len(shape) in (1, 2, 3) and prod(shape) > 1  # packed weights have three axes


def quantised(model: Model, op: Op) -> QuantisedLinear | None:
    """The weight of a product as the checkpoint will store it; None where it is plain float.

    Raises:
        NotCarried: it is quantised, but not in a way that linear layers of a checkpoint can be.
    """
    if op.op in ("MatMulInteger", "QLinearMatMul"):
        raise NotCarried("integer operators hide its scales; leave `lower-qop` out for a checkpoint")
    if op.op == "MatMulNBits":
        return _n_bits(model, op)
    source = _dequantiser(model, op.inputs[1] or "")
    if source is None:
        return None
    inner = 1 if op.attrs.get("transB", 0) else 0
    return _with_activations(model, op, _dequantised(model, source, inner))


def plain(model: Model, place: Place) -> Array | None:
    """A parameter as floats, weights of products as [n, k]; None where it is not stored so."""
    array = model.constant(place.value)
    if array is None or array.dtype.kind in "iu":
        return None
    inner_first = place.op.op in ("MatMul", "Gemm") and array.ndim == 2 and not place.op.attrs.get("transB", 0)
    return array.T if inner_first else array


def is_quantised(model: Model, place: Place) -> bool:
    """True where a parameter is stored in integers or float8."""
    return plain(model, place) is None


def quantised_elsewhere(model: Model) -> list[Op]:
    """Operators other than linear layers that read quantised activations."""
    sources = (op for op in model.leaves() if op.op == "DequantizeLinear" and op.inputs[0] not in model.weights)
    readers = (user for source in sources for user in model.users(source.output))
    return [op for op in readers if op.op not in LINEAR | {"QuantizeLinear"}]


def _dequantiser(model: Model, value: str) -> Op | None:
    producer = model.producer(value)
    return producer if producer is not None and producer.op == "DequantizeLinear" else None


def _constant(model: Model, name: str | None) -> Array:
    array = model.constant(name) if name else None
    if array is None:
        raise NotCarried("its weight or its scales are computed")
    return array


def _dequantised(model: Model, op: Op, inner: int) -> QuantisedLinear:
    """The weight behind a DequantizeLinear; `inner` is the axis of its input features."""
    stored = _constant(model, op.inputs[0])
    kind = DType.from_onnx(helper.np_dtype_to_tensor_dtype(stored.dtype))
    if stored.ndim != 2 or kind not in _INTEGERS | {DType.FLOAT8E4M3FN}:
        raise NotCarried(f"its weight is {kind} of rank {stored.ndim}; linear layers are int4, int8 or float8 e4m3")
    grid = _Grid(inner, op.attrs.get("axis", 1) % 2, op.attrs.get("block_size", 0))
    scales = grid.spread(_constant(model, op.inputs[1]), stored.shape)
    zero = _constant(model, op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] else np.zeros(1, stored.dtype)
    zeros = grid.spread(zero, stored.shape, scales.shape[inner])
    if inner == 0:
        stored, scales, zeros = stored.T, scales.T, zeros.T
    group = grid.block if scales.shape[1] > 1 else None
    if kind is DType.FLOAT8E4M3FN:
        return _float8(stored, scales, zeros, group)
    half = 1 << kind.bits - 1 if kind in (DType.UINT4, DType.UINT8) else 0
    integers, offsets = ((array.astype(np.int16) - half).astype(np.int8) for array in (stored, zeros))
    return _integer(integers, scales, offsets, kind.bits, group)


@dataclass(frozen=True)
class _Grid:
    """How a DequantizeLinear spreads its scales over a matrix."""

    inner: int
    axis: int
    block: int

    def spread(self, values: Array, shape: tuple[int, ...], blocks: int = 1) -> Array:
        """Scales or zero points with one row for each group along `inner` and all of the other axis.

        Raises:
            NotCarried: they differ along the input features, but not in groups.
        """
        wanted = (blocks, shape[1]) if self.inner == 0 else (shape[0], blocks)
        if values.size == 1:
            return np.broadcast_to(values.reshape(1, 1), wanted)
        if self.axis == (self.inner if values.ndim == 1 else 1 - self.inner):
            raise NotCarried("its scales run along the input features; checkpoints have one per output or per group")
        return np.expand_dims(values, self.inner) if values.ndim == 1 else values


def _float8(stored: Array, scales: Array, zeros: Array, group: int | None) -> QuantisedLinear:
    if group or zeros.astype(np.float32).any():
        raise NotCarried("float8 weights have one scale per output and no zero points in a checkpoint")
    return QuantisedLinear(Scheme(8, floating=True), stored, scales)


def _integer(integers: Array, scales: Array, zeros: Array, bits: int, group: int | None) -> QuantisedLinear:
    inputs = integers.shape[1]
    if group and inputs % group:
        raise NotCarried(f"its {inputs} input features are no multiple of the group size {group}")
    symmetric = not zeros.any()
    return QuantisedLinear(
        Scheme(bits, False, group, symmetric), integers, scales, None if symmetric else np.ascontiguousarray(zeros)
    )


def _n_bits(model: Model, op: Op) -> QuantisedLinear:
    bits, inputs, outputs, block = (int(op.attrs.get(name, 4)) for name in ("bits", "K", "N", "block_size"))
    optional = [op.inputs[place] if place < len(op.inputs) else None for place in (3, 4)]
    if bits not in (4, 8) or optional[1] or op.attrs.get("weight_prepacked", 0):
        raise NotCarried("only 4 and 8 bits in the order of the input features can be stored")
    blocks = -(-inputs // block)
    integers = _unpacked(_constant(model, op.inputs[1]).reshape(outputs, -1), bits)[:, :inputs]
    scales = _constant(model, op.inputs[2]).reshape(outputs, blocks)
    zeros = np.zeros((1, 1), np.int8)
    if optional[0]:
        stored = _constant(model, optional[0])
        if stored.dtype != np.uint8:
            raise NotCarried("its zero points are no integers")
        zeros = _unpacked(stored.reshape(outputs, -1), bits)[:, :blocks]
    return _integer(integers, scales, zeros, bits, block if blocks > 1 else None)


def _unpacked(octets: Array, bits: int) -> Array:
    """Rows of unsigned integers, lowest bits first, as int8 around their middle."""
    if bits == 4:
        octets = np.stack((octets & 15, octets >> 4), axis=-1).reshape(octets.shape[0], -1)
    return (octets.astype(np.int16) - (1 << bits - 1)).astype(np.int8)


def _with_activations(model: Model, op: Op, linear: QuantisedLinear) -> QuantisedLinear:
    """With the grid of its input, where the format knows one: as wide as the weight, which has no groups or offsets."""
    source = _dequantiser(model, op.inputs[0] or "")
    scheme = linear.scheme
    if source is None or scheme.bits != 8 or scheme.group or not scheme.symmetric:
        return linear
    producer = model.producer(source.inputs[1] or "")
    if producer is not None and producer.op == "DynamicQuantizeLinear":
        return replace(linear, scheme=replace(scheme, activations=Activations.DYNAMIC))
    scale = _constant(model, source.inputs[1])
    zero = _constant(model, source.inputs[2]) if len(source.inputs) > 2 and source.inputs[2] else np.zeros(1, np.int8)
    if scale.size != 1 or scheme.floating != (zero.dtype not in (np.int8, np.uint8)):
        return linear
    offset = 0 if scheme.floating else int(zero.reshape(-1)[0]) - (128 if zero.dtype == np.uint8 else 0)
    activations = Activations.OFFSET if offset else Activations.STATIC
    return replace(
        linear,
        scheme=replace(scheme, activations=activations),
        input_scale=float(scale.reshape(-1)[0]),
        input_zero_point=offset,
    )


def quantises_input(model: Model, op: Op) -> bool:
    """True where an operator reads its input from an integer or float8 grid."""
    return _dequantiser(model, op.inputs[0] or "") is not None


def rescaled_by(model: Model, op: Op) -> Op | None:
    """The product with a constant vector that an operator's input comes from, or None."""
    producer = model.producer(op.inputs[0] or "")
    while producer is not None and producer.op in ("DequantizeLinear", "QuantizeLinear", "Cast", "Reshape"):
        producer = model.producer(producer.inputs[0] or "")
    if producer is None or producer.op not in ("Mul", "Div"):
        return None
    constants = (name for name in producer.inputs if name and name in model.weights)
    return producer if any(prod(model.weights.shape(name)) > 1 for name in constants) else None
