"""Matrix products of onnxruntime over operands stored as they are: fused, transposed, on integers, in 8-bit floats."""

from __future__ import annotations

from eopt.ir.ops import OpView, Tie, Trait, Work, declare
from eopt.ir.opset.matmul import gemm_axes, product, product_axes
from eopt.ir.opset.shared import wholes
from eopt.ir.types import DType

_MICROSOFT = "com.microsoft"


def _matmul(view: OpView) -> Work:
    """2 m n k per product."""
    a = view.input(0)
    return product(view, a.shape[-1], DType.INT8 if view.op.endswith("Integer") else a.dtype)


def _transposed(view: OpView) -> Work:
    """2 m n k per product; the activation behind it is not counted."""
    a = view.input(0)
    return product(view, a.shape[-2 if view.attrs.get("transA", 0) else -1], a.dtype)


def _quantized_gemm(view: OpView) -> Work:
    """2 m n k; the right operand is the fourth input."""
    a = view.input(0)
    return product(view, a.shape[0 if view.attrs.get("transA", 0) else 1], a.dtype, right=3)


def _ordered(view: OpView) -> Work:
    """2 m n k on integers; the right operand is the third input."""
    a = view.input(0)
    return product(view, a.shape[-1], DType.INT8, right=2)


def _transposed_axes(view: OpView) -> tuple[Tie, ...]:
    """`transBatch` moves the batch behind the rows: nobody uses it, nothing is said of it."""
    if view.attrs.get("transBatchA", 0) or view.attrs.get("transBatchB", 0):
        return wholes(view, ())
    return product_axes(view, 1)


def _to_float_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 1, (3, 5, 6))


def _dynamic_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 1, (2, 3, 4))


def _plain_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 1)


def _biased_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 1, (2,))


def _quantized_gemm_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 3, (4, 5, 6))


def _ordered_axes(view: OpView) -> tuple[Tie, ...]:
    return product_axes(view, 2, (3, 5))


_TRAITS = (Trait.CONTRACTION,)
declare(["MatMulInteger16"], _matmul, _plain_axes, _TRAITS, _MICROSOFT)
declare(["MatMulIntegerToFloat"], _matmul, _to_float_axes, _TRAITS, _MICROSOFT)
declare(["DynamicQuantizeMatMul"], _matmul, _dynamic_axes, _TRAITS, _MICROSOFT)
declare(["SparseToDenseMatMul", "TransposeMatMul"], _transposed, _transposed_axes, _TRAITS, _MICROSOFT)
declare(["FusedMatMul", "FusedMatMulActivation"], _transposed, _transposed_axes, _TRAITS, _MICROSOFT)
declare(["FusedGemm", "GemmFloat8"], _transposed, gemm_axes, _TRAITS, _MICROSOFT)
declare(["GemmFastGelu"], _matmul, _biased_axes, _TRAITS, _MICROSOFT)
declare(["QGemm"], _quantized_gemm, _quantized_gemm_axes, _TRAITS, _MICROSOFT)
declare(["QOrderedMatMul"], _ordered, _ordered_axes, _TRAITS, _MICROSOFT)
