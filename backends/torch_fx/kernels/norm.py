"""Normalisations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.dtypes import torch_dtype
from eopt.backends.torch_fx.kernels.registry import kernel


@kernel("BatchNormalization")
def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float = 1e-5,
               momentum: float = 0.9, training_mode: int = 0, spatial: int = 1,
               outputs: int = 1) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
    """Inference form; the training form returns new running statistics and leaves the old ones alone."""
    if not training_mode:
        y = F.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)
        return y if outputs == 1 else (y, *((mean, variance) * 2)[: outputs - 1])
    axes = (0, *range(2, x.dim()))
    now_mean, now_variance = x.mean(axes), x.var(axes, unbiased=False)
    y = F.batch_norm(x, now_mean, now_variance, scale, bias, False, 0.0, epsilon)
    running = [old * momentum + now * (1 - momentum) for old, now in ((mean, now_mean), (variance, now_variance))]
    return y if outputs == 1 else (y, *running)


@kernel("LayerNormalization")
def layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5,
               stash_type: int = 1, outputs: int = 1) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
    """Over the axes from `axis` on."""
    shape = x.shape[axis:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        y = F.layer_norm(x, shape, scale, bias, epsilon)
    else:
        y = F.layer_norm(x, shape, None, None, epsilon) * scale
        y = y if bias is None else y + bias
    if outputs == 1:
        return y
    axes = tuple(range(axis % x.dim(), x.dim()))
    wide = x.to(torch_dtype(stash_type))
    variance = wide.var(axes, unbiased=False, keepdim=True)
    return (y, wide.mean(axes, keepdim=True), torch.rsqrt(variance + epsilon))[:outputs]


@kernel("RMSNormalization")
def rms_norm(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """Over the axes from `axis` on."""
    shape = x.shape[axis:]
    return F.rms_norm(x, shape, scale, epsilon) if scale.shape == shape else F.rms_norm(x, shape, None, epsilon) * scale


@kernel("com.microsoft.SkipLayerNormalization")
def skip_layer_norm(x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None = None, before: Tensor | None = None, *,
                    epsilon: float = 1e-12, outputs: int = 1) -> Tensor | tuple[Tensor | None, ...]:  # fmt: skip
    """Of a sum, which may be an output too (the fourth)."""
    total = x + skip if before is None else x + skip + before
    y = F.layer_norm(total, x.shape[-1:], scale, bias, epsilon)
    return y if outputs == 1 else (y, None, None, total)[:outputs]


@kernel("GroupNormalization")
def group_norm(x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1,
               opset: int = 21) -> Tensor:  # fmt: skip
    """Scale and bias per group up to opset 20, per channel from 21 on."""
    if opset < 21:
        repeats = x.shape[1] // num_groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return F.group_norm(x, num_groups, scale, bias, epsilon)


@kernel("InstanceNormalization")
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Per sample and channel."""
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@kernel("LRN")
def lrn(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0) -> Tensor:
    """Over neighbouring channels; an even window reaches further up, where torch's reaches further down."""
    channels = x.shape[1]
    squares = F.pad((x * x).movedim(1, -1), ((size - 1) // 2, size // 2))
    summed = squares.unfold(-1, size, 1).sum(-1)[..., :channels].movedim(-1, 1)
    return x / (bias + alpha / size * summed) ** beta


@kernel("MeanVarianceNormalization")
def mean_variance(x: Tensor, *, axes: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    """Zero mean and unit variance."""
    spread = x.var(axes, unbiased=False, keepdim=True).sqrt() + 1e-9
    return (x - x.mean(axes, keepdim=True)) / spread


@kernel("LpNormalization")
def lp_norm(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Unit length along an axis; what has no length stays zero."""
    length = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(length == 0, torch.zeros_like(x), x / torch.where(length == 0, torch.ones_like(length), length))
