"""Element types, symbolic shapes and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from eopt.ir.errors import UsageError


class DType(StrEnum):
    """An ONNX element type, spelt as ONNX spells it in lower case."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT8E4M3FN = "float8e4m3fn"
    FLOAT8E4M3FNUZ = "float8e4m3fnuz"
    FLOAT8E5M2 = "float8e5m2"
    FLOAT8E5M2FNUZ = "float8e5m2fnuz"
    FLOAT8E8M0 = "float8e8m0"
    FLOAT4E2M1 = "float4e2m1"
    INT2 = "int2"
    INT4 = "int4"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT2 = "uint2"
    UINT4 = "uint4"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    BOOL = "bool"
    STRING = "string"
    COMPLEX64 = "complex64"
    COMPLEX128 = "complex128"

    @property
    def onnx(self) -> int:
        """Number of this type in `onnx.TensorProto.DataType`."""
        return int(TensorProto.DataType.Value(_ONNX_NAMES.get(self, self.name)))

    @property
    def numpy(self) -> np.dtype[Any]:
        """NumPy type of a host array; sub-byte and 8-bit floats come from ml_dtypes."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.onnx))

    @property
    def bits(self) -> int:
        """Bits one element occupies in a packed tensor (a string counts as a 64-bit reference)."""
        return _BITS[self]

    @property
    def is_float(self) -> bool:
        """True for real floating-point types."""
        return self.value.startswith(("float", "bfloat"))

    @classmethod
    def from_onnx(cls, number: int) -> DType | None:
        """The type with this `TensorProto.DataType` number; None for UNDEFINED and types newer than this release."""
        return _FROM_ONNX.get(number)

    @classmethod
    def parse(cls, text: str) -> DType:
        """Read a type as users spell it (`fp16`, `bf16`, `float8_e4m3` …).

        Raises:
            UsageError: no such type.
        """
        name = text.strip().lower()
        name = _ALIASES.get(name, name)
        if name not in cls._value2member_map_:
            raise UsageError(f"dtype {text!r}: unknown; known are {', '.join(cls)}")
        return cls(name)


_ONNX_NAMES = {DType.FLOAT32: "FLOAT", DType.FLOAT64: "DOUBLE"}
_SIZES = {"2": 2, "4": 4, "8": 8, "16": 16, "32": 32, "64": 64, "128": 128}
_ALIASES = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bf16": "bfloat16",
    "fp8": "float8e4m3fn",
    "float8": "float8e4m3fn",
    "float8_e4m3": "float8e4m3fn",
    "float8_e5m2": "float8e5m2",
    "float4_e2m1": "float4e2m1",
}


def _bits(dtype: DType) -> int:
    if dtype in (DType.BOOL, DType.STRING):
        return 8 if dtype is DType.BOOL else 64
    digits = dtype.value.removeprefix("bfloat").removeprefix("float").removeprefix("uint").removeprefix("int")
    return _SIZES[digits.removeprefix("complex").split("e")[0]]


_BITS = {dtype: _bits(dtype) for dtype in DType}
_FROM_ONNX = {
    dtype.onnx: dtype
    for dtype in DType
    if _ONNX_NAMES.get(dtype, dtype.name) in TensorProto.DataType.keys()  # noqa: SIM118
}

Dim = int | str
"""An extent, or the name of a symbolic one that is bound late."""

Shape = tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor name with what is known of it: `dtype` None for non-tensors, `shape` None for unknown rank."""

    id: str
    dtype: DType | None = None
    shape: Shape | None = None


def bind(shape: Shape, bindings: Mapping[str, int]) -> Shape:
    """Replace the symbolic dims that have a value."""
    return tuple(bindings.get(dim, dim) if isinstance(dim, str) else dim for dim in shape)


def concrete(shape: Shape | None) -> tuple[int, ...] | None:
    """The shape as integers, or None while a dim is symbolic or the rank unknown."""
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return tuple(int(dim) for dim in shape)


def numel(shape: Shape | None) -> int | None:
    """Number of elements, None while unknown."""
    dims = concrete(shape)
    return None if dims is None else prod(dims)
