"""Matrix products. Flops are 2 m n k per product: one multiplication and one addition for each term."""

from __future__ import annotations

from math import prod

from eopt.ir.errors import InputError
from eopt.ir.ops import OpView, Role, Tensor, Tie, Trait, Unit, Work, declare, traffic
from eopt.ir.types import DType


def _product(view: OpView, k: int, dtype: DType) -> Work:
    read, written = traffic(view)
    return Work(2.0 * view.outputs[0].numel * k, read, written, Unit.MATRIX, dtype)


def _matmul(view: OpView) -> Work:
    a = view.input(0)
    return _product(view, a.shape[-1], DType.INT8 if view.op.endswith("Integer") else a.dtype)


def _gemm(view: OpView) -> Work:
    a = view.input(0)
    return _product(view, a.shape[0 if view.attrs.get("transA", 0) else 1], a.dtype)


def _fused_matmul(view: OpView) -> Work:
    a = view.input(0)
    return _product(view, a.shape[-2 if view.attrs.get("transA", 0) else -1], a.dtype)


def _qlinear_matmul(view: OpView) -> Work:
    return _product(view, view.input(0).shape[-1], DType.INT8)


def _matmul_nbits(view: OpView) -> Work:
    """Weights are stored in `bits` bits but multiplied in the activation type."""
    return _product(view, int(view.attrs["K"]), view.input(0).dtype)


def _einsum(view: OpView) -> Work:
    """Flops of the direct evaluation: two per point of the joint index space for two operands, one for a single one."""
    equation = str(view.attrs["equation"]).replace(" ", "")
    operands = equation.split("->")[0].split(",")
    if "." in equation or len(operands) != len(view.inputs):
        raise InputError(f"Einsum {equation!r}: no cost formula for ellipses")
    extents: dict[str, int] = {}
    for term, tensor in zip(operands, view.inputs, strict=True):
        extents.update(zip(term, tensor.shape if tensor else (), strict=True))
    read, written = traffic(view)
    unit = Unit.MATRIX if len(operands) > 1 else Unit.VECTOR
    return Work(float(len(operands) * prod(extents.values())), read, written, unit, view.input(0).dtype)


def _matmul_axes(view: OpView) -> tuple[Tie, ...]:
    a, b, y = view.input(0), view.input(1 if view.op != "QLinearMatMul" else 3), view.outputs[0]
    right = "x1" if view.op != "QLinearMatMul" else "x3"
    if len(a.shape) < 2 or len(b.shape) < 2:
        return tuple(Tie((("y0", axis, 1),), Role.WHOLE) for axis in range(len(y.shape)))
    rank = len(y.shape)
    ties = [_batch_tie(axis, rank, a, b, y, right) for axis in range(rank - 2)]
    ties.append(Tie((("x0", len(a.shape) - 2, 1), ("y0", rank - 2, 1)), Role.MAP))
    ties.append(Tie(((right, len(b.shape) - 1, 1), ("y0", rank - 1, 1)), Role.MAP))
    ties.append(Tie((("x0", len(a.shape) - 1, 1), (right, len(b.shape) - 2, 1)), Role.CONTRACT))
    return tuple(ties)


def _batch_tie(axis: int, rank: int, a: Tensor, b: Tensor, y: Tensor, right: str) -> Tie:
    members = [("y0", axis, 1)]
    for port, tensor in (("x0", a), (right, b)):
        own = axis - (rank - len(tensor.shape))
        if own >= 0 and tensor.shape[own] == y.shape[axis]:
            members.append((port, own, 1))
    return Tie(tuple(members), Role.MAP)


def _gemm_axes(view: OpView) -> tuple[Tie, ...]:
    a_t, b_t = view.attrs.get("transA", 0), view.attrs.get("transB", 0)
    columns = [("x1", 0 if b_t else 1, 1), ("y0", 1, 1)]
    bias = view.inputs[2] if len(view.inputs) > 2 else None
    if bias and bias.shape and bias.shape[-1] == view.outputs[0].shape[1]:
        columns.append(("x2", len(bias.shape) - 1, 1))
    rows = (("x0", 1 if a_t else 0, 1), ("y0", 0, 1))
    inner = (("x0", 0 if a_t else 1, 1), ("x1", 1 if b_t else 0, 1))
    return Tie(rows, Role.MAP), Tie(tuple(columns), Role.MAP), Tie(inner, Role.CONTRACT)


_TRAITS = (Trait.CONTRACTION,)
_CONTRIB = "com.microsoft"
declare(["MatMul", "MatMulInteger"], _matmul, _matmul_axes, _TRAITS)
declare(["MatMulInteger16", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"], _matmul, _matmul_axes, _TRAITS, _CONTRIB)
declare(["Gemm"], _gemm, _gemm_axes, _TRAITS)
declare(["QGemm"], _gemm, traits=_TRAITS, domain=_CONTRIB)
declare(["QLinearMatMul"], _qlinear_matmul, _matmul_axes, _TRAITS)
declare(["QLinearMatMul"], _qlinear_matmul, _matmul_axes, _TRAITS, _CONTRIB)
declare(["FusedMatMul", "FusedGemm"], _fused_matmul, traits=_TRAITS, domain=_CONTRIB)
declare(["MatMulNBits"], _matmul_nbits, traits=_TRAITS, domain=_CONTRIB)
declare(["Einsum"], _einsum, traits=_TRAITS)
