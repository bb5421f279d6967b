"""A tensor message has to hold as many elements as its shape says: checked once, when a model is read."""

from __future__ import annotations

from math import prod

from onnx import TensorProto, helper, numpy_helper

from eopt.ir.errors import InputError
from eopt.ir.types import DType

MAX_ELEMENTS = 1 << 48  # zero-sized tensors may say anything else of their other dims


def check(tensor: TensorProto, raw_bytes: int | None = None) -> None:
    """Compare shape, type and stored data; `raw_bytes` is the length of raw data that was taken out.

    Raises:
        InputError: they contradict each other, or the element type is unknown.
    """
    where = f"tensor {tensor.name!r}"
    if any(dim < 0 for dim in tensor.dims) or prod(max(dim, 1) for dim in tensor.dims) > MAX_ELEMENTS:
        raise InputError(f"{where}: shape {list(tensor.dims)[:8]} cannot be")
    if tensor.HasField("segment"):
        raise InputError(f"{where}: is stored in segments, which nothing reads")
    dtype = DType.from_onnx(tensor.data_type)
    if dtype is None:
        return _check_foreign(tensor, where)
    if raw_bytes is None and tensor.HasField("raw_data"):
        raw_bytes = len(tensor.raw_data)
    elements = prod(tensor.dims)
    if dtype is DType.STRING:
        return _check_strings(tensor, elements, raw_bytes, where)
    packed = -(-elements * dtype.bits // 8)
    if raw_bytes is not None:
        return _compare(raw_bytes, packed, "bytes", where)
    parts = 2 if dtype in (DType.COMPLEX64, DType.COMPLEX128) else 1
    stored = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
    return _compare(stored, packed if dtype.bits < 8 else elements * parts, "numbers", where)


def _check_strings(tensor: TensorProto, elements: int, raw_bytes: int | None, where: str) -> None:
    if raw_bytes is not None:
        raise InputError(f"{where}: strings cannot be raw data")
    _compare(len(tensor.string_data), elements, "strings", where)
    try:
        for item in tensor.string_data:
            item.decode()
    except UnicodeDecodeError:
        raise InputError(f"{where}: holds a string that is not UTF-8, which ONNX demands") from None


def _check_foreign(tensor: TensorProto, where: str) -> None:
    """Types onnx knows and eopt does not yet: they pass through, if they can be decoded at all."""
    try:
        numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: element type {tensor.data_type} is unknown here, or its data is damaged") from None


def _compare(stored: int, needed: int, unit: str, where: str) -> None:
    if stored != needed:
        raise InputError(f"{where}: holds {stored} {unit}, its type and shape need {needed}")
