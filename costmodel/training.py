"""A step of training: what runs backward behind a forward kernel, and the update of the weights.

A gradient is computed where a trained weight hangs in front of it and an output behind it. So nothing runs backward
below the first weight, and products that read the data compute no gradient of it. Weights are what
`WeightStore.is_parameter` says, without the statistics of batch normalisations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from eopt.costmodel.query import Kernel
from eopt.ir.errors import UsageError
from eopt.ir.model import Model
from eopt.ir.node import Op
from eopt.ir.ops import Trait, Unit, spec
from eopt.ir.types import DType

TRAINING = "training"
FORWARD, BACKWARD, OPTIMIZER = "forward", "backward", "optimizer"
_STATE = DType.FLOAT32
_STATISTICS = slice(3, 5)  # operands of a BatchNormalization that are averages of the data


@dataclass(frozen=True)
class Optimizer:
    """What an update does to each parameter.

    Attributes:
        states: float32 numbers that are read and written besides the parameter itself.
        flops: operations, each of the update rule counted once.
    """

    states: int
    flops: int


OPTIMIZERS = {
    # Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2: two moments
    "adamw": Optimizer(states=2, flops=15),
    # with momentum and weight decay, as torch.optim.SGD states its rule: one buffer
    "sgd": Optimizer(states=1, flops=6),
}
DEFAULT_OPTIMIZER = "adamw"
# Work and bytes of a backward pass over those of the forward one. Elementwise work and softmax read a gradient besides
# (3 tensors instead of 2); normalisations read both again for the gradients of their weights (5 instead of 2);
# attention makes five products instead of two (Dao, "FlashAttention-2", ICLR 2024, section 3.1).
_PASSES = {"norm": 2.5, "attention": 2.5, "decode": 2.5}
_OTHER_PASSES = 1.5


def optimizer(name: str) -> Optimizer:
    """An optimiser by name.

    Raises:
        UsageError: none of this name.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"no optimizer {name!r}; known are {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def gradients(model: Model) -> frozenset[str]:
    """Names of weights and values whose gradients a step computes; meant for `Model.get`."""
    norms = (op for op in model.leaves() if op.op == "BatchNormalization")
    statistics = {name for op in norms for name in op.inputs[_STATISTICS]}
    hanging = {name for name in model.weights if model.weights.is_parameter(name)} - statistics
    for op in model.leaves():
        if not hanging.isdisjoint(op.reads):
            hanging.update(value.id for value in op.outputs if value.dtype is None or value.dtype.is_float)
    leading = {value.id for value in model.outputs} & hanging
    for op in reversed(model.leaves()):
        if not leading.isdisjoint(value.id for value in op.outputs):
            leading.update(hanging.intersection(op.reads))
    return frozenset(leading)


def asked_gradients(members: Sequence[Op], wanted: Set[str]) -> tuple[bool, bool]:
    """Whether a kernel computes a gradient of its first operand, and of the others; of products, where it has some."""
    live = [op for op in members if not wanted.isdisjoint(value.id for value in op.outputs)]
    chief = [op for op in live if _is_product(op)] or live
    first = any(op.inputs[0] in wanted for op in chief)
    return first, any(name in wanted for op in chief for name in op.reads if name != op.inputs[0])


def _is_product(op: Op) -> bool:
    described = spec(op.op, op.domain)
    return described is not None and Trait.CONTRACTION in described.traits


def backward(kernel: Kernel, asked: tuple[bool, bool] = (True, True)) -> tuple[Kernel, ...]:
    """A product's two gradients are products of the same size; anything else is one pass over more bytes.

    The gradients of a convolution keep its extents: its image columns are never written out, and libraries cut the sum
    over all pixels into slices.

    Args:
        asked: whether gradients of the first operand and of the others are needed.
    """
    if kernel.gemm is None or kernel.family in _PASSES:
        factor = _PASSES.get(kernel.family, _OTHER_PASSES)
        behind = Kernel(
            kernel.name, _times(kernel, factor), kernel.activation_bytes * factor, 0.0, kernel.gemm, kernel.elements,
            row=kernel.row,
        )  # fmt: skip
        return (behind,) if any(asked) else ()
    batch, m, n, k = kernel.gemm
    first, other = ((batch, m, k, n), (batch, k, n, m)) if kernel.family != "conv" else (kernel.gemm, kernel.gemm)
    read = (kernel.activation_bytes, kernel.weight_bytes), (kernel.activation_bytes + kernel.weight_bytes, 0.0)
    found = zip((first, other), read, asked, strict=True)  # the gradient of the data reads the weights, the other none
    return tuple(_gradient(kernel, gemm, traffic) for gemm, traffic, needed in found if needed)


def _gradient(kernel: Kernel, gemm: tuple[int, int, int, int], traffic: tuple[float, float]) -> Kernel:
    elements = gemm[0] * gemm[1] * gemm[2]
    return Kernel(kernel.name, kernel.flops, *traffic, gemm, elements, kernel.scale, kernel.math)


def _times(kernel: Kernel, factor: float) -> tuple[tuple[Unit, DType, float], ...]:
    return tuple((unit, dtype, amount * factor) for unit, dtype, amount in kernel.flops)


def updated(model: Model, executed: Mapping[int, Sequence[Op]], folded: Set[int]) -> dict[int, list[str]]:
    """By uid of a kernel the trained weights that it is the first to read, itself or through folded operators.

    Args:
        executed: operators of each kernel, in the order they run.
        folded: operators that depend on weights only.
    """
    wanted = model.get(gradients)
    behind = {name: [name] for name in model.weights if name in wanted}
    for op in model.leaves():
        if op.uid in folded:
            found = [weight for name in op.reads for weight in behind.get(name, ())]
            behind.update((value.id, found) for value in op.outputs)
    first: dict[str, int] = {}
    for uid, members in executed.items():
        for name in (name for op in members for name in op.reads):
            first.update((weight, uid) for weight in behind.get(name, ()) if weight not in first)
    claimed: dict[int, list[str]] = {}
    for weight, uid in first.items():
        claimed.setdefault(uid, []).append(weight)
    return claimed


def update_kernel(model: Model, weights: Sequence[str], rule: Optimizer) -> Kernel:
    """One fused pass over these parameters."""
    types = [model.weights.dtype(name) or _STATE for name in weights]
    sizes = [model.weights.nbytes(name) * 8 // dtype.bits for name, dtype in zip(weights, types, strict=True)]
    traffic = sum(size * _update_bytes(rule, dtype) for size, dtype in zip(sizes, types, strict=True))
    count = sum(sizes)
    return Kernel(OPTIMIZER, ((Unit.VECTOR, _STATE, float(rule.flops * count)),), traffic, 0.0, None, count)


def _update_bytes(rule: Optimizer, dtype: DType) -> float:
    """Of one parameter: its gradient is read, its states and the copy that is kept in float32 or wider are read and
    written, and a narrower one that the model computes with is written (Rajbhandari et al., "ZeRO", SC 2020, section
    3.1)."""
    own, kept = dtype.bits / 8, max(dtype.bits, _STATE.bits) / 8
    narrow = own if own < kept else 0.0
    return own + 2 * kept + narrow + 2 * rule.states * _STATE.bits / 8
