"""One torch function per ONNX operator, with ONNX semantics (https://onnx.ai/onnx/operators/)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.ir.errors import InputError

KERNELS: dict[str, Callable[..., Any]] = {}


def kernel(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function for these operators; `domain.Name` outside the default domain."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        KERNELS.update(dict.fromkeys(names, function))
        return function

    return register


def _simple(name: str, function: Callable[..., Any]) -> None:
    """Register a torch function that takes the operator's inputs and none of its attributes."""
    KERNELS[name] = lambda *inputs, **attributes: function(*inputs)
    KERNELS[name].__name__ = name.lower()


_SIMPLE = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Pow": torch.pow,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Log": torch.log,
    "Neg": torch.neg,
    "Abs": torch.abs,
    "Tanh": torch.tanh,
    "Cos": torch.cos,
    "Sin": torch.sin,
    "Sigmoid": torch.sigmoid,
    "Relu": torch.relu,
    "Reciprocal": torch.reciprocal,
    "Not": torch.logical_not,
    "And": torch.logical_and,
    "Or": torch.logical_or,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "Less": torch.lt,
    "GreaterOrEqual": torch.ge,
    "LessOrEqual": torch.le,
    "Where": torch.where,
    "MatMul": torch.matmul,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Min": torch.minimum,
    "Max": torch.maximum,
}
for _name, _function in _SIMPLE.items():
    _simple(_name, _function)


@kernel("Expand")
def expand(x: Tensor, shape: list[int], **attributes: Any) -> Tensor:
    """Broadcasts both ways, as ONNX does."""
    return x.broadcast_to(torch.broadcast_shapes(x.shape, tuple(shape)))


@kernel("Div")
def div(a: Tensor, b: Tensor, **attributes: Any) -> Tensor:
    """Integer division truncates."""
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


@kernel("Gelu", "com.microsoft.Gelu", "com.microsoft.FastGelu")
def gelu(x: Tensor, approximate: str = "none", **attributes: Any) -> Tensor:
    """Exact or tanh form."""
    return F.gelu(x, approximate=approximate)


@kernel("Clip")
def clip(x: Tensor, low: float | None = None, high: float | None = None, **attributes: Any) -> Tensor:
    """Bounds are inputs from opset 11 on."""
    return torch.clamp(x, low, high)


@kernel("HardSigmoid")
def hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5, **attributes: Any) -> Tensor:
    """max(0, min(1, alpha x + beta))."""
    return torch.clamp(alpha * x + beta, 0, 1)


@kernel("Cast", "CastLike")
def cast(x: Tensor, like: Tensor | None = None, to: int = 1, **attributes: Any) -> Tensor:
    """To an ONNX type number, or to the type of a second input."""
    return x.to(like.dtype if like is not None else _DTYPES[to])


_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


@kernel("Gemm")
def gemm(
    a: Tensor, b: Tensor, c: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
    transB: int = 0, **attributes: Any,
) -> Tensor:  # fmt: skip
    """alpha A B + beta C."""
    if alpha == beta == 1.0 and not transA and (c is None or c.dim() == 1):
        return F.linear(a, b if transB else b.T, c)
    product = alpha * torch.matmul(a.T if transA else a, b.T if transB else b)
    return product if c is None else product + beta * c


@kernel("Conv")
def conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, strides: tuple[int, ...] = (), pads: tuple[int, ...] = (),
    dilations: tuple[int, ...] = (), group: int = 1, auto_pad: str = "NOTSET", **attributes: Any,
) -> Tensor:  # fmt: skip
    """1 to 3 spatial dims; unequal pads are made explicit."""
    rank = weight.dim() - 2
    strides, dilations, pads = strides or (1,) * rank, dilations or (1,) * rank, pads or (0,) * (2 * rank)
    if auto_pad not in ("NOTSET", "VALID"):
        raise InputError(f"Conv with auto_pad={auto_pad}: no torch kernel; simplify the model first")
    begins, ends = pads[:rank], pads[rank:]
    if begins != ends:
        x, begins = F.pad(x, _torch_pads(begins, ends)), (0,) * rank
    function = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return function(x, weight, bias, strides, begins, dilations, group)


def _torch_pads(begins: tuple[int, ...], ends: tuple[int, ...]) -> list[int]:
    return [pad for pair in zip(reversed(begins), reversed(ends), strict=True) for pad in pair]


@kernel("BatchNormalization")
def batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float = 1e-5, **attributes: Any
) -> Tensor:
    """Inference form."""
    return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)


@kernel("LayerNormalization")
def layer_norm(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, axis: int = -1, epsilon: float = 1e-5, **attributes: Any
) -> Tensor:
    """Over the axes from `axis` on."""
    return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


@kernel("RMSNormalization")
def rms_norm(x: Tensor, scale: Tensor, axis: int = -1, epsilon: float = 1e-5, **attributes: Any) -> Tensor:
    """Over the axes from `axis` on."""
    return F.rms_norm(x, x.shape[axis:], scale, epsilon)


@kernel("Softmax")
def softmax(x: Tensor, axis: int = -1, **attributes: Any) -> Tensor:
    """From opset 13 on, over one axis."""
    return torch.softmax(x, axis)


@kernel("Attention")
def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: int = 0, scale: float | None = None,
    q_num_heads: int = 0, kv_num_heads: int = 0, **attributes: Any,
) -> Tensor:  # fmt: skip
    """Opset 23 without a cache: 4-D inputs, or 3-D inputs with head counts."""
    flat = q.dim() == 3
    if flat:
        q, k, v = _heads(q, q_num_heads), _heads(k, kv_num_heads), _heads(v, kv_num_heads)
    y = F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=bool(is_causal), scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return y.transpose(1, 2).flatten(2) if flat else y


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _reduction(name: str, function: Callable[..., Tensor]) -> None:
    def reduce(x: Tensor, axes: list[int] | None = None, keepdims: int = 1, **attributes: Any) -> Tensor:
        chosen = attributes.get("axes", axes)
        return function(x, tuple(chosen) if chosen else tuple(range(x.dim())), bool(keepdims))

    KERNELS[name] = reduce


_reduction("ReduceMean", torch.mean)
_reduction("ReduceSum", torch.sum)
_reduction("ReduceMax", torch.amax)


@kernel("GlobalAveragePool")
def global_average_pool(x: Tensor, **attributes: Any) -> Tensor:
    """Mean over the spatial dims, kept."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def _pooling(name: str, functions: tuple[Callable[..., Tensor], ...]) -> None:
    def pool(
        x: Tensor, kernel_shape: tuple[int, ...] = (), strides: tuple[int, ...] = (), pads: tuple[int, ...] = (),
        ceil_mode: int = 0, count_include_pad: int = 0, **attributes: Any,
    ) -> Tensor:  # fmt: skip
        rank = len(kernel_shape)
        pads = pads or (0,) * (2 * rank)
        extra = {"count_include_pad": bool(count_include_pad)} if name == "AveragePool" else {}
        return functions[rank - 1](
            x, kernel_shape, strides or (1,) * rank, pads[:rank], ceil_mode=bool(ceil_mode), **extra
        )

    KERNELS[name] = pool


_pooling("MaxPool", (F.max_pool1d, F.max_pool2d, F.max_pool3d))
_pooling("AveragePool", (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d))


@kernel("Reshape")
def reshape(x: Tensor, shape: list[int], allowzero: int = 0, **attributes: Any) -> Tensor:
    """0 copies an extent, -1 is inferred."""
    return x.reshape([x.shape[axis] if dim == 0 and not allowzero else dim for axis, dim in enumerate(shape)])


@kernel("Flatten")
def flatten(x: Tensor, axis: int = 1, **attributes: Any) -> Tensor:
    """To two dims."""
    return x.reshape(x.shape[:axis].numel(), -1)


@kernel("Transpose")
def transpose(x: Tensor, perm: tuple[int, ...] = (), **attributes: Any) -> Tensor:
    """Reversed by default."""
    return x.permute(perm or tuple(reversed(range(x.dim()))))


@kernel("Squeeze")
def squeeze(x: Tensor, axes: list[int] | None = None, **attributes: Any) -> Tensor:
    """All axes of extent one by default."""
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


@kernel("Unsqueeze")
def unsqueeze(x: Tensor, axes: list[int], **attributes: Any) -> Tensor:
    """Axes count in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@kernel("Concat")
def concat(*inputs: Tensor, axis: int = 0, **attributes: Any) -> Tensor:
    """Along an existing axis."""
    return torch.cat(inputs, axis)


@kernel("Split")
def split(
    x: Tensor, sizes: list[int] | None = None, axis: int = 0, num_outputs: int = 0, outputs: int = 1, **attributes: Any
) -> tuple[Tensor, ...]:
    """By sizes, or into equal parts of which the last may be smaller."""
    return tuple(torch.split(x, sizes or -(-x.shape[axis] // (num_outputs or outputs)), axis))


@kernel("Slice")
def slice_(
    x: Tensor, starts: list[int], ends: list[int], axes: list[int] | None = None, steps: list[int] | None = None,
    **attributes: Any,
) -> Tensor:  # fmt: skip
    """Positive steps only; torch has no others."""
    index = [slice(None)] * x.dim()
    for number, axis in enumerate(axes or range(len(starts))):
        index[axis] = slice(starts[number], min(ends[number], x.shape[axis]), steps[number] if steps else 1)
    return x[tuple(index)]


@kernel("Gather")
def gather(x: Tensor, indices: Tensor, axis: int = 0, **attributes: Any) -> Tensor:
    """Rows of `x` along an axis."""
    if axis == 0 and x.dim() == 2 and x.is_floating_point():
        return F.embedding(indices, x)
    picked = torch.index_select(x, axis, indices.reshape(-1) % x.shape[axis])
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis:][1:])


@kernel("QuantizeLinear")
def quantize_linear(x: Tensor, scale: Tensor, zero: Tensor | None = None, axis: int = 1, **attributes: Any) -> Tensor:
    """Round half to even, then saturate."""
    dtype = zero.dtype if zero is not None else torch.uint8
    limits = torch.iinfo(dtype)
    scale, offset = _along(scale, x, axis), 0 if zero is None else _along(zero, x, axis).to(x.dtype)
    return torch.clamp(torch.round(x / scale) + offset, limits.min, limits.max).to(dtype)


@kernel("DequantizeLinear")
def dequantize_linear(x: Tensor, scale: Tensor, zero: Tensor | None = None, axis: int = 1, **attributes: Any) -> Tensor:
    """(x - zero) scale, in the type of the scale."""
    wide = x.to(torch.int32)
    if zero is not None:
        wide = wide - _along(zero, x, axis).to(torch.int32)
    return wide.to(scale.dtype) * _along(scale, x, axis)


def _along(parameter: Tensor, x: Tensor, axis: int) -> Tensor:
    """A per-axis parameter shaped to broadcast against `x`; scalars stay."""
    if parameter.dim() == 0 or parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return parameter.reshape(shape)
