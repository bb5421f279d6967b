"""Products on the integer and float8 units, exact where integers are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.dtypes import torch_dtype
from eopt.backends.torch_fx.kernels.registry import kernel

_EXACT_IN_FLOAT32 = 2**24 // (255 * 255)  # so many products of 8-bit integers sum without rounding


def signed(x: Tensor) -> Tensor:
    """uint8 less 128, as int8."""
    return x if x.dtype == torch.int8 else (x ^ 128).view(torch.int8)


def int_mm(a: Tensor, b: Tensor) -> Tensor:
    """int8 (m, k) times int8 (k, n) in int32. CUDA wants m > 16 and k, n in eights, so zeros are added and cut off."""
    if a.device.type == "cpu":
        return torch._int_mm(a, b)
    (m, k), n = a.shape, b.shape[1]
    rows, depth, columns = max(17 - m, 0), -k % 8, -n % 8
    if rows or depth:
        a = F.pad(a, (0, depth, 0, rows))
    if depth or columns:
        b = F.pad(b.T, (0, depth, 0, columns)).T
    return torch._int_mm(a, b)[:m, :n]


@kernel("eopt.Int8Linear")
def int8_linear(x: Tensor, weight: Tensor, offset: Tensor, scale: Tensor, bias: Tensor | None = None, *,
                dtype: int = 1) -> Tensor:  # fmt: skip
    """(x - zero) weight^T, with the zero point's part of the sum taken off at the end, then scaled to real numbers."""
    flat = signed(x).reshape(-1, x.shape[-1])
    total = (int_mm(flat, weight.T) - offset).reshape(*x.shape[:-1], -1)
    y = (total.float() * scale).to(torch_dtype(dtype))
    return y if bias is None else y + bias


@kernel("eopt.Float8Linear")
def float8_linear(x: Tensor, weight: Tensor, scale_x: Tensor, scale_weight: Tensor, bias: Tensor | None = None, *,
                  dtype: int = 1) -> Tensor:  # fmt: skip
    """x weight^T, scaled to real numbers."""
    y = torch._scaled_mm(
        x.reshape(-1, x.shape[-1]), weight.T, scale_a=scale_x, scale_b=scale_weight, out_dtype=torch_dtype(dtype)
    ).reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def int_matmul(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    """(a - a_zero)(b - b_zero) in int32, exact; zero points are scalars, per row of a and per column of b."""
    if b.dim() == 2 and a.dim() >= 2:
        return _corrected(a, b, a_zero, b_zero)
    wide = torch.float32 if a.shape[-1] <= _EXACT_IN_FLOAT32 else torch.float64
    a_wide, b_wide = a.to(wide), b.to(wide)
    a_wide = a_wide if a_zero is None else a_wide - _rows(a_zero, a).to(wide)
    b_wide = b_wide if b_zero is None else b_wide - b_zero.to(wide)
    return torch.matmul(a_wide, b_wide).to(torch.int32)


def _rows(zero: Tensor, a: Tensor) -> Tensor:
    """A zero point per row, as a column."""
    return zero.unsqueeze(-1) if zero.dim() == 1 and zero.numel() > 1 and a.dim() > 1 else zero


def _corrected(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    """On the unit for int8, then without what the zero points added."""
    total = int_mm(signed(a).reshape(-1, a.shape[-1]), signed(b)).reshape(*a.shape[:-1], b.shape[-1])
    a_off, b_off = _offset(a, None if a_zero is None else _rows(a_zero, a)), _offset(b, b_zero)
    if a_off is not None:
        total = total - a_off * signed(b).sum(0, dtype=torch.int32)
    if b_off is not None:
        total = total - signed(a).sum(-1, keepdim=True, dtype=torch.int32) * b_off
    return total if a_off is None or b_off is None else total + a.shape[-1] * a_off * b_off


def _offset(x: Tensor, zero: Tensor | None) -> Tensor | None:
    """The zero point of the signed form; None for 0."""
    shift = 128 if x.dtype == torch.uint8 else 0
    if zero is None:
        return None if not shift else torch.tensor(-shift, dtype=torch.int32, device=x.device)
    return zero.to(torch.int32) - shift
