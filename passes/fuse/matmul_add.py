"""A product with a bias added is a Gemm, where the operands are matrices.

Activations of higher rank stay MatMul and Add: Gemm takes matrices only, the reshapes around it would be two more
operators, and every executor adds the bias in the epilogue of the product anyway.
"""

from __future__ import annotations

from eopt.ir.node import Op
from eopt.passes.rewrite import Matcher, Replacement, rule


@rule("matmul-add", "Add")
def matmul_add(m: Matcher, add: Op) -> Replacement:
    """MatMul(a, w) + bias with a of rank 2, w and bias constant."""
    product, bias = m.either(add, "MatMul", uses=1)
    left = m.model.value(product.inputs[0] or "").shape
    m.need(left is not None and len(left) == 2, "Gemm takes matrices; the left operand is none", product)
    weight = m.constant(product, 1)
    m.need(weight.ndim == 2, f"the weight has rank {weight.ndim}, not 2", product)
    added = m.model.constant(bias)
    m.need(added is not None, f"the other operand {bias!r} is no constant", add)
    assert added is not None
    columns = weight.shape[1]
    m.need(added.shape in ((columns,), (1, columns)), f"the bias has shape {added.shape}, not ({columns},)", add)
    fused = Op("Gemm", (*product.inputs, bias), add.outputs, name=product.name)
    return Replacement([product, add], [fused])
