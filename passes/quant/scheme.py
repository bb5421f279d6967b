"""What an executor's int8 kernels ask of the numbers: signedness, symmetry, range and bias."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from eopt.backends import detect
from eopt.ir.errors import UsageError
from eopt.ir.types import DType
from eopt.passes.quant import params
from eopt.passes.quant.params import Grid

if TYPE_CHECKING:
    from eopt.backends.executor import Executor
    from eopt.backends.target import Target

FULL_RANGE, REDUCED_RANGE = 127, 63


class Activation(StrEnum):
    """Type of quantised activations; auto takes what the executor has the fastest kernels for."""

    AUTO = "auto"
    UINT8 = "uint8"
    INT8 = "int8"


@dataclass(frozen=True)
class Scheme:
    """How numbers are laid out.

    Attributes:
        dtype: of activations.
        symmetric: activations have the zero point 0.
        weight_limit: largest magnitude of a weight.
        integer_bias: biases are stored as int32.
    """

    dtype: DType
    symmetric: bool
    weight_limit: int
    integer_bias: bool

    def grid(self, low: float, high: float) -> Grid:
        """The grid of an activation seen in this range."""
        return params.symmetric(low, high) if self.symmetric else params.asymmetric(low, high, self.dtype)


def scheme(activation: Activation, target: Target | None, executor: Executor | None) -> Scheme:
    """The scheme for a target and executor; without them, that of onnxruntime on the CPU of this machine.

    Raises:
        UsageError: uint8 activations where only symmetric int8 has kernels.
    """
    if _on_accelerator(target, executor):
        if activation == Activation.UINT8:
            raise UsageError(
                "quant{activation=uint8}: this target computes on int8 with zero point 0; use int8 or auto"
            )
        return Scheme(DType.INT8, symmetric=True, weight_limit=FULL_RANGE, integer_bias=False)
    dtype = DType.INT8 if activation == Activation.INT8 else DType.UINT8
    return Scheme(dtype, symmetric=False, weight_limit=_weight_limit(target), integer_bias=True)


def _on_accelerator(target: Target | None, executor: Executor | None) -> bool:
    if executor is not None:
        return "cpu" not in executor.kinds
    return target is not None and target.kind != "cpu"


def _weight_limit(target: Target | None) -> int:
    """7-bit weights cannot overflow the 16 bits where sums saturate."""
    features = detect.cpu_features() if target is None else target.features
    return REDUCED_RANGE if detect.saturates(features) else FULL_RANGE
