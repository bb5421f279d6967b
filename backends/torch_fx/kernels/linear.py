"""Matrix products in floating point."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from eopt.backends.torch_fx.kernels.registry import kernel, plain

plain({"Det": torch.det})


@kernel("MatMul", widen=True)
def matmul(a: Tensor, b: Tensor) -> Tensor:
    """As NumPy."""
    return torch.matmul(a, b)


@kernel("Gemm")
def gemm(a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
         transB: int = 0) -> Tensor:  # fmt: skip
    """alpha A B + beta C."""
    if alpha == beta == 1.0 and not transA and (c is None or c.dim() == 1) and a.is_floating_point():
        return F.linear(a, b if transB else b.T, c)
    product = torch.matmul(a.T if transA else a, b.T if transB else b)
    product = product if alpha == 1.0 else (alpha * product).to(a.dtype)
    return product if c is None else product + (c if beta == 1.0 else (beta * c).to(a.dtype))


@kernel("eopt.SparseLinear")
def sparse_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x times a (out, in) weight whose tensor type brings its own 2:4 sparse product."""
    return F.linear(x, weight, bias)


@kernel("Einsum")
def einsum(*inputs: Tensor, equation: str) -> Tensor:
    """As NumPy."""
    return torch.einsum(equation.replace(" ", ""), *inputs)
