"""Operators that make tensors: from shapes, ranges, indices, chance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.dtypes import torch_dtype
from eopt.backends.torch_fx.kernels.registry import kernel


@kernel("Shape")
def shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Known when it runs, so symbolic dims need no fixing."""
    return torch.tensor(tuple(x.shape)[start:end], dtype=torch.int64, device=x.device)


@kernel("Size")
def size(x: Tensor) -> Tensor:
    """Number of elements."""
    return torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@kernel("ConstantOfShape", host=(0,))
def constant_of_shape(extents: list[int], *, value: Tensor | None = None) -> Tensor:
    """Filled with one value, a float32 zero by default."""
    return torch.zeros(extents) if value is None else value.reshape(()).expand(extents).clone()


@kernel("Range")
def range_(start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Made by counting, so that floats do not drift."""
    count = max(int(torch.ceil((limit - start).double() / delta.double())), 0)
    steps = torch.arange(count, device=start.device)
    return (start + steps.to(start.dtype) * delta).to(start.dtype)


@kernel("EyeLike")
def eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """Ones on a diagonal."""
    ones = torch.ones(x.shape, dtype=torch.float32, device=x.device)
    return torch.triu(torch.tril(ones, k), k).to(x.dtype if dtype is None else torch_dtype(dtype))


@kernel("OneHot", host=(1,))
def one_hot(indices: Tensor, depth: float | list[float], values: Tensor, *, axis: int = -1) -> Tensor:
    """Off and on values; indices out of range light nothing."""
    extent = int(depth[0] if isinstance(depth, list) else depth)
    wrapped = torch.where(indices < 0, indices + extent, indices).unsqueeze(axis)
    shape = [1] * wrapped.dim()
    shape[axis] = extent
    lit = wrapped == torch.arange(extent, device=indices.device).reshape(shape)
    return torch.where(lit, values[1], values[0])


@kernel("Dropout", host=(1, 2))
def dropout(x: Tensor, share: float | None = None, training: bool | None = None, *, ratio: float = 0.5, seed: int = 0,
            outputs: int = 1) -> Tensor | tuple[Tensor, Tensor]:  # fmt: skip
    """Inference keeps everything; training draws anew at every run."""
    share = ratio if share is None else share
    kept = torch.ones_like(x, dtype=torch.bool)
    if training and share:
        kept = torch.rand_like(x) >= share
        x = torch.where(kept, x / (1 - share), torch.zeros_like(x))
    return x if outputs == 1 else (x, kept)


@kernel("Bernoulli")
def bernoulli(x: Tensor, *, dtype: int | None = None, seed: float = 0.0) -> Tensor:
    """One with the given probability."""
    return torch.bernoulli(x).to(x.dtype if dtype is None else torch_dtype(dtype))


@kernel("RandomUniformLike")
def random_uniform_like(x: Tensor, *, dtype: int | None = None, high: float = 1.0, low: float = 0.0,
                        seed: float = 0.0) -> Tensor:  # fmt: skip
    """Between low and high."""
    kind = x.dtype if dtype is None else torch_dtype(dtype)
    return torch.rand(x.shape, dtype=kind, device=x.device) * (high - low) + low


@kernel("RandomNormalLike")
def random_normal_like(x: Tensor, *, dtype: int | None = None, mean: float = 0.0, scale: float = 1.0,
                       seed: float = 0.0) -> Tensor:  # fmt: skip
    """With a mean and a standard deviation."""
    kind = x.dtype if dtype is None else torch_dtype(dtype)
    return torch.randn(x.shape, dtype=kind, device=x.device) * scale + mean


@kernel("AffineGrid", host=(1,))
def affine_grid(theta: Tensor, extents: list[int], *, align_corners: int = 0) -> Tensor:
    """Sampling positions of an affine map."""
    return F.affine_grid(theta, extents, align_corners=bool(align_corners))
