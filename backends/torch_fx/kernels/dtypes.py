"""ONNX element types in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from eopt.ir.errors import InputError
from eopt.ir.types import DType

_SAME = ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
DTYPES = {DType(name): getattr(torch, name) for name in (*_SAME, "uint64", "bool", "complex64", "complex128")}
DTYPES |= {
    DType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    DType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    DType.FLOAT8E5M2: torch.float8_e5m2,
    DType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    DType.INT4: torch.int8,  # torch stores sub-byte integers but computes with none: one byte per element
    DType.UINT4: torch.uint8,
    DType.INT2: torch.int8,
    DType.UINT2: torch.uint8,
}
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz)
_VIEWED = {2: np.uint16, 1: np.uint8}


def torch_dtype(dtype: DType | str | int | None) -> torch.dtype:
    """By ONNX name or number.

    Raises:
        InputError: torch has no such type.
    """
    known = DType.from_onnx(dtype) if isinstance(dtype, int) else dtype
    if known not in DTYPES:
        raise InputError(f"element type {known}: torch cannot compute with it")
    return DTYPES[DType(known)]


def limits(dtype: DType | str) -> tuple[int, int]:
    """Least and greatest value of an integer type."""
    bits = DType(dtype).bits
    return (0, 2**bits - 1) if str(dtype).startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor with a copy of the array.

    Raises:
        InputError: torch has no such type.
    """
    from onnx import helper

    if array.dtype.kind in "OUS":
        raise InputError("strings: torch has no string tensors")
    dtype = DType.from_onnx(helper.np_dtype_to_tensor_dtype(array.dtype))
    target = torch_dtype(dtype)
    if dtype is not None and dtype.bits < 8:
        return torch.from_numpy(array.astype(np.int8 if target == torch.int8 else np.uint8))
    array = np.array(array, order="C")
    if target == torch.bfloat16 or target in FLOAT8:
        return torch.from_numpy(array.view(_VIEWED[array.dtype.itemsize])).view(target)
    return torch.from_numpy(array)


def array(value: torch.Tensor) -> np.ndarray[Any, Any]:
    """The tensor on the host, with the NumPy type ONNX uses."""
    value = value.detach().cpu().contiguous()
    if value.dtype != torch.bfloat16 and value.dtype not in FLOAT8:
        result: np.ndarray[Any, Any] = value.numpy()
        return result
    dtype = next(name for name, known in DTYPES.items() if known == value.dtype)
    bits = value.view(torch.uint16 if value.dtype == torch.bfloat16 else torch.uint8).numpy()
    viewed: np.ndarray[Any, Any] = bits.view(dtype.numpy)
    return viewed
