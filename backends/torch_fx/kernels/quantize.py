"""Quantisation, and operators on quantised values."""

from __future__ import annotations

import torch
from torch import Tensor

from eopt.backends.torch_fx.kernels.cast import to_float8
from eopt.backends.torch_fx.kernels.conv import conv
from eopt.backends.torch_fx.kernels.dtypes import DTYPES, FLOAT8, limits, torch_dtype
from eopt.backends.torch_fx.kernels.registry import kernel
from eopt.backends.torch_fx.kernels.scaled import int_matmul
from eopt.ir.types import DType

Types = tuple[str | None, ...]


def _along(parameter: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A parameter shaped to broadcast against `x`: one, one per place of an axis, or one per block of it."""
    if parameter.numel() == 1:
        return parameter.reshape(())
    if block:
        return parameter.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if parameter.dim() != 1:
        return parameter
    shape = [1] * x.dim()
    shape[axis] = -1
    return parameter.reshape(shape)


def _target(zero: Tensor | None, output_dtype: int, types: Types) -> DType:
    """Said by the zero point, else by the attribute, else uint8."""
    told = types[2] if len(types) > 2 else None
    if told:
        return DType(told)
    if output_dtype:
        return DType.from_onnx(output_dtype) or DType.UINT8
    return DType.UINT8 if zero is None else next(name for name, dtype in DTYPES.items() if dtype == zero.dtype)


def _levels(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: int, name: DType) -> Tensor:
    """Real-valued levels: rounded half to even and cut to the range of an integer type, plain for float8."""
    ratio = x / _along(scale, x, axis, block).to(x.dtype)
    if not name.value.startswith(("int", "uint")):
        return ratio
    offset = 0 if zero is None else _along(zero, x, axis, block).to(x.dtype)
    return torch.clamp(torch.round(ratio) + offset, *limits(name))


@kernel("QuantizeLinear")
def quantize_linear(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1, block_size: int = 0,
                    output_dtype: int = 0, saturate: int = 1, precision: int = 0,
                    types: Types = ()) -> Tensor:  # fmt: skip
    """Scaled, rounded, saturated."""
    name = _target(zero, output_dtype, types)
    x = x.float() if not x.is_floating_point() else x
    x = x.to(torch_dtype(precision)) if precision else x
    levels = _levels(x, scale, zero, axis, block_size, name)
    dtype = torch_dtype(name)
    return to_float8(levels, dtype, bool(saturate)) if dtype in FLOAT8 else levels.to(dtype)


@kernel("eopt.FakeQuantize")
def fake_quantize(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1, block_size: int = 0,
                  output_dtype: int = 0, saturate: int = 1, precision: int = 0,
                  types: Types = ()) -> Tensor:  # fmt: skip
    """The levels as floats: exact forwards; backwards the identity inside the range and nothing outside of it."""
    name = _target(zero, output_dtype, types)
    ratio = x / _along(scale, x, axis, block_size).to(x.dtype)
    exact = _levels(x, scale, zero, axis, block_size, name)
    if name.value.startswith("float8"):
        dtype = torch_dtype(name)
        passed = torch.clamp(ratio, -torch.finfo(dtype).max, torch.finfo(dtype).max)
        exact = to_float8(exact, dtype, bool(saturate)).to(x.dtype)
    else:
        shift = 0 if zero is None else _along(zero, x, axis, block_size).to(x.dtype)
        passed = torch.clamp(ratio + shift, *limits(name))
    return exact.detach() + (passed - passed.detach())


@kernel("DequantizeLinear")
def dequantize_linear(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1, block_size: int = 0,
                      output_dtype: int = 0) -> Tensor:  # fmt: skip
    """(x - zero) scale, in the type of the scale; integers are subtracted as integers."""
    dtype = torch_dtype(output_dtype) if output_dtype else scale.dtype
    if zero is None or x.dtype in FLOAT8:
        levels = x.to(scale.dtype)
    elif x.is_floating_point():
        levels = x - _along(zero, x, axis, block_size).to(x.dtype)
    else:
        levels = (x.to(torch.int32) - _along(zero, x, axis, block_size).to(torch.int32)).to(scale.dtype)
    return (levels * _along(scale, x, axis, block_size)).to(dtype)


@kernel("DynamicQuantizeLinear")
def dynamic_quantize_linear(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To uint8 by the range of the data, which always contains 0."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.clamp(torch.round(-low / scale), 0, 255)
    return torch.clamp(torch.round(x / scale) + zero, 0, 255).to(torch.uint8), scale, zero.to(torch.uint8)


@kernel("MatMulInteger")
def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    """Exact, in int32."""
    return int_matmul(a, b, a_zero, b_zero)


def _requantized(total: Tensor, factor: Tensor, zero: Tensor, like: Tensor) -> Tensor:
    bounds = torch.iinfo(like.dtype)
    return torch.clamp(torch.round(total.float() * factor) + zero.float(), bounds.min, bounds.max).to(like.dtype)


@kernel("QLinearMatMul")
def qlinear_matmul(a: Tensor, a_scale: Tensor, a_zero: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor,
                   y_scale: Tensor, y_zero: Tensor) -> Tensor:  # fmt: skip
    """Summed as integers, then requantised."""
    total = int_matmul(a, b, a_zero, b_zero)
    rows = a_scale.unsqueeze(-1) if a_scale.dim() == 1 and a_scale.numel() > 1 else a_scale
    return _requantized(total, rows.float() * b_scale.float() / y_scale.float(), y_zero, y_zero)


@kernel("ConvInteger")
def conv_integer(x: Tensor, weight: Tensor, x_zero: Tensor | None = None, weight_zero: Tensor | None = None, *,
                 strides: tuple[int, ...] = (), pads: tuple[int, ...] = (), dilations: tuple[int, ...] = (),
                 group: int = 1, auto_pad: str = "NOTSET", kernel_shape: tuple[int, ...] = ()) -> Tensor:  # fmt: skip
    """torch has no integer convolution; float64 sums such integers exactly."""
    wide, wide_weight = x.double(), weight.double()
    wide = wide if x_zero is None else wide - x_zero.double()
    if weight_zero is not None:
        wide_weight = wide_weight - _along(weight_zero.double(), weight, 0, 0)
    y = conv(wide, wide_weight, None, strides=strides, pads=pads, dilations=dilations, group=group, auto_pad=auto_pad)
    return y.to(torch.int32)


@kernel("QLinearConv")
def qlinear_conv(x: Tensor, x_scale: Tensor, x_zero: Tensor, weight: Tensor, weight_scale: Tensor, weight_zero: Tensor,
                 y_scale: Tensor, y_zero: Tensor, bias: Tensor | None = None, *, strides: tuple[int, ...] = (),
                 pads: tuple[int, ...] = (), dilations: tuple[int, ...] = (), group: int = 1,
                 auto_pad: str = "NOTSET", kernel_shape: tuple[int, ...] = ()) -> Tensor:  # fmt: skip
    """Summed as integers, the int32 bias included, then requantised."""
    total = conv_integer(x, weight, x_zero, weight_zero, strides=strides, pads=pads, dilations=dilations, group=group,
                         auto_pad=auto_pad)  # fmt: skip
    spatial = (1,) * (x.dim() - 2)
    total = total if bias is None else total + bias.reshape(-1, *spatial)
    factor = x_scale.float() * weight_scale.float() / y_scale.float()
    factor = factor.reshape(-1, *spatial) if factor.numel() > 1 else factor
    return _requantized(total, factor, y_zero, y_zero)
