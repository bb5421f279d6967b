"""Matrix products. Flops are 2 m n k per product: one multiplication and one addition for each term."""

from __future__ import annotations

from math import prod

from eopt.ir.ops import OpView, Role, Tensor, Tie, Trait, Work, declare
from eopt.ir.opset.shared import matrix, panels, wholes
from eopt.ir.types import DType

Member = tuple[str, int, int]


def product(view: OpView, k: int, dtype: DType, right: int = 1) -> Work:
    """2 k operations per element of the first result; the right operand is the input at position `right`."""
    a, b, y = view.input(0), view.input(right), view.outputs[0]
    if len(b.shape) > 2:
        count, m = prod(y.shape[:-2]), y.shape[-2]
    else:
        count, m = 1, prod(y.shape[:-1])
    again = panels(m, y.shape[-1] if y.shape else 1, a.nbytes / max(1, count), b.nbytes / max(1, count), count)
    return matrix(view, 2.0 * y.numel * k, dtype, again)


def _matmul(view: OpView) -> Work:
    """2 m n k per product."""
    a = view.input(0)
    return product(view, a.shape[-1], DType.INT8 if view.op.endswith("Integer") else a.dtype)


def _gemm(view: OpView) -> Work:
    """2 m n k; scaling and bias are not counted."""
    a = view.input(0)
    return product(view, a.shape[0 if view.attrs.get("transA", 0) else 1], a.dtype)


def _qlinear_matmul(view: OpView) -> Work:
    """2 m n k on integers."""
    return product(view, view.input(0).shape[-1], DType.INT8, right=3)


def product_axes(view: OpView, right: int, per_column: tuple[int, ...] = ()) -> tuple[Tie, ...]:
    """Batch, rows, columns and the contracted axis; `per_column` are inputs with one value per column, as scales."""
    a, b, y = view.input(0), view.input(right), view.outputs[0]
    port = f"x{right}"
    if len(a.shape) < 2 or len(b.shape) < 2:
        return wholes(view, ())
    rank = len(y.shape)
    rows, inner_a = (1, 2) if view.attrs.get("transA", 0) else (2, 1)
    columns, inner_b = (2, 1) if view.attrs.get("transB", 0) else (1, 2)
    ties = [_batch_tie(axis, rank, a, b, y, port) for axis in range(rank - 2)]
    ties.append(Tie((("x0", len(a.shape) - rows, 1), ("y0", rank - 2, 1)), Role.MAP))
    along = _columns(view, per_column, y.shape[-1])
    ties.append(Tie(((port, len(b.shape) - columns, 1), ("y0", rank - 1, 1), *along), Role.MAP))
    ties.append(Tie((("x0", len(a.shape) - inner_a, 1), (port, len(b.shape) - inner_b, 1)), Role.CONTRACT))
    return wholes(view, ties)


def _columns(view: OpView, ports: tuple[int, ...], extent: int) -> tuple[Member, ...]:
    given = [(port, view.optional(port)) for port in ports]
    return tuple(
        (f"x{port}", len(tensor.shape) - 1, 1) for port, tensor in given if tensor and tensor.shape[-1:] == (extent,)
    )


def _batch_tie(axis: int, rank: int, a: Tensor, b: Tensor, y: Tensor, right: str) -> Tie:
    members = [("y0", axis, 1)]
    for port, tensor in (("x0", a), (right, b)):
        own = axis - (rank - len(tensor.shape))
        if own >= 0 and tensor.shape[own] == y.shape[axis]:
            members.append((port, own, 1))
    return Tie(tuple(members), Role.MAP)


def _matmul_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 1)


def _qlinear_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 3, (4, 5))


def gemm_axes(view: OpView) -> tuple[Tie, ...]:
    """Rows, columns with the bias, and the contracted axis."""
    return product_axes(view, 1, (2,))


_TRAITS = (Trait.CONTRACTION,)
declare(["MatMul", "MatMulInteger"], _matmul, _matmul_axes, _TRAITS)
declare(["Gemm"], _gemm, gemm_axes, _TRAITS)
declare(["QLinearMatMul"], _qlinear_matmul, _qlinear_axes, _TRAITS)
declare(["QLinearMatMul"], _qlinear_matmul, _qlinear_axes, _TRAITS, "com.microsoft")
