"""Integer arithmetic for quantised operators: Relax itself computes them in float.

With q the 8-bit values, z their zero points and s their scales, and sums over the reduced axis of extent K:

    Σ (a - za)(b - zb) = Σ a·b - za Σ b - zb Σ a + K·za·zb        (int32)

times sa·sb in float. The sums over constants fold at compile time; symmetric weights leave one term, symmetric
activations none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eopt.backends.base import Array

_NARROW = ("int8", "uint8")


@dataclass(frozen=True)
class Operand:
    """What stands behind an operand of a product.

    Attributes:
        values: a Relax expression of `int8` or `uint8`.
        zero: the zero point: a scalar constant, or a Relax expression of one `int32`.
        scale: its constant scales, `None` where the product is wanted in integers.
        axis: of `values` along which scales differ; `None` for one scale.
    """

    values: Any
    zero: int | Any
    scale: Array | None
    axis: int | None = None


def integer(module: Any) -> Any:
    """A Relax module whose `matmul` and `conv2d` over dequantised 8-bit operands accumulate in `int32`.

    What does not fit (scales along the reduced axis, zero points of weights that vary) is left as it is.
    """
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Rewriter(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            product = _PRODUCTS.get(getattr(call.op, "name", ""))
            if product is None:
                return call
            a, b = (_operand(arg, self.lookup_binding) for arg in call.args)
            found = None if a is None or b is None else product(call, a, b)
            return call if found is None else found

    rewriter = Rewriter(module)
    for name, function in module.functions_items():
        if isinstance(function, relax.Function):
            rewriter.builder_.update_func(name, rewriter.visit_expr(function))
    return rewriter.builder_.get()


def _operand(expr: Any, binding: Any) -> Operand | None:
    call = _resolved(expr, binding)
    if _is_constant(call):
        return _narrowed(call)
    name = getattr(getattr(call, "op", None), "name", "")
    if name == "relax.permute_dims":
        return _permuted(call, _operand(call.args[0], binding))
    if name == "relax.dequantize":
        return _dequantised(call, binding)
    if name == "relax.subtract":
        zero = _constant(call.args[1], binding)
        inner = _operand(call.args[0], binding)
        if inner is None or int(np.prod(_shape(call.args[1]))) != 1:
            return None
        return _shifted(replace(inner, zero=call.args[1] if zero is None else int(zero.reshape(-1)[0])))
    if name == "relax.astype" and _dtype(call) == "int32" and _dtype(call.args[0]) in _NARROW:
        return Operand(call.args[0], 0, None)
    return None


def _narrowed(constant: Any) -> Operand | None:
    """A constant that the importer has widened, in eight bits again where it fits."""
    from tvm import relax

    array = np.asarray(constant.value.numpy())
    if array.dtype != np.int32 or not array.size or array.min() < -128 or array.max() > 127:
        return None
    return Operand(relax.const(array.astype(np.int8)), 0, None)


def _dequantised(call: Any, binding: Any) -> Operand | None:
    values, scale, zero = call.args[0], *(_constant(arg, binding) for arg in call.args[1:])
    if _dtype(values) not in _NARROW or scale is None or zero is None or len(set(zero.reshape(-1).tolist())) != 1:
        return None
    axis = None if scale.size == 1 else int(call.attrs.axis) % len(_shape(values))
    return _shifted(Operand(values, int(zero.reshape(-1)[0]), scale.reshape(-1), axis))


def _permuted(call: Any, inner: Operand | None) -> Operand | None:
    from tvm import relax

    if inner is None:
        return None
    rank = len(_shape(inner.values))
    order = [int(axis) for axis in call.attrs.axes] if call.attrs.axes else list(reversed(range(rank)))
    axis = None if inner.axis is None else order.index(inner.axis)
    if _is_constant(inner.values):
        constant = relax.const(np.ascontiguousarray(inner.values.value.numpy().transpose(order)))
        return replace(inner, values=constant, axis=axis)
    return replace(inner, values=relax.op.permute_dims(inner.values, order), axis=axis)


def _shifted(operand: Operand) -> Operand:
    """Constants give up their zero point where `int8` holds the difference: unsigned weights about 128 do."""
    from tvm import relax

    if not isinstance(operand.zero, int) or operand.zero == 0 or not _is_constant(operand.values):
        return operand
    centred = operand.values.value.numpy().astype(np.int16) - operand.zero
    if centred.min() < -128 or centred.max() > 127:
        return operand
    return replace(operand, values=relax.const(centred.astype(np.int8)), zero=0)


def _matmul(call: Any, a: Operand, b: Operand) -> Any:
    from tvm import relax

    if a.axis is not None or b.axis not in (None, len(_shape(b.values)) - 1):
        return None
    op, extent = relax.op, _shape(a.values)[-1]
    sums = op.matmul(a.values, b.values, out_dtype="int32")
    if not _is_zero(a.zero):
        sums = op.subtract(sums, op.multiply(_int32(a.zero), op.sum(op.astype(b.values, "int32"), -2, keepdims=True)))
    if not _is_zero(b.zero):
        sums = op.subtract(sums, op.multiply(_int32(b.zero), op.sum(op.astype(a.values, "int32"), -1, keepdims=True)))
    if not _is_zero(a.zero) and not _is_zero(b.zero):
        both = op.multiply(_int32(a.zero), _int32(b.zero))
        sums = op.add(sums, op.multiply(both, relax.const(extent, "int32")))
    return _scaled(sums, a, b, (-1,), _dtype(call))


def _conv2d(call: Any, x: Operand, w: Operand) -> Any:
    """Zero points of weights would need a second convolution, those that vary a padding that does: both are left."""
    from tvm import relax

    attrs, op = call.attrs, relax.op
    plain = attrs.data_layout == "NCHW" and attrs.kernel_layout == "OIHW"
    if not plain or x.axis is not None or w.axis not in (None, 0) or w.zero != 0 or not isinstance(x.zero, int):
        return None
    top, left, bottom, right = (int(extent) for extent in attrs.padding)
    values, padding = x.values, [top, left, bottom, right]
    if x.zero and any(padding):
        values = op.nn.pad(values, [0, 0, 0, 0, top, bottom, left, right], pad_value=x.zero)
        padding = [0, 0, 0, 0]
    sums = op.nn.conv2d(
        values, w.values, strides=attrs.strides, padding=padding, dilation=attrs.dilation, groups=int(attrs.groups),
        out_dtype="int32",
    )  # fmt: skip
    if x.zero:
        window = op.expand_dims(op.sum(op.astype(w.values, "int32"), [1, 2, 3]), [0, 2, 3])
        sums = op.subtract(sums, op.multiply(_int32(x.zero), window))
    return _scaled(sums, x, w, (1, -1, 1, 1), _dtype(call))


_PRODUCTS = {"relax.matmul": _matmul, "relax.nn.conv2d": _conv2d}


def _scaled(sums: Any, a: Operand, b: Operand, shape: tuple[int, ...], dtype: str) -> Any:
    from tvm import relax

    if a.scale is None or b.scale is None:
        return sums if a.scale is b.scale else None
    scale = (a.scale.astype(np.float32) * b.scale.astype(np.float32)).astype(dtype)
    factor = relax.const(scale.reshape(shape) if scale.size > 1 else scale.reshape(()))
    return relax.op.multiply(relax.op.astype(sums, dtype), factor)


def _int32(zero: int | Any) -> Any:
    from tvm import relax

    return relax.const(zero, "int32") if isinstance(zero, int) else zero


def _is_zero(zero: int | Any) -> bool:
    return isinstance(zero, int) and zero == 0


def _is_constant(expr: Any) -> bool:
    from tvm.ir.expr import GenericConst

    return isinstance(expr, GenericConst)


def _resolved(expr: Any, binding: Any) -> Any:
    from tvm import relax

    return binding(expr) if isinstance(expr, relax.Var) else expr


def _constant(expr: Any, binding: Any) -> Array | None:
    """The value of a constant, also behind a change of its type or shape."""
    found = _resolved(expr, binding)
    while getattr(getattr(found, "op", None), "name", "") in ("relax.astype", "relax.expand_dims", "relax.reshape"):
        found = _resolved(found.args[0], binding)
    return np.asarray(found.value.numpy()) if _is_constant(found) else None


def _dtype(expr: Any) -> str:
    return str(expr.ty.dtype)


def _shape(expr: Any) -> tuple[int, ...]:
    return tuple(int(extent) for extent in expr.ty.shape)
