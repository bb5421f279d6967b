"""Elementwise operators: a fixed number of operations per element of the result."""

from __future__ import annotations

from eopt.ir.ops import OpView, Role, Tie, Trait, Unit, Work, declare, traffic

# Operations per element. Primitive arithmetic counts 1. Transcendental functions count the primitive operations of a
# usual polynomial evaluation (Cephes, single precision: exp about 10, log 12, erf, tanh and sin near 15 to 20).
_OPERATIONS = {
    1: """Add Sub Mul Div Neg Abs Relu Sqrt Reciprocal Floor Ceil Round Sign Not And Or Xor Equal Greater Less
        GreaterOrEqual LessOrEqual Where Min Max Sum Cast CastLike BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot
        IsNaN IsInf Mod Clip""",
    2: "Mean LeakyRelu PRelu ThresholdedRelu HardSigmoid Shrink",
    4: "HardSwish",
    10: "Exp Elu Selu Celu",
    12: "Log Sigmoid Softplus Softsign",
    15: "SwiGLU",
    16: "Swish Mish",
    20: "Erf Tanh Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Pow Gelu",
}
PER_ELEMENT = {name: cost for cost, names in _OPERATIONS.items() for name in names.split()}
_SEVERAL_OPERANDS = """Add Sub Mul Div And Or Xor Equal Greater Less GreaterOrEqual LessOrEqual Where Min Max Sum Mean
    BitShift BitwiseAnd BitwiseOr BitwiseXor Mod Pow PRelu CastLike SwiGLU""".split()


def _work(view: OpView) -> Work:
    """By operator, per element of the result."""
    read, written = traffic(view)
    operand = view.inputs[1] if view.op == "Where" else view.inputs[0]
    dtype = operand.dtype if operand else view.outputs[0].dtype
    return Work(PER_ELEMENT[view.op] * view.outputs[0].numel, read, written, Unit.VECTOR, dtype)


def broadcast_axes(view: OpView) -> tuple[Tie, ...]:
    """Axes aligned from the right; an axis of extent one that is broadcast is tied to nothing."""
    out = view.outputs[0].shape
    ties = []
    for axis, extent in enumerate(out):
        members = [("y0", axis, 1)]
        for number, tensor in enumerate(view.inputs):
            own = axis - (len(out) - len(tensor.shape)) if tensor else -1
            if tensor and own >= 0 and tensor.shape[own] == extent:
                members.append((f"x{number}", own, 1))
        ties.append(Tie(tuple(members), Role.MAP))
    return tuple(ties)


for _name in PER_ELEMENT:
    _traits = (Trait.ELEMENTWISE,) if _name in _SEVERAL_OPERANDS else (Trait.ELEMENTWISE, Trait.UNARY)
    declare([_name], _work, broadcast_axes, _traits)
