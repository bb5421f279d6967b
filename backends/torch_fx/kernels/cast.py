"""Changes of the element type."""

from __future__ import annotations

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.dtypes import FLOAT8, limits, torch_dtype
from eopt.backends.torch_fx.kernels.registry import kernel
from eopt.ir.errors import InputError
from eopt.ir.types import DType

_E4M3FN_END = 464.0  # half-way between the largest value, 448, and what would come next


def to_float8(x: Tensor, dtype: torch.dtype, saturate: bool = True) -> Tensor:
    """Out of range becomes the largest value, or what the format has instead (NaN, infinity)."""
    if saturate:
        return torch.clamp(x, -torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    if dtype == torch.float8_e4m3fn:  # where torch saturates by itself
        x = torch.where(x.abs() > _E4M3FN_END, float("nan"), x)
    return x.to(dtype)


def _converted(x: Tensor, name: DType | None, saturate: int) -> Tensor:
    dtype = torch_dtype(name)
    if dtype in FLOAT8:
        return to_float8(x if x.is_floating_point() else x.float(), dtype, bool(saturate))
    if name is not None and name.bits < 8:
        return _wrapped(x, name).to(dtype)
    return x.to(dtype)


def _wrapped(x: Tensor, name: DType) -> Tensor:
    """The low bits of an integer, with the sign the type has."""
    low = x.to(torch.int64) & (2**name.bits - 1)
    return low if name.value.startswith("u") else torch.where(low > limits(name)[1], low - 2**name.bits, low)


@kernel("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    """To an ONNX type number."""
    return _converted(x, DType.from_onnx(to), saturate)


@kernel("CastLike")
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, types: tuple[str | None, ...] = ()) -> Tensor:
    """To the type of another tensor."""
    name = DType(types[1]) if types and types[1] else None
    return x.to(like.dtype) if name is None else _converted(x, name, saturate)


@kernel("BitCast")
def bit_cast(x: Tensor, *, to: int) -> Tensor:
    """The same bytes as another type."""
    name = DType.from_onnx(to)
    if name is None or name.bits < 8:
        raise InputError(f"BitCast to {name}: torch has no tensors of this type")
    return x.view(torch_dtype(name))
